//! Making the process: one clone3, or a process in between where the kernel's rules ask for it.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rrun_sys::fs::{self, OFlags};
use rrun_sys::process::{self, Cloned};
use rrun_sys::socket;

use super::{Process, Spawned};
use crate::init::{self, Child};
use crate::plan::{InitStep, Join, Spawn, Staged};
use crate::{Context, Error, Result};

/// What to make.
#[derive(Debug)]
pub struct Request<'a> {
    pub spawn: &'a Spawn,
    pub steps: &'a [InitStep],
    /// The v2 directory to start in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// A pid namespace that is given as a descriptor (exec), instead of `spawn.join_pid`.
    pub container: Option<BorrowedFd<'a>>,
    /// The container's locked directory: the lock must end with this process, not with the container.
    pub lock: BorrowedFd<'a>,
}

/// Makes the process. `child` gets the channel's other end; everything in it stays closed to the container's program.
pub fn spawn(request: &Request<'_>, child: impl FnOnce(std::os::fd::OwnedFd) -> Child) -> Result<Spawned> {
    let (ours, theirs) = socket::pair()?;
    let child = child(theirs);
    let flags = request.spawn.flags;
    let cloned = match &request.spawn.staged {
        Some(staged) => clone_staged(staged, flags, request.cgroup)?,
        None => clone_direct(request, flags)?,
    };
    match cloned {
        Cloned::Child => {
            drop(ours);
            process::close_in_child(request.lock);
            init::run(child, request.steps)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(child);
            Ok(Spawned { process: Process { pid, pidfd, channel: ours, kept: false }, waits: request.spawn.child_waits })
        }
    }
}

fn clone_direct(request: &Request<'_>, flags: u64) -> Result<Cloned> {
    // Only children are put into the joined pid namespace; this process goes back to making its own.
    let back = match (&request.spawn.join_pid, request.container) {
        (None, None) => None,
        (path, container) => {
            let own = fs::openat(fs::CWD, Path::new("/proc/self/ns/pid"), OFlags::RDONLY, 0)?;
            match (path, container) {
                (Some(path), _) => init::join(&Join { kind: libc::CLONE_NEWPID, path: path.clone() })?,
                (None, Some(fd)) => {
                    process::join_namespace(fd, libc::CLONE_NEWPID).doing(|| "join the container's pid namespace".to_string())?;
                }
                (None, None) => {}
            }
            Some(own)
        }
    };
    let cloned = process::clone3(flags, request.cgroup);
    if let (Ok(Cloned::Parent { .. }) | Err(_), Some(own)) = (&cloned, &back) {
        process::join_namespace(own, libc::CLONE_NEWPID)?;
    }
    Ok(cloned?)
}

fn clone_staged(staged: &Staged, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    let (ours, theirs) = socket::pair()?;
    match process::clone3(0, None)? {
        Cloned::Child => {
            drop(ours);
            let outcome = enter(staged).and_then(|()| Ok(process::clone3(flags | libc::CLONE_PARENT as u64, cgroup)?));
            let message = match outcome {
                Ok(Cloned::Child) => return Ok(Cloned::Child),
                Ok(Cloned::Parent { pid, .. }) => pid.to_string(),
                Err(e) => format!("!{e}"),
            };
            // Without a reader there is nobody to tell: the runtime is gone.
            drop(socket::send(&theirs, message.as_bytes()));
            process::exit_now(0)
        }
        Cloned::Parent { pid, .. } => {
            drop(theirs);
            let said = String::from_utf8_lossy(&socket::receive(&ours)?).into_owned();
            process::wait(pid)?;
            if let Some(why) = said.strip_prefix('!') {
                return Err(Error::Step { step: "entering namespaces".into(), message: why.to_string() });
            }
            let pid = said.parse().map_err(|_| Error::state("the process between the namespaces ended early"))?;
            Ok(Cloned::Parent { pid, pidfd: process::pidfd_open(pid)? })
        }
    }
}

/// What belongs to the outer user namespace is joined with its rights, the rest once the given user namespace is entered.
fn enter(staged: &Staged) -> Result<()> {
    let (user, others): (Vec<&Join>, Vec<&Join>) = staged.joins.iter().partition(|j| j.kind == libc::CLONE_NEWUSER);
    let opened = others.iter().map(|j| Ok((j, fs::openat(fs::CWD, &j.path, OFlags::RDONLY, 0)?))).collect::<Result<Vec<_>>>()?;
    let user = user.iter().map(|j| Ok(fs::openat(fs::CWD, &j.path, OFlags::RDONLY, 0)?)).collect::<Result<Vec<_>>>()?;
    let mut later = Vec::new();
    for (join, fd) in opened {
        match process::join_namespace(&fd, join.kind) {
            Err(e) if e.is(libc::EPERM) && !user.is_empty() => later.push((join, fd)),
            done => done.doing(|| format!("join {}", join.path.display()))?,
        }
    }
    for fd in &user {
        process::join_namespace(fd.as_fd(), libc::CLONE_NEWUSER).doing(|| "join the user namespace".to_string())?;
        process::set_gid(0)?;
        process::set_uid(0)?;
    }
    for (join, fd) in later {
        process::join_namespace(&fd, join.kind).doing(|| format!("join {}", join.path.display()))?;
    }
    if let Some(offsets) = &staged.time_offsets {
        process::unshare(0x80)?;
        let path = Path::new("/proc/self/timens_offsets");
        std::fs::write(path, offsets).map_err(|e| Error::io("write", path, &e)).doing(|| format!("set time offsets {offsets:?}"))?;
    }
    Ok(())
}
