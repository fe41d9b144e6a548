//! Standard streams of processes: where they go, and the copying in between.

pub mod console;
pub mod relay;
pub mod sink;
pub mod target;

use std::io;
use std::os::fd::AsFd;

use rustix::fs::OFlags;

/// # Errors
/// fcntl's failure.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}
