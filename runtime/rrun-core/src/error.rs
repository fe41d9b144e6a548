//! What the runtime's library can fail with. The messages are whole lines that a person can act on.

use std::io;
use std::path::Path;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration or the request is wrong, whatever the host.
    #[error("{0}")]
    Invalid(String),
    /// The container is not in a state that allows the operation, or does not exist.
    #[error("{0}")]
    State(String),
    /// The same, for a container that does not exist at all: `kill` and `delete -f` need to know.
    #[error("container does not exist")]
    NoSuchContainer,
    /// What a new process was to run cannot be run; worded as the field does, since engines map these words to exit codes.
    #[error("{0}")]
    Exec(String),
    /// A step of the container's init failed.
    #[error("error during container init: {step}: {message}")]
    Step { step: String, message: String },
    /// Something went wrong while doing this; the message tells the cause, so it is no source that would be told again.
    #[error("{doing}: {cause}")]
    Doing { doing: String, cause: Box<Error> },
    #[error(transparent)]
    Sys(#[from] rrun_sys::Error),
    #[error(transparent)]
    Cgroup(#[from] rrun_cgroup::Error),
    /// Cleaning up failed as well.
    #[error("{cause} (and cleaning up: {})", .cleanup.join("; "))]
    Unclean { cause: Box<Error>, cleanup: Vec<String> },
}

impl Error {
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::Invalid(message.into())
    }

    pub fn state(message: impl Into<String>) -> Self {
        Error::State(message.into())
    }

    /// An io error with the object it is about.
    pub fn io(doing: &'static str, path: &Path, e: &io::Error) -> Self {
        rrun_sys::Error::new(doing, path.display().to_string(), e.raw_os_error().unwrap_or(libc::EIO)).into()
    }

    /// The kernel's error number, if a system call is the cause.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Sys(e) => Some(e.errno()),
            Error::Cgroup(e) => e.raw_os_error(),
            Error::Doing { cause, .. } => cause.errno(),
            Error::Unclean { cause, .. } => cause.errno(),
            _ => None,
        }
    }
}

/// A message as one line: what is wrong in a file may hold anything, and terminals and logs take control characters at their word.
pub(crate) fn one_line(message: &impl ToString) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    message.to_string().chars().map(shown).collect()
}

/// Says what was being done when something failed.
pub trait Context<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::Doing { doing: what(), cause: Box::new(e.into()) })
    }
}
