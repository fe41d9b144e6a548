//! Debian's docker and podman with `rrun` as their runtime.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcontainerd_tests::host::programs;
use rcontainerd_tests::{Outcome, image, leftovers};

const PATIENCE: Duration = Duration::from_secs(60);

/// A network and a mount namespace for an engine, in which cgroup v1 is all there is: podman refuses a hybrid view. Held by a process that
/// sleeps for as long as its standard input is open.
struct Room {
    holder: Child,
    dir: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        use std::io::Read;
        let view =
            "ip link set lo up && { ! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified; } && echo ready && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", view])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut ready = [0; 6];
        holder.stdout.as_mut().expect("piped").read_exact(&mut ready).expect("the namespaces are made");
        Self { holder, dir: tempfile::Builder::new().prefix("rct-engine-").tempdir().expect("temp dir") }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn cgroup(&self) -> String {
        self.dir.path().file_name().expect("a name").to_string_lossy().into_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let namespace = |kind: &str| format!("/proc/{}/ns/{kind}", self.holder.id());
        command.arg(format!("--net={}", namespace("net"))).arg(format!("--mount={}", namespace("mnt"))).arg("--").arg(program);
        command.env("HOME", self.dir.path());
        command
    }

    fn archive(&self) -> PathBuf {
        let archive = self.dir.path().join("busybox.tar");
        image::busybox_archive(&archive, "localhost/busybox:latest");
        archive
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        leftovers::end_cgroups(&self.cgroup(), PATIENCE);
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
        for mount in leftovers::mounts(self.dir.path()) {
            rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH).ok();
        }
    }
}

/// An engine that runs containers with `rrun`.
trait Engine {
    fn room(&self) -> &Room;
    /// `docker ARGS`.
    fn call(&self, args: &[&str]) -> Outcome;
    /// What goes behind `run`.
    fn flags(&self) -> Vec<String>;
    /// Where the runtime keeps its states for it.
    fn states(&self) -> PathBuf;

    fn run(&self, flags: &[&str], command: &[&str]) -> Outcome {
        let own = self.flags();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        self.call(&[&["run"], own.as_slice(), flags, &["localhost/busybox"], command].concat())
    }

    /// Containers of this engine that the runtime knows.
    fn known(&self) -> usize {
        let room = self.room().dir.path().display().to_string();
        let entries = std::fs::read_dir(self.states()).into_iter().flatten().flatten();
        entries.filter(|entry| std::fs::read_to_string(entry.path().join("state.json")).is_ok_and(|state| state.contains(&room))).count()
    }
}

struct Docker {
    room: Room,
    daemon: Child,
}

impl Docker {
    fn start() -> Self {
        let room = Room::new();
        let log = std::fs::File::create(room.path("log")).expect("log file");
        let mut command = room.command("dockerd");
        command.args(["--data-root", &room.path("data"), "--exec-root", &room.path("x"), "-p", &room.path("pid")]);
        command.args(["-H", &format!("unix://{}", room.path("docker.sock")), "--bip=172.28.0.1/16"]);
        command.arg(format!("--cgroup-parent=/{}", room.cgroup()));
        command.arg("--add-runtime").arg(format!("rrun={}", programs().join("rrun").display()));
        let daemon =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).spawn().expect("dockerd must be installed");
        let docker = Self { room, daemon };
        let end = Instant::now() + PATIENCE;
        while docker.call(&["version"]).code != 0 {
            let log = std::fs::read_to_string(docker.room.path("log")).unwrap_or_default();
            assert!(Instant::now() < end, "dockerd does not answer:\n{log}");
        }
        docker.call(&["load", "-i", docker.room.archive().to_str().expect("a path")]).success();
        docker
    }
}

impl Engine for Docker {
    fn room(&self) -> &Room {
        &self.room
    }

    fn call(&self, args: &[&str]) -> Outcome {
        let mut command = self.room.command("/usr/bin/docker");
        command.arg("-H").arg(format!("unix://{}", self.room.path("docker.sock"))).args(args);
        let output = command.stdin(Stdio::null()).output().expect("docker must be installed");
        Outcome::new(format!("docker {}", args.join(" ")), &output)
    }

    fn flags(&self) -> Vec<String> {
        vec!["--runtime=rrun".into()]
    }

    fn states(&self) -> PathBuf {
        // By whichever name the runtime was added.
        Path::new(&self.room.path("x")).join("runtime-runc/moby")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let ids = self.call(&["ps", "-aq"]).stdout;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.call(&[&["rm", "-f"], ids.as_slice()].concat());
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        drop(self.daemon.wait());
    }
}

struct Podman(Room);

impl Podman {
    fn new() -> Self {
        let podman = Self(Room::new());
        podman.call(&["load", "-q", "-i", podman.0.archive().to_str().expect("a path")]).success();
        podman
    }
}

impl Engine for Podman {
    fn room(&self) -> &Room {
        &self.0
    }

