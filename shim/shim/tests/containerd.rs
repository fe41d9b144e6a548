//! Our shim under an unmodified containerd (Debian's 1.6: task service version 2, bare address), driven by its own `ctr`.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Host, SHIM, runtime};

struct Containerd {
    child: Child,
    socket: PathBuf,
    rootfs: PathBuf,
}

impl Containerd {
    /// With root, state and configuration of its own, below the host's directory.
    fn start(host: &Host) -> Self {
        let dir = host.dir.path();
        let bin = dir.join("bin");
        std::fs::create_dir(&bin).expect("bin");
        std::fs::copy(SHIM, bin.join("containerd-shim-rrun-v2")).expect("shim");
        std::os::unix::fs::symlink(runtime(), bin.join("rrun")).expect("runtime");
        let socket = dir.join("c/containerd.sock");
        let config = format!(
            "version = 2\nroot = \"{0}/cr\"\nstate = \"{0}/c\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{1}\"\n[ttrpc]\naddress = \"{1}.ttrpc\"\n",
            dir.display(),
            socket.display()
        );
        std::fs::write(dir.join("config.toml"), config).expect("config");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("PATH"));
        let mut command = Command::new("containerd");
        command.arg("-c").arg(dir.join("config.toml")).env("PATH", path);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("containerd is installed");
        let containerd = Self { child, socket, rootfs: dir.join("rootfs") };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !containerd.ctr(&["version"]).status.success() {
            assert!(Instant::now() < deadline, "containerd did not start");
        }
        containerd
    }

    fn ctr(&self, args: &[&str]) -> Output {
        // ctr passes signals on to the container: only KILL ends it for sure.
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60", "ctr", "-a"]).arg(&self.socket).args(args).stdin(Stdio::null());
        command.output().expect("ctr")
    }

    fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> Output {
        let rootfs = self.rootfs.display().to_string();
        let fixed = ["--runtime", "io.containerd.rrun.v2", "--env", "PATH=/bin", "--rootfs", &rootfs, id];
        self.ctr(&[&["run"], flags, &fixed, args].concat())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Ours alone: started above, never another's.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn ctr_runs_execs_signals_and_deletes() {
    if !Path::new("/usr/bin/containerd").exists() {
        eprintln!("skipped: containerd is not installed");
        return;
    }
    let host = Host::new().await;
    let containerd = Containerd::start(&host);
    let output = containerd.run(&["--rm"], "a", &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((text(&output.stdout), output.status.code()), ("out\n".to_owned(), Some(3)), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("err\n"));

    let output = containerd.run(&["--rm"], "b", &["no-such"]);
    assert!(text(&output.stderr).contains("executable file not found in $PATH"), "{}", text(&output.stderr));

    let output = containerd.run(&["-d"], "c", &["sleep", "1000"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = containerd.ctr(&["task", "exec", "--exec-id", "e", "c", "sh", "-c", "echo in; exit 4"]);
    assert_eq!((text(&output.stdout), output.status.code()), ("in\n".to_owned(), Some(4)), "{}", text(&output.stderr));
    assert!(text(&containerd.ctr(&["task", "metrics", "c"]).stdout).contains("pids.current"));
    assert!(containerd.ctr(&["task", "pause", "c"]).status.success());
    assert!(text(&containerd.ctr(&["task", "ls"]).stdout).contains("PAUSED"));
    assert!(containerd.ctr(&["task", "resume", "c"]).status.success());
    assert!(containerd.ctr(&["task", "kill", "-s", "9", "c"]).status.success());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !text(&containerd.ctr(&["task", "ls"]).stdout).contains("STOPPED") {
        assert!(Instant::now() < deadline, "{}", text(&containerd.ctr(&["task", "ls"]).stdout));
    }
    containerd.ctr(&["task", "rm", "c"]);
    containerd.ctr(&["container", "rm", "c"]);
    assert_eq!(files(&host.dir.path().join("c/io.containerd.runtime.v2.task/default")), 0, "a bundle is left");
    assert_eq!(files(&host.dir.path().join("c/s")), 0, "a socket is left");
}
