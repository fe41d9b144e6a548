//! Start: tells the waiting first process to go on, and learns whether its program could be run.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use rrun_sys::socket;

use crate::hooks;
use crate::init::message;
use crate::notify::Relay;
use crate::state::{Entry, Status};
use crate::{Context, Error, Result, log, parent};

/// Starts a created container. Returns when its program runs, and what waits for it to be ready: the relay to the service manager
/// `notify`, with the container's pid and pidfd.
pub fn start(entry: &Entry, notify: Option<OsString>) -> Result<Option<(Relay, i32, OwnedFd)>> {
    let state = entry.load()?;
    match entry.status(&state)? {
        Status::Created => {}
        Status::Stopped => return Err(Error::state("cannot start a container that has stopped")),
        Status::Paused => return Err(Error::state("cannot start a container in the paused state")),
        _ => return Err(Error::state("cannot start an already running container")),
    }
    let relay = notify.map(|host| Relay::listen(entry, host)).transpose()?.flatten();
    let pidfd = if relay.is_some() { state.init.open()? } else { None };
    let connection = socket::connect(&entry.socket_path()).doing(|| "reach the container's first process".to_string())?;
    entry.remove_socket()?;
    socket::send(&connection, &[message::GO])?;
    let said = socket::receive(&connection).or_else(|e| if e.is(libc::ECONNRESET) { Ok(Vec::new()) } else { Err(e) })?;
    if let Some(e) = parent::failure(&said) {
        return Err(e);
    }
    run_poststart(&state)?;
    Ok(relay.zip(pidfd).map(|(relay, pidfd)| (relay, state.init.pid, pidfd)))
}

/// A container whose poststart hook fails is ended, as runc does.
pub(super) fn run_poststart(state: &crate::state::State) -> Result<()> {
    let told = super::delete::hook_state(state).with("running", state.init.pid);
    let ran = hooks::run_all("poststart", &state.hooks.poststart, &told, Some(&state.bundle));
    ran.inspect_err(|_| {
        if let Err(e) = super::delete::end(state) {
            log::warn(&format!("ending the container: {e}"));
        }
    })
}

/// A container that its caller has started.
#[derive(Debug)]
pub struct Started {
    pub entry: Entry,
    pub pidfd: OwnedFd,
    pub terminal_master: Option<OwnedFd>,
    pub relay: Option<Relay>,
}

impl super::Created {
    /// Starts it in place of `start`: returns its pidfd.
    pub fn start(self) -> Result<Started> {
        let (_, pidfd) = self.ready.start()?;
        run_poststart(&self.state)?;
        Ok(Started { entry: self.entry, pidfd, terminal_master: self.terminal_master, relay: self.relay })
    }
}
