//! The manager's ends of stdio: FIFOs of exec'd processes and of stdin, and the attach stream of a main process.

use std::path::Path;

use bytes::Bytes;
use rcontainerd_types::{Error, Result};
use tokio::net::unix::pipe;

use crate::types::Stdio;

/// A main process's output from now on, as the shim's attach socket gives it (`LogUri::attach`). Connect between `create` and `start` to
/// miss nothing.
#[derive(Debug)]
pub struct AttachStream {}

/// One piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFrame {
    pub stderr: bool,
    pub data: Bytes,
}

impl AttachStream {
    /// # Errors
    /// When nobody listens at `socket`: the process has ended.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let _ = socket;
        Err(Error::unsupported("attach: not wired yet"))
    }

    /// `None` at the end: the process has exited and all its output has been delivered. Cancel-safe.
    ///
    /// # Errors
    /// `ResourceExhausted` when the shim dropped this client for not reading.
    pub async fn next(&mut self) -> Result<Option<OutputFrame>> {
        Ok(None)
    }
}

/// FIFOs made for one process, removed from disk when dropped (open ends go on).
#[derive(Debug)]
pub struct Fifos {
    stdio: Stdio,
}

/// The manager's ends.
#[derive(Debug)]
pub struct ProcessPipes {
    pub stdin: Option<pipe::Sender>,
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
}

impl Fifos {
    /// Makes FIFOs (0600) named `<prefix>-stdin` and so on in `dir`, for the streams asked for.
    ///
    /// # Errors
    /// When a FIFO cannot be made.
    pub fn create(dir: &Path, prefix: &str, stdin: bool, stdout: bool, stderr: bool) -> Result<Self> {
        let _ = (dir, prefix, stdin, stdout, stderr);
        Err(Error::unsupported("fifos: not wired yet"))
    }

    /// What goes into `CreateTask` or `ExecProcess`.
    pub fn stdio(&self) -> &Stdio {
        &self.stdio
    }

    /// Opens the manager's ends without blocking; call before `Task::exec`/`create`.
    ///
    /// # Errors
    /// When an end cannot be opened.
    pub fn open(&self) -> Result<ProcessPipes> {
        Err(Error::unsupported("fifos: not wired yet"))
    }

    /// The writing end of a stdin FIFO of a running container (attach after a restart of the manager).
    ///
    /// # Errors
    /// When nobody holds it open any more.
    pub fn open_stdin(path: &Path) -> Result<pipe::Sender> {
        let _ = path;
        Err(Error::unsupported("fifos: not wired yet"))
    }
}
