//! Further processes in running containers (`docker exec`).

mod service;
pub(crate) mod table;

use jiff::Timestamp;

pub use service::Execs;

#[derive(Clone, Debug, Default)]
pub struct CreateExec {
    /// The container: name, id or id prefix.
    pub container: String,
    pub cmd: Vec<String>,
    /// `user[:group]`; empty: the container's.
    pub user: String,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// Empty: the container's.
    pub working_dir: String,
    pub tty: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub privileged: bool,
    pub detach_keys: String,
    /// Rows, columns.
    pub console_size: Option<(u16, u16)>,
}

#[derive(Clone, Debug, Default)]
pub struct StartExec {
    pub id: String,
    /// Runs without streams; `start` then gives `None`.
    pub detach: bool,
    /// Rows, columns.
    pub console_size: Option<(u16, u16)>,
}

#[derive(Clone, Debug, Default)]
pub struct ResizeExec {
    pub id: String,
    pub rows: u16,
    pub columns: u16,
}

/// An exec as `inspect` shows it. Kept in memory while its container runs.
#[derive(Clone, Debug)]
pub struct Exec {
    /// 64 hex digits.
    pub id: String,
    pub container_id: String,
    pub created: Timestamp,
    pub running: bool,
    /// `None` until it has ended.
    pub exit_code: Option<i64>,
    /// The code tells why it could not be started: 127 not found, 126 anything else.
    pub start_failed: bool,
    /// Host pid; 0 before the start.
    pub pid: u32,
    pub request: CreateExec,
}
