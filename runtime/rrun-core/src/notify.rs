//! sd_notify(3) out of a container: what its program tells `NOTIFY_SOCKET` inside is passed on to the one that the runtime was given.
//!
//! ```text
//! ROOT/<id>/notify/notify.sock ←bind mount→ /run/notify/notify.sock in the container
//!      │ relay: `run`, or `start` until the container is ready
//!      ↓
//! the host's NOTIFY_SOCKET
//! ```

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rrun_sys::{fs, process, socket};

use crate::spec::{Mount, Spec};
use crate::state::Entry;
use crate::{Context, Error, Result};

/// Below the container's directory, and the socket's name there.
pub(crate) const DIRECTORY: &str = "notify";
pub(crate) const SOCKET: &str = "notify.sock";
const INSIDE: &str = "/run/notify";

/// How long the host's service manager may take to work off what it was told.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a container may say of the unit that it is; the rest (MAINPID, FDSTORE, …) is the runtime's or the host's business.
const PASSED_ON: [&str; 8] = ["READY", "RELOADING", "STOPPING", "STATUS", "ERRNO", "WATCHDOG", "EXTEND_TIMEOUT_USEC", "MONOTONIC_USEC"];

/// The container gets a socket to notify: `container` is its directory of the runtime's.
pub fn offer(spec: &mut Spec, container: &Path) {
    spec.mounts.push(Mount {
        destination: INSIDE.into(),
        source: container.join(DIRECTORY).display().to_string(),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_string).to_vec(),
        ..Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
    }
}

/// Passes a container's notifications on.
#[derive(Debug)]
pub struct Relay {
    socket: OwnedFd,
    host: OsString,
}

impl Relay {
    /// Listens for the container. None: it was made without a socket to notify. `host`: where its words go.
    pub fn listen(entry: &Entry, host: OsString) -> Result<Option<Relay>> {
        let dir = match fs::openat(&entry.dir, Path::new(DIRECTORY), fs::OFlags::RDONLY | fs::OFlags::DIRECTORY, 0) {
            Err(e) if e.is(libc::ENOENT) => return Ok(None),
            done => done?,
        };
        let socket = socket::bind_datagram(&fs::proc_fd_path(dir.as_fd()).join(SOCKET))?;
        // Any user of the container may notify.
        fs::chmodat(&dir, Path::new(SOCKET), 0o777)?;
        Ok(Some(Relay { socket, host }))
    }

    /// Until the container says that it is ready, or has ended.
    pub fn until_ready(&self, container: impl AsFd, main_pid: i32) -> Result<()> {
        loop {
            let ready = process::wait_readable(&[self.socket.as_fd(), container.as_fd()], None)?;
            // Its last words came before its end.
            let done = if ready[0] { self.pass_on(main_pid)? } else { ready[1] };
            if done {
                return Ok(());
            }
        }
    }

    /// Passes one message on; true: it was that all is ready. From then on `main_pid` is what the host is to watch.
    pub fn pass_on(&self, main_pid: i32) -> Result<bool> {
        let said = socket::receive(&self.socket)?;
        let said = String::from_utf8_lossy(&said);
        let known = |line: &&str| line.split_once('=').is_some_and(|(key, _)| PASSED_ON.contains(&key));
        let mut lines: Vec<String> = said.lines().filter(known).map(str::to_string).collect();
        let is_ready = lines.iter().any(|line| line == "READY=1");
        if lines.is_empty() {
            return Ok(false);
        }
        if is_ready {
            lines.push(format!("MAINPID={main_pid}"));
        }
        let told = || format!("tell NOTIFY_SOCKET {}", Path::new(&self.host).display());
        let host = socket::connect_datagram(&self.host).doing(told)?;
        socket::send(&host, lines.join("\n").as_bytes()).doing(told)?;
        if is_ready {
            // This process may end now: the host must have looked at its message before (sd_notify_barrier(3)).
            let (ours, theirs) = std::io::pipe().map_err(|e| Error::io("pipe", Path::new("barrier"), &e))?;
            socket::send_fd(&host, b"BARRIER=1", theirs.as_fd()).doing(told)?;
            drop(theirs);
            process::wait_readable(&[ours.as_fd()], Some(PATIENCE))?;
        }
        Ok(is_ready)
    }
}

impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
