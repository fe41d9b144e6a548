//! Reading a container's log: tail, since, until, follow across rotation, without polling.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::record::Record;

/// What of a log is wanted.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    pub stdout: bool,
    pub stderr: bool,
    /// Only the last so many records (`docker logs --tail`); `None`: all.
    pub tail: Option<u64>,
    /// Only records at or after this time.
    pub since: Option<Timestamp>,
    /// Only records before or at this time.
    pub until: Option<Timestamp>,
    /// Whether to wait for more at the end of the file, until [`Reader::finish`].
    pub follow: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { stdout: true, stderr: true, tail: None, since: None, until: None, follow: false }
    }
}

/// What [`Reader::next`] found.
#[derive(Debug)]
pub enum Next {
    Record(Record),
    /// Following, and nothing new yet: wait until [`Reader::wait_fd`] is readable (or use [`Reader::wait`]), then ask again.
    Pending,
    /// No more will come.
    End,
}

/// A reader over the live file and its rotated predecessors. Never blocks in `next`; dropping it ends everything.
///
/// In async code: wrap `wait_fd` in tokio's `AsyncFd` (readable), call `next` until `Pending`, then `clear_ready` and wait.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// # Errors
    /// When a file or directory of the log cannot be opened; a log that does not exist yet is empty.
    pub fn open(path: &Path, options: ReadOptions) -> std::io::Result<Self> {
        let (_, _) = (path, options);
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// # Errors
    /// When reading fails. A damaged record is skipped, never an error (a crash may have cut one).
    #[expect(clippy::should_implement_trait, reason = "the answer has three cases, not two")]
    pub fn next(&mut self) -> std::io::Result<Next> {
        Ok(Next::End)
    }

    /// The process has ended and the shim has told so: once the end of the file is reached, `next` answers `End`, not `Pending`.
    pub fn finish(&mut self) {}

    /// Readable when the log may have grown; `None` unless following.
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Blocks until the log may have grown; `false` on time-out.
    ///
    /// # Errors
    /// When waiting itself fails.
    pub fn wait(&self, timeout: Option<Duration>) -> std::io::Result<bool> {
        let _ = timeout;
        Ok(false)
    }
}
