//! Memory pressure as something to wait for: on v2 by a trigger of `memory.pressure` (Linux 5.2, CONFIG_PSI), on v1 by an eventfd for
//! the level `medium` of `memory.pressure_level`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rrun_sys::process::Wanted;
use rustix::event::{EventfdFlags, eventfd};

use crate::error::{Error, Result};
use crate::fsio;
use crate::location::Location;

/// Some process waited for memory for 150 ms of 2 s. The window is of the length that the kernel takes from ordinary users, too.
const TRIGGER: &str = "some 150000 2000000";

/// Tells when processes of a cgroup have to wait for memory.
#[derive(Debug)]
pub struct PressureWatch {
    fd: OwnedFd,
    wanted: Wanted,
}

impl PressureWatch {
    /// None: this kernel tells no pressure, or not to this user.
    pub fn new(location: &Location) -> Result<Option<PressureWatch>> {
        if let Some(dir) = location.unified()
            && let Some(watch) = watch_v2(&dir.path)?
        {
            return Ok(Some(watch));
        }
        match location.v1().find(|dir| dir.controllers.iter().any(|c| c == "memory")) {
            Some(dir) => watch_v1(&dir.path).map(Some),
            None => Ok(None),
        }
    }

    /// What to wait for on the descriptor.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Takes notice of what was told, so that it is told once.
    pub fn read(&self) -> Result<()> {
        // A trigger is silent again once it was heard.
        if self.wanted == Wanted::Event {
            return Ok(());
        }
        match rustix::io::read(&self.fd, &mut [0u8; 8]) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(Error::io("read the memory pressure of", Path::new("cgroup"), e)),
        }
    }
}

impl AsFd for PressureWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn watch_v2(dir: &Path) -> Result<Option<PressureWatch>> {
    let path = dir.join("memory.pressure");
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let mut file = match opened {
        Err(e) if [libc::ENOENT, libc::EACCES, libc::EPERM].contains(&e.raw_os_error().unwrap_or_default()) => return Ok(None),
        done => done.map_err(|e| Error::io("open", &path, e))?,
    };
    match file.write(TRIGGER.as_bytes()) {
        // Compiled in, but off (`psi=0`, cgroup.pressure).
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        done => done
            .map(|_| Some(PressureWatch { fd: file.into(), wanted: Wanted::Event }))
            .map_err(|e| Error::io(format!("write {TRIGGER:?} to"), &path, e)),
    }
}

fn watch_v1(dir: &Path) -> Result<PressureWatch> {
    let path = dir.join("memory.pressure_level");
    let level = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| Error::io("make an eventfd for", &path, e))?;
    fsio::write_told(&dir.join("cgroup.event_control"), &format!("{} {} medium", fd.as_raw_fd(), level.as_raw_fd()))?;
    Ok(PressureWatch { fd, wanted: Wanted::Input })
}