    fn call(&self, args: &[&str]) -> Outcome {
        let mut command = self.0.command("podman");
        for (flag, dir) in [("--root", "data"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(self.0.path(dir));
        }
        // Those that podman would set are more than a test machine may allow.
        let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n";
        std::fs::write(self.0.path("containers.conf"), limits).expect("write podman's configuration");
        command.env("CONTAINERS_CONF", self.0.path("containers.conf"));
        command.args(["--cgroup-manager=cgroupfs", "--events-backend=file"]).arg("--runtime").arg(programs().join("rrun")).args(args);
        let output = command.stdin(Stdio::null()).output().expect("podman must be installed");
        Outcome::new(format!("podman {}", args.join(" ")), &output)
    }

    fn flags(&self) -> Vec<String> {
        // conmon would get a cgroup of its own, also where no hierarchy is mounted, and leave it.
        vec![format!("--cgroup-parent=/{}", self.0.cgroup()), "--cgroups=no-conmon".into(), "--network=none".into()]
    }

    fn states(&self) -> PathBuf {
        PathBuf::from("/run/rrun")
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.call(&["rm", "-f", "-a", "-t", "0"]);
    }
}

/// What users of either engine do every day.
fn everyday(engine: &impl Engine) {
    engine.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 3"]).code(3).stdout("out\n");
    engine.run(&["--rm"], &["nosuch"]).code(127);
    engine.run(&["--rm"], &["/etc/passwd"]).code(126);
    engine.run(&["--rm", "-t"], &["tty"]).success().stdout_has("/dev/pts/0");
    engine
        .run(&["--rm", "-u", "1000", "--read-only", "--cap-drop=ALL", "-w", "/tmp"], &["sh", "-c", "id -u; pwd; touch /x || echo no"])
        .stdout_has("1000\n/tmp\n");
    engine.run(&["--rm", "--privileged"], &["sh", "-c", "mount -t tmpfs none /tmp && echo mounted"]).success().stdout("mounted\n");
    engine
        .run(&["--rm", "--tmpfs", "/t", "--hostname", "box", "-e", "X=1"], &["sh", "-c", "hostname; echo $X; mount | grep -c ' /t '"])
        .success()
        .stdout("box\n1\n1\n");
    engine
        .run(
            &["--rm", "--ulimit", "nofile=100:200", "--ulimit", "nproc=400:500", "--sysctl", "net.ipv4.ip_forward=1"],
            &["sh", "-c", "ulimit -n; cat /proc/sys/net/ipv4/ip_forward"],
        )
        .success()
        .stdout("100\n1\n");
    engine.run(&["-d", "--name", "box", "--memory=64m", "--pids-limit=50"], &["sleep", "1000"]).success();
    engine.call(&["exec", "box", "sh", "-c", "echo in; exit 4"]).code(4).stdout("in\n");
    engine.call(&["exec", "box", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]).success().stdout("67108864\n");
    engine.call(&["top", "box"]).success().stdout_has("sleep 1000");
    engine.call(&["pause", "box"]).success();
    engine.call(&["inspect", "-f", "{{.State.Status}}", "box"]).success().stdout("paused\n");
    engine.call(&["unpause", "box"]).success();
    engine.call(&["stats", "--no-stream", "box"]).success().stdout_has("box");
    engine.call(&["stop", "-t", "0", "box"]).success();
    engine.call(&["inspect", "-f", "{{.State.ExitCode}}", "box"]).success().stdout("137\n");
    engine.call(&["start", "box"]).success();
    engine.call(&["rm", "-f", "box"]).success();
}

#[test]
fn docker_runs_its_containers_with_our_runtime() {
    let docker = Docker::start();
    everyday(&docker);
    // libnetwork comes in by a prestart hook.
    docker.run(&["-d", "--name", "net"], &["sh", "-c", "echo here | nc -l -p 80"]).success();
    let address = docker.call(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "net"]).success().word();
    assert!(address.starts_with("172.28."), "{address}");
    docker.run(&["--rm"], &["sh", "-c", &format!("until nc {address} 80 </dev/null; do :; done")]).success().stdout("here\n");
    docker.run(&["-d", "--name", "limits"], &["sleep", "1000"]).success();
    docker.call(&["update", "--memory=32m", "--memory-swap=32m", "limits"]).success();
    docker.call(&["exec", "limits", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]).success().stdout("33554432\n");
    assert!(docker.known() > 0, "it runs by another runtime");
    docker.call(&["rm", "-f", "net", "limits"]).success();
    assert_eq!(docker.known(), 0, "a state is left");
}

#[test]
fn podman_runs_its_containers_with_our_runtime() {
    let podman = Podman::new();
    everyday(&podman);
    podman.run(&["-d", "--name", "seen"], &["sleep", "1000"]).success();
    podman.call(&["inspect", "-f", "{{.OCIRuntime}}", "seen"]).success().stdout_has("rrun");
    assert!(podman.known() > 0, "it runs by another runtime");
    podman.call(&["kill", "-s", "KILL", "seen"]).success();
    podman.call(&["wait", "seen"]).success().stdout("137\n");
    podman.call(&["rm", "-f", "-a", "-t", "0"]).success();
    assert_eq!(podman.known(), 0, "a state is left");
}
