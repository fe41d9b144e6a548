//! The runtime's side of making a process, as states that consume themselves:
//!
//! ```text
//! spawn() → Spawned ─map, move into cgroups→ Entered ─hooks, until the child is ready→ Ready ─go→ started
//! ```
//!
//! A state that is dropped instead kills the process it made; [`Undo`] takes back what was made around it.

mod listener;
mod maps;
mod spawn;
mod trees;
mod undo;

use std::os::fd::{AsFd, OwnedFd};

use rrun_sys::{process, socket};

pub use listener::Supervisor;
pub use spawn::{Request, spawn};
pub use undo::Undo;

use crate::init::{Failure, message};
use crate::plan::InitStep;
use crate::procfs::{Part, ProcFs};
use crate::{Context, Error, Result};

/// The process exists, and waits if it has to be mapped or moved.
#[derive(Debug)]
pub struct Spawned {
    process: Process,
    /// It was cloned into the v2 cgroup.
    in_cgroup: bool,
    /// It enters v1 cgroups by itself.
    enters: bool,
    waits: bool,
}

/// It is where it belongs and prepares itself.
#[derive(Debug)]
pub struct Entered {
    process: Process,
}

/// All is prepared; it waits for its start.
#[derive(Debug)]
pub struct Ready {
    process: Process,
}

/// A process that is killed when it is forgotten half-made.
#[derive(Debug)]
struct Process {
    pid: i32,
    pidfd: OwnedFd,
    channel: OwnedFd,
    /// Who answers for the system calls that its seccomp profile asks about.
    supervisor: Option<Supervisor>,
    kept: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.kept {
            // ESRCH: it ended by itself. Nothing else can be wrong with a pidfd of our own child.
            drop(process::pidfd_signal(&self.pidfd, libc::SIGKILL));
            drop(process::wait(self.pid));
        }
    }
}

impl Spawned {
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Writes the id mappings and moves it into its cgroups, then lets it go on.
    pub fn enter(self, maps: Option<&crate::plan::Maps>, cgroup: Option<&rrun_cgroup::Cgroup>, rootless: bool) -> Result<Entered> {
        if let Some(maps) = maps {
            maps::write(&ProcFs::open(Part::Processes)?, self.process.pid, maps, rootless)?;
        }
        let at_home = self.enters && (self.in_cgroup || cgroup.is_some_and(|c| c.location().unified().is_none()));
        if let Some(cgroup) = cgroup.filter(|_| !at_home) {
            cgroup.attach(self.process.pid, self.in_cgroup).doing(|| "move the process into its cgroup".to_string())?;
        }
        if self.waits {
            self.process.go()?;
        }
        Ok(Entered { process: self.process })
    }
}

impl Entered {
    /// Follows the child until it is ready; `hooks` runs what it asks for.
    pub fn until_ready(self, steps: &[InitStep], mut hooks: impl FnMut(i32) -> Result<()>) -> Result<Ready> {
        loop {
            let (bytes, sent) = socket::receive_fd(&self.process.channel)?;
            match bytes.first() {
                Some(&message::RUN_HOOKS) => {
                    hooks(self.process.pid)?;
                    self.process.go()?;
                }
                Some(&message::LISTENER) => self.process.hand_over_listener(&bytes, sent)?,
                Some(&message::TREE) => {
                    let tree = trees::prepare(steps, &bytes[1..], self.process.pidfd.as_fd())?;
                    socket::send_fd(&self.process.channel, &[message::GO], tree.as_fd())?;
                }
                Some(&message::READY) => return Ok(Ready { process: self.process }),
                _ => return Err(self.process.failure(&bytes)),
            }
        }
    }

    /// Follows a child that starts by itself: success is the channel closing by exec.
    pub fn until_started(mut self) -> Result<(i32, OwnedFd)> {
        self.process.until_exec()?;
        self.process.release()
    }
}

impl Ready {
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    pub fn pidfd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Leaves it waiting for `start`.
    pub fn leave(self) -> Result<i32> {
        Ok(self.process.release()?.0)
    }

    /// Starts it now.
    pub fn start(mut self) -> Result<(i32, OwnedFd)> {
        self.process.go()?;
        self.process.until_exec()?;
        self.process.release()
    }
}

impl Process {
    fn go(&self) -> Result<()> {
        match socket::send(&self.channel, &[message::GO]) {
            // It has failed meanwhile and says why in its last message.
            Err(e) if e.is(libc::EPIPE) || e.is(libc::ECONNRESET) => Err(self.failure(&socket::receive(&self.channel).unwrap_or_default())),
            done => Ok(done?),
        }
    }

    fn until_exec(&mut self) -> Result<()> {
        loop {
            let (bytes, sent) = socket::receive_fd(&self.channel)?;
            match bytes.first() {
                None => return Ok(()),
                Some(&message::LISTENER) => self.hand_over_listener(&bytes, sent)?,
                Some(_) => return Err(self.failure(&bytes)),
            }
        }
    }

    fn hand_over_listener(&self, message: &[u8], sent: Option<OwnedFd>) -> Result<()> {
        let supervisor = self.supervisor.as_ref().ok_or_else(|| Error::state("seccomp: SCMP_ACT_NOTIFY needs listenerPath"))?;
        let listener = match sent {
            Some(listener) => listener,
            None => listener::fetch(self.pidfd.as_fd(), &message[1..])?,
        };
        supervisor.hand_over(self.pid, listener.as_fd())?;
        self.go()
    }

    fn release(mut self) -> Result<(i32, OwnedFd)> {
        self.kept = true;
        Ok((self.pid, self.pidfd.as_fd().try_clone_to_owned().map_err(|e| Error::io("dup", std::path::Path::new("pidfd"), &e))?))
    }

    fn failure(&self, bytes: &[u8]) -> Error {
        failure(bytes).unwrap_or_else(|| {
            let how = match process::pidfd_exited(&self.pidfd, Some(std::time::Duration::from_secs(1))) {
                Ok(true) => "it was killed from outside: is its memory limit too low?",
                _ => "it closed its channel",
            };
            Error::state(format!("the container's first process ended before it was ready: {how}"))
        })
    }
}

/// What a child's last message says.
pub fn failure(bytes: &[u8]) -> Option<Error> {
    let [message::FAILED, json @ ..] = bytes else { return None };
    let failure: Failure = serde_json::from_slice(json).ok()?;
    Some(if failure.step.is_empty() { Error::Exec(failure.message) } else { Error::Step { step: failure.step, message: failure.message } })
}
