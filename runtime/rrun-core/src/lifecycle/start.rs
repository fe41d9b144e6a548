//! Start: tells the waiting first process to go on, and learns whether its program could be run.

use rrun_sys::socket;

use crate::hooks;
use crate::init::message;
use crate::state::{Entry, Status};
use crate::{Context, Error, Result, log, parent};

/// Starts a created container. Returns when its program runs.
pub fn start(entry: &Entry) -> Result<()> {
    let state = entry.load()?;
    match entry.status(&state)? {
        Status::Created => {}
        Status::Stopped => return Err(Error::state("cannot start a container that has stopped")),
        _ => return Err(Error::state("cannot start an already running container")),
    }
    let connection = socket::connect(&entry.socket_path()).doing(|| "reach the container's first process".to_string())?;
    entry.remove_socket()?;
    socket::send(&connection, &[message::GO])?;
    let said = socket::receive(&connection).or_else(|e| if e.is(libc::ECONNRESET) { Ok(Vec::new()) } else { Err(e) })?;
    if let Some(e) = parent::failure(&said) {
        return Err(e);
    }
    run_poststart(&state);
    Ok(())
}

/// What a poststart hook fails with is told; the container goes on (runtime-spec, lifecycle step 9).
pub(super) fn run_poststart(state: &crate::state::State) {
    let told = super::delete::hook_state(state).with("running", state.init.pid);
    if let Err(e) = hooks::run_all("poststart", &state.hooks.poststart, &told, Some(&state.bundle)) {
        log::warn(&e.to_string());
    }
}

impl super::Created {
    /// Starts it in place of `start`: returns its pidfd.
    pub fn start(self) -> Result<(Entry, crate::state::State, std::os::fd::OwnedFd, Option<std::os::fd::OwnedFd>)> {
        let (_, pidfd) = self.ready.start()?;
        run_poststart(&self.state);
        Ok((self.entry, self.state, pidfd, self.terminal_master))
    }
}
