//! `pause`: the main process of a sandbox that has no program of its own. It holds the namespaces, and buries what is orphaned in them.

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Sleeps until SIGTERM or SIGINT.
///
/// # Errors
/// When signals cannot be waited for.
pub fn pause() -> Result<()> {
    let signals = rrun_sys::process::signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT])?;
    loop {
        match poll(&mut [PollFd::new(&signals, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(err) => return Err(err).context("wait for a signal"),
        }
        while let Some(signal) = rrun_sys::process::next_signal(&signals)? {
            if signal != libc::SIGCHLD {
                return Ok(());
            }
        }
        while rrun_sys::process::reap_any()?.is_some() {}
    }
}
