//! The shim's own log: the FIFO `log` that containerd reads, in the bundle. Without a reader lines are dropped, never waited for.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

#[derive(Debug)]
pub struct Journal {
    fifo: Option<OwnedFd>,
    id: String,
}

impl Journal {
    pub fn open(bundle: &Path, id: &str) -> Self {
        // Read-write: neither opening nor writing then depends on a reader.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fifo = rustix::fs::open(bundle.join("log"), flags, Mode::empty()).ok();
        let is_fifo = |fd: &OwnedFd| rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        Self { fifo: fifo.filter(is_fifo), id: id.to_owned() }
    }

    pub fn write(&self, message: &str) {
        if let Some(fifo) = &self.fifo {
            let line = format!("level=error msg={message:?} id={}\n", self.id);
            // A full FIFO means that nobody reads: the line is lost, as the module says.
            rustix::io::write(fifo, line.as_bytes()).ok();
        }
    }
}
