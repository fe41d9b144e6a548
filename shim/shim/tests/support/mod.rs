//! A host for tests: its own state directory, a busybox root file system, a manager's task service over the shim that was just built.
#![allow(dead_code, reason = "each suite uses a part")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcontainerd_task::{
    CreateTask, ExecProcess, Fifos, Mount, ProcessPipes, RuntimeOptions, Stdio, Task, TaskConfig, TaskKey, TaskService,
};
use shim_logger::{LogUri, Next, ReadOptions, Reader};
use tokio::io::AsyncReadExt;

pub const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-rrun-v2");

/// Writes an executable script; one that is there is replaced.
///
/// By a process of its own: a descriptor that is open for writing here would go to whatever another test starts meanwhile, and as long as
/// anybody has one the file cannot be executed (`ETXTBSY`).
pub fn executable(path: &Path, script: &str) {
    let mut install = std::process::Command::new("install");
    let mut install = install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(std::process::Stdio::piped()).spawn().expect("run install");
    std::io::Write::write_all(&mut install.stdin.take().expect("piped"), script.as_bytes()).expect("hand the script over");
    assert!(install.wait().expect("wait").success(), "{} cannot be written", path.display());
}

/// The runtime under test: `RRUN_TEST_RUNTIME`, else the `rrun` built beside the shim, else runc.
pub fn runtime() -> PathBuf {
    if let Some(path) = std::env::var_os("RRUN_TEST_RUNTIME") {
        return path.into();
    }
    let beside = Path::new(SHIM).with_file_name("rrun");
    if beside.exists() { beside } else { "/usr/sbin/runc".into() }
}

pub struct Host {
    pub dir: tempfile::TempDir,
    pub tasks: TaskService,
    shim: PathBuf,
}

impl Host {
    pub async fn new() -> Self {
        Self::with_shim(SHIM.into()).await
    }

    pub async fn with_shim(shim: PathBuf) -> Self {
        let dir = tempfile::Builder::new().prefix("shimt-").tempdir().expect("temp dir");
        let bin = dir.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin).expect("rootfs");
        for name in ["proc", "dev", "tmp", "sys"] {
            std::fs::create_dir_all(dir.path().join("rootfs").join(name)).expect("rootfs");
        }
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
        for name in ["sh", "cat", "echo", "sleep", "true", "head", "seq", "stty", "dd", "yes"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).expect("link");
        }
        let tasks = TaskService::open(Self::config(dir.path(), &shim)).await.expect("task service");
        Self { dir, tasks, shim }
    }

    fn config(dir: &Path, shim: &Path) -> TaskConfig {
        TaskConfig {
            state_dir: dir.join("state"),
            shim: shim.to_owned(),
            runtime: runtime(),
            publish_binary: "/bin/true".into(),
            timeout: Duration::from_secs(20),
        }
    }

    /// What a manager that was killed and started again has: nothing in memory.
    pub async fn restart_manager(&mut self) {
        self.tasks = TaskService::open(Self::config(self.dir.path(), &self.shim)).await.expect("task service");
    }

    pub fn key(&self, id: &str) -> TaskKey {
        TaskKey { namespace: "shimtest".into(), id: id.into() }
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}-json.log"))
    }

    pub fn attach_socket(&self, id: &str) -> PathBuf {
        self.tasks.bundle_path(&self.key(id)).join("attach.sock")
    }

    pub fn log_stdio(&self, id: &str) -> Stdio {
        let uri = LogUri::json_file(self.log(id), Some(self.attach_socket(id))).to_string();
        Stdio { stdin: String::new(), stdout: uri.clone(), stderr: uri }
    }

    pub fn rootfs(&self) -> Vec<Mount> {
        let source = self.dir.path().join("rootfs").display().to_string();
        vec![Mount { fstype: "bind".into(), source, target: String::new(), options: vec!["rbind".into(), "rw".into()] }]
    }

    pub fn request(&self, id: &str, stdio: Stdio, terminal: bool) -> CreateTask {
        CreateTask { key: self.key(id), rootfs: self.rootfs(), stdio, terminal, runtime: RuntimeOptions::default() }
    }

    /// A created container that will run `script` with sh.
    pub async fn create(&self, id: &str, script: &str, stdio: Stdio, terminal: bool) -> Task {
        self.bundle(id, &["sh", "-c", script], terminal).await;
        self.tasks.create(self.request(id, stdio, terminal)).await.expect("create")
    }

    pub async fn bundle(&self, id: &str, args: &[&str], terminal: bool) {
        let tag = self.dir.path().file_name().expect("a name").to_string_lossy();
        let config = config_json(&format!("/shimtest/{tag}-{id}"), args, terminal);
        self.tasks.create_bundle(&self.key(id), config.to_string().as_bytes()).await.expect("bundle");
    }

    /// Runs to the end, with the log as the only output.
    pub async fn run(&self, id: &str, script: &str) -> (u32, String) {
        let task = self.create(id, script, self.log_stdio(id), false).await;
        task.start(None).await.expect("start");
        let code = wait(&task, None).await;
        task.delete(None).await.expect("delete");
        (code, read_log(&self.log(id)))
    }

    pub fn fifos(&self, name: &str, stdin: bool) -> (Fifos, ProcessPipes) {
        let fifos = Fifos::create(self.dir.path(), name, stdin, true, true).expect("fifos");
        let pipes = fifos.open().expect("open fifos");
        (fifos, pipes)
    }
}

