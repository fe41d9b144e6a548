//! The vocabulary of tasks: what is asked for and what is told.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How the service finds its programs and directories. All paths are absolute.
#[derive(Clone, Debug)]
pub struct TaskConfig {
    /// STATE: bundles go to `tasks/<ns>/<id>`, shim sockets to `s/`, `rcontainerd.sock.ttrpc` receives events.
    pub state_dir: PathBuf,
    /// The shim that is started unless [`RuntimeOptions::shim`] names another.
    pub shim: PathBuf,
    /// The OCI runtime that our shim runs unless [`RuntimeOptions::binary`] names another.
    pub runtime: PathBuf,
    /// The manager's own binary, given to shims as `-publish-binary`.
    pub publish_binary: PathBuf,
    /// How long a shim may take to answer `start`, and any quick call.
    pub timeout: Duration,
}

/// `(namespace, id)` of a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    pub namespace: String,
    pub id: String,
}

/// One mount as containerd tells it (what a snapshotter returns).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub fstype: String,
    pub source: String,
    /// Relative to the rootfs; empty for the rootfs itself.
    pub target: String,
    pub options: Vec<String>,
}

/// Where a process's stdio goes: a FIFO's path, a URI (`rrun-log://` as `shim_logger::LogUri` writes it, `file://`, `binary://`), or
/// empty for /dev/null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// Always a FIFO or empty.
    pub stdin: String,
    pub stdout: String,
    /// Empty with a terminal.
    pub stderr: String,
}

/// Which shim and runtime a task uses; the default is our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Path of another shim v2 binary.
    pub shim: Option<PathBuf>,
    /// Path of another OCI runtime (`BinaryName`).
    pub binary: Option<PathBuf>,
    /// The runtime's `--root`; default `STATE/rrun`. The shim appends the namespace.
    pub root: Option<PathBuf>,
    pub systemd_cgroup: bool,
    /// Owner of the stdio pipes: the host ids of the container's root with a user namespace.
    pub io_uid: u32,
    pub io_gid: u32,
    pub no_pivot_root: bool,
    /// A ready-made options message `(type_url, bytes)` from a containerd client: sent as it is instead of the above.
    pub raw: Option<(String, Vec<u8>)>,
}

/// `create` of a task; the bundle (from `TaskService::create_bundle`) already holds config.json.
#[derive(Clone, Debug)]
pub struct CreateTask {
    pub key: TaskKey,
    pub rootfs: Vec<Mount>,
    pub stdio: Stdio,
    pub terminal: bool,
    pub runtime: RuntimeOptions,
}

/// A further process in a running container.
#[derive(Clone, Debug)]
pub struct ExecProcess {
    pub exec_id: String,
    /// The OCI runtime spec's `process` object as JSON.
    pub process_json: Vec<u8>,
    pub terminal: bool,
    pub stdio: Stdio,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// 0–255; 128+n for signal n; 255 also when nobody knows (then `known` is false).
    pub code: u32,
    pub exited_at: SystemTime,
    pub known: bool,
}

impl ExitStatus {
    /// The shim is gone and left no status.
    pub fn unknown() -> Self {
        Self { code: 255, exited_at: SystemTime::now(), known: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessStatus {
    Unknown,
    Created,
    Running,
    Stopped,
    Paused,
    Pausing,
}

/// A process's state as its shim tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessState {
    pub status: ProcessStatus,
    /// Host pid; 0 when there is none.
    pub pid: u32,
    pub terminal: bool,
    pub stdio: Stdio,
    /// Once stopped.
    pub exit: Option<ExitStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    pub pid: u32,
    /// Set for exec'd processes that the shim knows.
    pub exec_id: Option<String>,
}

/// What a shim tells by events, in order per shim.
#[derive(Clone, Debug)]
pub struct TaskEvent {
    /// Monotonic in this manager process.
    pub sequence: u64,
    pub time: SystemTime,
    pub namespace: String,
    /// Such as `/tasks/exit`.
    pub topic: String,
    /// The event as the shim sent it `(type_url, bytes)`, for containerd's event stream.
    pub raw: (String, Vec<u8>),
    pub kind: TaskEventKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEventKind {
    Create {
        id: String,
        pid: u32,
    },
    Start {
        id: String,
        pid: u32,
    },
    /// `exec_id` is `None` for the container's main process.
    Exit {
        id: String,
        exec_id: Option<String>,
        pid: u32,
        exit: ExitStatus,
    },
    Delete {
        id: String,
        exec_id: Option<String>,
        exit: ExitStatus,
    },
    ExecAdded {
        id: String,
        exec_id: String,
    },
    ExecStarted {
        id: String,
        exec_id: String,
        pid: u32,
    },
    Oom {
        id: String,
    },
    Paused {
        id: String,
    },
    Resumed {
        id: String,
    },
    /// Any other topic.
    Other,
}
