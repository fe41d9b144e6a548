//! One task: a container's main process and those exec'd beside it.
//!
//! `exec_id: None` means the main process everywhere.

use rcontainerd_types::{Error, Result};

use crate::types::{ExecProcess, ExitStatus, ProcessInfo, ProcessState, TaskKey};

/// A handle; cheap to clone. Outlives nothing: dropping it leaves the container alone.
#[derive(Clone, Debug)]
pub struct Task {
    key: TaskKey,
    pid: u32,
}

fn unwired<T>(what: &str) -> Result<T> {
    Err(Error::unsupported(format!("{what}: not wired yet")))
}

impl Task {
    pub fn key(&self) -> &TaskKey {
        &self.key
    }

    /// Host pid of the main process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts the main process, or one that [`Self::exec`] added; gives its pid.
    ///
    /// # Errors
    /// The runtime's message whole (`exec: "foo": executable file not found in $PATH`).
    pub async fn start(&self, exec_id: Option<&str>) -> Result<u32> {
        let _ = exec_id;
        unwired("start")
    }

    /// Adds a process; [`Self::start`] runs it.
    ///
    /// # Errors
    /// `AlreadyExists` for a used exec id.
    pub async fn exec(&self, process: ExecProcess) -> Result<()> {
        let _ = process;
        unwired("exec")
    }

    /// Resolves when the process has ended and all its output is delivered; also when the shim dies (then with the status that it left on
    /// disk, else unknown).
    ///
    /// # Errors
    /// `NotFound` for an unknown exec id.
    pub async fn wait(&self, exec_id: Option<&str>) -> Result<ExitStatus> {
        let _ = exec_id;
        unwired("wait")
    }

    /// # Errors
    /// `NotFound` when the process has ended.
    pub async fn kill(&self, exec_id: Option<&str>, signal: u32, all: bool) -> Result<()> {
        let _ = (exec_id, signal, all);
        unwired("kill")
    }

    /// Deletes an ended process. For the main one: the container too, its rootfs unmounted, the shim shut down and the bundle removed.
    ///
    /// # Errors
    /// `Conflict` while it runs.
    pub async fn delete(&self, exec_id: Option<&str>) -> Result<ExitStatus> {
        let _ = exec_id;
        unwired("delete")
    }

    /// # Errors
    /// `NotFound` for an unknown exec id.
    pub async fn state(&self, exec_id: Option<&str>) -> Result<ProcessState> {
        let _ = exec_id;
        unwired("state")
    }

    /// Every process in the container.
    ///
    /// # Errors
    /// The shim's failure.
    pub async fn pids(&self) -> Result<Vec<ProcessInfo>> {
        unwired("pids")
    }

    /// # Errors
    /// `Conflict` without a terminal.
    pub async fn resize(&self, exec_id: Option<&str>, width: u32, height: u32) -> Result<()> {
        let _ = (exec_id, width, height);
        unwired("resize")
    }

    /// End of file on stdin once what is in the FIFO has been read.
    ///
    /// # Errors
    /// `NotFound` for an unknown exec id.
    pub async fn close_stdin(&self, exec_id: Option<&str>) -> Result<()> {
        let _ = exec_id;
        unwired("close_stdin")
    }

    /// # Errors
    /// `Conflict` when not running.
    pub async fn pause(&self) -> Result<()> {
        unwired("pause")
    }

    /// # Errors
    /// `Conflict` when not paused.
    pub async fn resume(&self) -> Result<()> {
        unwired("resume")
    }

    /// `resources_json`: the OCI runtime spec's `linux.resources`.
    ///
    /// # Errors
    /// The runtime's message.
    pub async fn update(&self, resources_json: Vec<u8>) -> Result<()> {
        let _ = resources_json;
        unwired("update")
    }

    /// The metrics message as `(type_url, bytes)`: `io.containerd.cgroups.v1.Metrics` or `….v2.Metrics` (see `proto_containerd::cgroups`).
    ///
    /// # Errors
    /// `Conflict` when not running.
    pub async fn stats(&self) -> Result<(String, Vec<u8>)> {
        unwired("stats")
    }
}
