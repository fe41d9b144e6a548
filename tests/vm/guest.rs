//! The runtime's suite on a host with cgroup v2 alone and every capability. Runs inside the machine of tests/vm (`--test vm`).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const CGROUPS: &str = "/sys/fs/cgroup";
const PATIENCE: Duration = Duration::from_secs(30);

/// A bundle with busybox as its root, and what is made of it.
struct Container {
    id: String,
    bundle: PathBuf,
    config: Value,
}

impl Container {
    fn new(id: &str, args: &[&str]) -> Container {
        assert!(
            std::env::var_os("RRUN_FULL_V2").is_some(),
            "this suite runs in the virtual machine: cargo test -p rcontainerd-tests --test vm"
        );
        let bundle = PathBuf::from(format!("/tmp/{id}"));
        let bin = bundle.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        ["proc", "sys", "dev", "tmp", "etc"].iter().for_each(|dir| fs::create_dir_all(bundle.join("rootfs").join(dir)).unwrap());
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in ["sh", "cat", "sleep", "mknod", "true", "echo", "mkdir", "tail", "head", "mount"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        Container { id: id.into(), config: config(id, args), bundle }
    }

    fn sh(id: &str, script: &str) -> Container {
        Container::new(id, &["/bin/sh", "-c", script])
    }

    fn with(mut self, pointer: &str, value: Value) -> Container {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    fn resources(self, value: Value) -> Container {
        self.with("/linux/resources", value)
    }

    fn write(&self) {
        fs::write(self.bundle.join("config.json"), self.config.to_string()).unwrap();
    }

    /// `run` to the end, with its output.
    fn run(&self) -> Output {
        self.write();
        rrun().args(["run", "--bundle"]).arg(&self.bundle).arg(&self.id).stdin(Stdio::null()).output().unwrap()
    }

    /// Standard output of a run that must succeed.
    fn text(&self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// `create` and `start`; the container goes on by itself.
    fn start(&self) {
        self.write();
        let log = fs::File::create(self.bundle.join("out")).unwrap();
        let created = rrun()
            .args(["create", "--bundle"])
            .arg(&self.bundle)
            .arg(&self.id)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        assert!(created.success(), "create: {}", self.out());
        self.command(&["start"]);
    }

    fn out(&self) -> String {
        fs::read_to_string(self.bundle.join("out")).unwrap_or_default()
    }

    fn command(&self, words: &[&str]) -> String {
        let output = rrun().args(words).arg(&self.id).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.command(&["state"])).unwrap()
    }

    fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    fn cgroup(&self) -> PathBuf {
        Path::new(CGROUPS).join("rrun-vm").join(&self.id)
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.cgroup().join(name)).unwrap().trim().to_owned()
    }

    fn delete(&self) {
        self.command(&["delete", "--force"]);
        assert!(!self.cgroup().exists(), "the cgroup was left behind");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // After a failed test; a container that is gone already is no news.
        drop(rrun().args(["delete", "--force", &self.id]).output());
        fs::remove_dir_all(&self.bundle).unwrap_or_default();
        fs::remove_dir(Path::new(CGROUPS).join("rrun-vm")).unwrap_or_default();
    }
}

fn rrun() -> Command {
    Command::new("/bin/rrun")
}

fn config(id: &str, args: &[&str]) -> Value {
    let caps = json!(["CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_KILL"]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true,
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "root": {"path": "rootfs"},
        "hostname": id,
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755", "size=65536k"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime"]},
        ],
        "linux": {
            "cgroupsPath": format!("/rrun-vm/{id}"),
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}, {"type": "cgroup"}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        std::thread::yield_now();
    }
}

#[test]
fn a_container_sees_its_cgroup_as_the_top() {
    let container = Container::sh("top", "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max").resources(json!({"pids": {"limit": 77}}));
    assert_eq!(container.text(), "0::/\n77");
    assert!(!container.cgroup().exists());
}

#[test]
fn limits_are_in_the_files() {
    let container = Container::new("limits", &["/bin/sleep", "1000"]).resources(json!({
        "memory": {"limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432},
        "cpu": {"shares": 512, "quota": 150_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 64},
        "unified": {"memory.high": "50331648"},
    }));
    container.start();
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("cpu.max", "150000 100000"),
        ("cpu.weight", "59"),
        ("cpuset.cpus", "0"),
        ("pids.max", "64"),
    ] {
        assert_eq!(container.file(file), value, "{file}");
    }
    let pid = container.state()["pid"].to_string();
    assert_eq!(container.file("cgroup.procs"), pid);
    container.delete();
}

