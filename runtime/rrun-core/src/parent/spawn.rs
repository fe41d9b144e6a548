//! Making the process: one clone3, or a process in between where the kernel's rules ask for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rrun_sys::fs::{self, OFlags};
use rrun_sys::process::{self, Cloned};
use rrun_sys::socket;

use super::{Process, Spawned};
use crate::init::{self, Child};
use crate::plan::{InitStep, Join, Spawn, Staged};
use crate::procfs::{Part, ProcFs};
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
    pub supervisor: Option<super::Supervisor>,
    /// Whether ids are mapped without root's rights.
    pub rootless: bool,
}

/// Makes the process. `child` gets the channel's other end; everything in it stays closed to the container's program.
pub fn spawn(request: &Request<'_>, child: impl FnOnce(std::os::fd::OwnedFd) -> Child) -> Result<Spawned> {
    let (ours, theirs) = socket::pair()?;
    let child = child(theirs);
    let ignored = process::ignored_signals()?;
    let flags = request.spawn.flags;
    let cloned = match &request.spawn.staged {
        Some(staged) => clone_staged(staged, request, flags)?,
        None => clone_direct(request, flags)?,
    };
    match cloned {
        Cloned::Child => {
            drop(ours);
            process::close_in_child(request.lock);
            init::run(child, ignored, request.steps)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(child);
            let in_cgroup = request.spawn.staged.is_none() && request.cgroup.is_some();
            Ok(Spawned {
                in_cgroup,
                enters: !request.spawn.entrances.is_empty(),
                process: Process { pid, pidfd, channel: ours, supervisor: request.supervisor.clone(), kept: false },
                waits: request.spawn.child_waits,
            })
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

/// Said by the process in between once it is in a user namespace without ids.
const MAP_ME: &str = "?";

fn clone_staged(staged: &Staged, request: &Request<'_>, flags: u64) -> Result<Cloned> {
    let (ours, theirs) = socket::pair()?;
    match process::clone3(0, None)? {
        Cloned::Child => {
            drop(ours);
            let entered = match (request.container, staged.container) {
                (Some(container), Some(namespaces)) => enter_container(staged, container, namespaces),
                _ => enter(staged, &theirs),
            };
            let outcome = entered.and_then(|()| Ok(process::clone3(flags | libc::CLONE_PARENT as u64, None)?));
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
            let mut said = String::from_utf8_lossy(&socket::receive(&ours)?).into_owned();
            let mapped = match &staged.maps {
                Some(maps) if said == MAP_ME => super::maps::write(&ProcFs::open(Part::Processes)?, pid, maps, request.rootless)
                    .and_then(|()| Ok(socket::send(&ours, b"mapped")?))
                    .and_then(|()| Ok(String::from_utf8_lossy(&socket::receive(&ours)?).into_owned()))
                    .map(|next| said = next),
                _ => Ok(()),
            };
            // It ends by itself when nobody answers.
            drop(ours);
            process::wait(pid)?;
            mapped?;
            if let Some(why) = said.strip_prefix('!') {
                return Err(Error::Step { step: "entering namespaces".into(), message: why.to_string() });
            }
            let pid = said.parse().map_err(|_| Error::state("the process between the namespaces ended early"))?;
            Ok(Cloned::Parent { pid, pidfd: process::pidfd_open(pid)? })
        }
    }
}

/// The user namespace first, whose rights the pid namespace wants. Not dumpable from here on: a process of the container that sees
/// the new one must not get hold of it.
fn enter_container(staged: &Staged, container: BorrowedFd<'_>, namespaces: i32) -> Result<()> {
    if let Some(value) = staged.oom_score_adj {
        // While /proc/self is this user's.
        ProcFs::open(Part::Processes)?.write("self/oom_score_adj", &value.to_string())?;
    }
    process::set_non_dumpable()?;
    process::join_namespace(container, namespaces).doing(|| "join the container's user and pid namespaces".to_string())
}

/// What belongs to the outer user namespace is joined with its rights, the rest once the given user namespace is entered.
fn enter(staged: &Staged, parent: &OwnedFd) -> Result<()> {
    // Before a mount namespace is joined whose /proc is somebody else's.
    let proc = staged.time_offsets.as_ref().map(|_| ProcFs::open(Part::Processes)).transpose()?;
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
    if staged.maps.is_some() {
        process::unshare(libc::CLONE_NEWUSER).doing(|| "make the user namespace".to_string())?;
        socket::send(parent, MAP_ME.as_bytes())?;
        if socket::receive(parent)?.is_empty() {
            return Err(Error::state("the user namespace was not mapped"));
        }
    }
    if let (Some(offsets), Some(proc)) = (&staged.time_offsets, proc) {
        process::unshare(0x80)?;
        proc.write("self/timens_offsets", offsets).doing(|| format!("set time offsets {offsets:?}"))?;
    }
    Ok(())
}
