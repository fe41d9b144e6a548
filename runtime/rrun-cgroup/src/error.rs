//! What can go wrong with control groups, said in one line with its object and, where there is one, its remedy.

use std::io;
use std::path::{Path, PathBuf};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a control group operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a cgroup file or directory failed. The message tells the cause, so it is no source that would be told again.
    #[error("cgroup: {operation} {}: {}", path.display(), in_words(cause))]
    Io { operation: String, path: PathBuf, cause: io::Error },
    /// The request itself is wrong, whatever the host.
    #[error("cgroup: {0}")]
    Invalid(String),
    /// The request is well-formed, but this host (or cgroup version) cannot do it.
    #[error("cgroup: {0}")]
    Unsupported(String),
    /// A resource asks for a controller that the host does not offer at this place.
    #[error("cgroup: {resource} needs the controller {controller}, which is not available in {}: {remedy}", path.display())]
    MissingController { resource: String, controller: &'static str, path: PathBuf, remedy: &'static str },
    /// systemd, or the bus to it, cannot be reached or refuses.
    #[error("systemd: {0}")]
    Systemd(String),
    /// The cgroup still has processes after the time allowed.
    #[error("cgroup: {} still holds {processes} process(es) after {waited_ms} ms: kill them first", path.display())]
    Busy { path: PathBuf, processes: usize, waited_ms: u64 },
}

/// The kernel's errors as the field words them.
fn in_words(e: &io::Error) -> String {
    e.raw_os_error().map_or_else(|| e.to_string(), rrun_sys::errno_text)
}

impl Error {
    pub(crate) fn io(operation: impl Into<String>, path: &Path, cause: impl Into<io::Error>) -> Self {
        Error::Io { operation: operation.into(), path: path.to_path_buf(), cause: cause.into() }
    }

    /// The error number of the system call that failed, if one did.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Io { cause, .. } => cause.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the caller lacks the right to do this (EACCES, EPERM, EROFS): a rootless runtime may go on without a cgroup.
    pub fn is_permission(&self) -> bool {
        matches!(self.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
    }
}
