//! The console socket: the runtime sends the terminal's master over it (OCI runtime convention, SCM_RIGHTS).

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::set_nonblocking;
use super::sink::listen;

/// A listening socket with a short path, removed when dropped.
#[derive(Debug)]
pub struct ConsoleSocket {
    socket: OwnedFd,
    path: PathBuf,
}

impl ConsoleSocket {
    /// # Errors
    /// When the socket cannot be made in `directory`.
    pub fn create(directory: &Path, name: &str) -> io::Result<Self> {
        let path = directory.join(name);
        Ok(Self { socket: listen(&path)?, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The master, once the runtime has ended well: it has been sent by then, so nothing is waited for.
    ///
    /// # Errors
    /// When nothing was sent, or no terminal.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        let connection = rrun_sys::socket::accept(&self.socket)?;
        set_nonblocking(&connection)?;
        let (_, fd) = rrun_sys::socket::receive_fd(&connection)?;
        let master =
            fd.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the runtime sent no terminal over the console socket"))?;
        rrun_sys::tty::size(&master)?;
        set_nonblocking(&master)?;
        Ok(master)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}