impl Drop for Host {
    /// After a failed test too: no shim, container or mount stays.
    fn drop(&mut self) {
        let bundles = self.dir.path().join("state/tasks/shimtest");
        for bundle in std::fs::read_dir(bundles).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if let Some(pid) = find_shim(&bundle) {
                drop(rrun_sys::process::kill(pid.cast_signed(), libc::SIGKILL));
            }
            let id = bundle.file_name().expect("a name").to_owned();
            let mut delete = std::process::Command::new(SHIM);
            delete.args(["-namespace", "shimtest", "-id"]).arg(id).arg("-bundle").arg(&bundle).arg("delete");
            delete.stdout(std::process::Stdio::null());
            if let Err(err) = delete.status() {
                eprintln!("clean up {}: {err}", bundle.display());
            }
        }
    }
}

pub async fn wait(task: &Task, exec_id: Option<&str>) -> u32 {
    tokio::time::timeout(Duration::from_secs(30), task.wait(exec_id)).await.expect("the process ends in time").expect("wait").code
}

pub fn process_json(args: &[&str], terminal: bool) -> serde_json::Value {
    serde_json::json!({
        "terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
        "env": ["PATH=/bin", "TERM=xterm"], "noNewPrivileges": true,
    })
}

pub fn exec_process(exec_id: &str, args: &[&str], stdio: Stdio, terminal: bool) -> ExecProcess {
    ExecProcess { exec_id: exec_id.into(), process_json: process_json(args, terminal).to_string().into_bytes(), terminal, stdio }
}

fn config_json(cgroup: &str, args: &[&str], terminal: bool) -> serde_json::Value {
    serde_json::json!({
        "ociVersion": "1.0.2",
        "process": process_json(args, terminal),
        "root": {"path": "rootfs"},
        "hostname": "t",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
}

pub fn read_log(path: &Path) -> String {
    let mut reader = Reader::open(path, ReadOptions::default()).expect("log");
    let mut text = Vec::new();
    while let Next::Record(record) = reader.next().expect("read") {
        text.extend(record.line);
    }
    String::from_utf8(text).expect("utf-8")
}

pub async fn read_all(pipe: &mut tokio::net::unix::pipe::Receiver) -> String {
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(20), pipe.read_to_string(&mut text)).await.expect("end of file in time").expect("read");
    text
}

/// Resident and proportional set size of a process in KiB.
pub fn memory_kib(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = text.lines().find(|line| line.starts_with(field)).expect("field");
    line.split_whitespace().nth(1).expect("value").parse().expect("number")
}

/// The serving shim of a bundle.
pub fn shim_pid(bundle: &Path) -> u32 {
    find_shim(bundle).unwrap_or_else(|| panic!("no shim in {}", bundle.display()))
}

fn find_shim(bundle: &Path) -> Option<u32> {
    let is_shim = |pid: &u32| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == bundle)
            && std::fs::read_to_string(proc.join("comm")).is_ok_and(|comm| comm.starts_with("containerd-shim"))
    };
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.into_iter().find(is_shim)
}