#[test]
fn devices_are_filtered() {
    let script = "mknod /tmp/kmsg c 1 11; (: < /tmp/kmsg) 2>/dev/null && echo read; (: > /tmp/kmsg) 2>/dev/null && echo write; : > /dev/null && echo null";
    let denied = Container::sh("dev-no", script);
    assert_eq!(denied.text(), "null");
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let allowed = Container::sh("dev-yes", script).resources(json!({"devices": [{"allow": false, "access": "rwm"}, rule]}));
    assert_eq!(allowed.text(), "read\nnull");
}

#[test]
fn pause_and_resume() {
    let container = Container::new("pause", &["/bin/sleep", "1000"]);
    container.start();
    container.command(&["pause"]);
    assert!(container.file("cgroup.events").contains("frozen 1"));
    assert_eq!(container.status(), "paused");
    container.command(&["resume"]);
    assert!(container.file("cgroup.events").contains("frozen 0"));
    assert_eq!(container.status(), "running");
    container.command(&["pause"]);
    container.delete();
}

#[test]
fn update_changes_a_running_container() {
    let container = Container::new("update", &["/bin/sleep", "1000"]).resources(json!({"memory": {"limit": 67_108_864}}));
    container.start();
    container.command(&["update", "--memory", "33554432", "--pids-limit", "20"]);
    assert_eq!(container.file("memory.max"), "33554432");
    assert_eq!(container.file("pids.max"), "20");
    container.delete();
}

#[test]
fn kill_reaches_everything_and_delete_removes_cgroups_within() {
    let container = Container::sh("nested", "mkdir /sys/fs/cgroup/a /sys/fs/cgroup/a/b; while :; do sleep 1000 & wait; done")
        .with("/linux/namespaces", json!([{"type": "mount"}, {"type": "uts"}, {"type": "cgroup"}]));
    container.start();
    wait_until("the nested cgroup", || container.cgroup().join("a/b").exists());
    wait_until("the child", || container.file("cgroup.procs").lines().count() > 1);
    container.command(&["kill", "--all"]);
    wait_until("emptiness", || container.file("cgroup.events").contains("populated 0"));
    container.delete();
}

#[test]
fn the_oom_killer_ends_a_greedy_container() {
    let container =
        Container::new("greedy", &["/bin/tail", "/dev/zero"]).resources(json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}}));
    assert_eq!(container.run().status.code(), Some(137));
    assert!(!container.cgroup().exists());
}

#[test]
fn the_pids_limit_holds() {
    let container =
        Container::sh("forks", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all").resources(json!({"pids": {"limit": 5}}));
    let output = container.run();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("all"), "{output:?}");
}

#[test]
fn oom_score_adj_may_be_lowered() {
    let container = Container::sh("oomadj", "cat /proc/self/oom_score_adj").with("/process/oomScoreAdj", json!(-600));
    assert_eq!(container.text(), "-600");
}

#[test]
fn hard_limits_may_be_raised() {
    let limit = json!([{"type": "RLIMIT_NOFILE", "soft": 500_000, "hard": 600_000}]);
    let container = Container::sh("rlimit", "ulimit -Sn; ulimit -Hn").with("/process/rlimits", limit);
    assert_eq!(container.text(), "500000\n600000");
}

#[test]
fn seccomp_denies_by_profile() {
    let profile =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]});
    let container = Container::sh("seccomp", "mount -t tmpfs none /tmp 2>&1; cat /proc/self/status").with("/linux/seccomp", profile);
    let text = container.text();
    assert!(text.to_lowercase().contains("permission denied"), "{text}");
    assert!(text.contains("Seccomp:\t2"), "{text}");
}

#[test]
fn events_tell_what_a_container_uses() {
    let container =
        Container::new("stats", &["/bin/sleep", "1000"]).resources(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 9}}));
    container.start();
    let event: Value = serde_json::from_str(&container.command(&["events", "--stats"])).unwrap();
    assert_eq!(event["type"], "stats");
    assert_eq!(event["data"]["pids"], json!({"current": 1, "limit": 9}));
    assert_eq!(event["data"]["memory"]["usage"]["limit"], json!(67_108_864));
    container.delete();
}

#[test]
fn a_failed_start_leaves_no_cgroup() {
    let container = Container::new("broken", &["/no/such/program"]);
    assert!(!container.run().status.success());
    assert!(!container.cgroup().exists());
    let container = Container::new("broken2", &["/bin/true"]).resources(json!({"memory": {"limit": 100, "swap": 50}}));
    let output = container.run();
    assert!(String::from_utf8_lossy(&output.stderr).contains("must not be below memory.limit"), "{output:?}");
    assert!(!container.cgroup().exists());
}
