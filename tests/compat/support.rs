//! A host whose native API is spoken to by Debian's `ctr`.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use rcontainerd_tests::{Outcome, Registry, TestHost, image};

pub struct CtrHost {
    /// First: the host looks for what is left when it goes.
    registry: Registry,
    pub host: TestHost,
}

impl CtrHost {
    /// A manager with nothing in it, and a registry that has `busybox:latest`.
    pub fn start(config: &str) -> Self {
        let host = TestHost::start_with(config);
        let registry = Registry::start(&host);
        let socket = host.state().join("rcontainerd.sock");
        host.eventually("the containerd API answers", || {
            let mut command = host.command("ctr");
            command.arg("-a").arg(&socket).arg("version").stdin(Stdio::null()).output().expect("run ctr").status.success()
        });
        let archive = host.path().join("busybox.tar");
        image::busybox_archive(&archive, "busybox:latest");
        registry.push(&host, &archive, "busybox:latest", "oci");
        Self { host, registry }
    }

    /// As `start`, and pulled.
    pub fn with_image(config: &str) -> Self {
        let host = Self::start(config);
        let image = host.image();
        host.ctr(&["images", "pull", "--plain-http", &image]).success();
        host
    }

    pub fn image(&self) -> String {
        format!("{}/busybox:latest", self.registry.address)
    }

    pub fn socket(&self) -> PathBuf {
        self.host.state().join("rcontainerd.sock")
    }

    /// `ctr ARGS`, for a minute at most: it passes signals on to the container, only KILL ends it for sure.
    pub fn ctr(&self, args: &[&str]) -> Outcome {
        let mut command = self.host.command("timeout");
        command.args(["-s", "KILL", "60", "ctr", "-a"]).arg(self.socket()).args(args).stdin(Stdio::null());
        Outcome::new(format!("ctr {}", args.join(" ")), &command.output().expect("run ctr"))
    }

    pub fn spawn_ctr(&self, args: &[&str]) -> Child {
        let mut command = self.host.command("ctr");
        command.arg("-a").arg(self.socket()).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("run ctr")
    }

    /// `ctr run FLAGS IMAGE ID ARGS`, in a cgroup of the host's own.
    pub fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> Outcome {
        let image = self.image();
        let cgroup = self.cgroup(id);
        self.ctr(&[&["run", "--cgroup", &cgroup], flags, &[&image, id], args].concat())
    }

    pub fn cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.host.path().file_name().expect("a name").display())
    }

    /// The state that `ctr tasks ls` shows.
    pub fn state(&self, id: &str) -> Option<String> {
        let tasks = self.ctr(&["tasks", "ls"]).success().stdout;
        let line = tasks.lines().find(|line| line.split_whitespace().next() == Some(id))?;
        line.split_whitespace().last().map(str::to_owned)
    }

    /// Removes a container that `run -d` left.
    pub fn remove(&self, id: &str) {
        if self.state(id).as_deref() == Some("RUNNING") {
            self.ctr(&["tasks", "kill", "-s", "KILL", id]).success();
        }
        self.host.eventually("the task ends", || self.state(id).is_none_or(|state| state == "STOPPED"));
        self.ctr(&["tasks", "rm", id]);
        self.ctr(&["containers", "rm", id]).success();
    }

    /// Nothing of any task is left: processes, mounts, bundles, sockets.
    pub fn assert_clean(&self) {
        self.host.eventually("nothing is left", || {
            let bundles = std::fs::read_dir(self.host.state().join("tasks/default")).map_or(0, Iterator::count);
            bundles == 0 && self.host.leftovers().iter().all(|line| line.contains("docker-registry"))
        });
    }
}
