//! Handing the seccomp listener of a new process to the supervisor that the profile names.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rrun_sys::{process, socket};

use crate::hooks::HookState;
use crate::{Context, Error, Result};

/// The supervisor's address, and what it is told (runtime-spec, ContainerProcessState).
#[derive(Debug, Clone)]
pub struct Supervisor {
    pub path: PathBuf,
    pub metadata: Option<String>,
    pub container: HookState,
    /// `creating` or `running`, with the first process's pid (None: the process is it).
    pub status: &'static str,
    pub init: Option<i32>,
}

impl Supervisor {
    /// `listener`: that of the process `pid`.
    pub fn hand_over(&self, pid: i32, listener: BorrowedFd<'_>) -> Result<()> {
        let state: serde_json::Value = serde_json::from_slice(&self.container.with(self.status, self.init.unwrap_or(pid)))
            .map_err(|e| Error::state(format!("the container's state: {e}")))?;
        let mut told = serde_json::json!({"ociVersion": self.container.oci_version, "fds": ["seccompFd"], "pid": pid, "state": state});
        if let Some(metadata) = &self.metadata {
            told["metadata"] = metadata.as_str().into();
        }
        let socket =
            socket::connect_stream(&self.path).doing(|| "failed to connect with seccomp agent (linux.seccomp.listenerPath)".to_string())?;
        Ok(socket::send_fd(&socket, told.to_string().as_bytes(), listener)?)
    }
}

/// Takes the listener, whose descriptor in the process has this number (decimal).
pub(super) fn fetch(pidfd: BorrowedFd<'_>, number: &[u8]) -> Result<OwnedFd> {
    let number = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok());
    let number = number.ok_or_else(|| Error::state("the container's process named no seccomp listener"))?;
    Ok(process::pidfd_getfd(pidfd, number)?)
}
