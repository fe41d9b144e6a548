use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::Result;

/// Tells of OOM kills in a cgroup: readable (poll, epoll) when something happened.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
}

/// What a wake-up of an [`OomWatch`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomEvent {
    /// So many processes were killed since the last call.
    Killed(u64),
    /// Woken without a kill.
    Nothing,
    /// The cgroup is gone: drop the watch.
    Gone,
}

impl OomWatch {
    /// Never blocks: call it when the fd is readable.
    pub fn read(&mut self) -> Result<OomEvent> {
        unimplemented!()
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
