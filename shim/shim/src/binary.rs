//! containerd's logging binary: it reads the container's stdout on descriptor 3 and stderr on 4, and closes 5 when it is ready. Only
//! whoever may call us (root) can name it.
#![allow(unsafe_code, reason = "descriptors with fixed numbers can only be arranged between fork and exec")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pipe::PipeFlags;

use crate::server::Server;
use crate::wiring::pipe;

impl Server {
    /// Starts the program; gives the writing ends for stdout and stderr.
    pub fn wire_binary(&self, container_id: &str, program: &Path, args: &[String], owner: (u32, u32)) -> io::Result<(OwnedFd, OwnedFd)> {
        let (out_read, out_write) = pipe(owner)?;
        let (err_read, err_write) = pipe(owner)?;
        let (_, ready_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let mut command = Command::new(program);
        command.args(args).env("CONTAINER_ID", container_id).env("CONTAINER_NAMESPACE", &self.setup.namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        spawn_with(&mut command, [&out_read, &err_read, &ready_write])?;
        Ok((out_write, err_write))
    }
}

/// The descriptors become 3, 4 and 5 of the child.
fn spawn_with(command: &mut Command, fds: [&OwnedFd; 3]) -> io::Result<()> {
    // Above the numbers wanted, so that none is overwritten before it is copied.
    let high = fds.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 10)).collect::<Result<Vec<_>, _>>()?;
    let numbers: Vec<RawFd> = high.iter().map(AsRawFd::as_raw_fd).collect();
    let arrange = move || {
        for (at, &number) in numbers.iter().enumerate() {
            let wanted = RawFd::try_from(at).map_or(-1, |at| at + 3);
            // SAFETY: dup2 takes integers; both descriptors belong to this child alone.
            if unsafe { libc::dup2(number, wanted) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes one async-signal-safe call per descriptor and allocates nothing.
    unsafe { command.pre_exec(arrange) };
    command.spawn().map(drop)
}
