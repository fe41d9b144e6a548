//! The foreground: signals and the terminal pass through until the process ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use rrun_core::notify::Relay;
use rrun_sys::process::{self, Ended};
use rrun_sys::tty;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// What is followed.
#[derive(Debug)]
pub struct Followed {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub master: Option<OwnedFd>,
    /// What the container tells this process's service manager.
    pub relay: Option<Relay>,
}

/// Signals that go on to the container. Not among them: faults, and what cannot be caught.
const PASSED_ON: [i32; 13] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
    libc::SIGPWR,
];

/// From here on these signals wait to be read.
pub fn catch_signals() -> Result<OwnedFd> {
    let all: Vec<i32> = PASSED_ON.into_iter().chain([libc::SIGCHLD]).collect();
    Ok(process::signal_fd(&all)?)
}

/// Until the process has ended and its terminal is drained.
pub fn follow(followed: &Followed, signals: &OwnedFd) -> Result<Ended> {
    let raw = followed.master.as_ref().map(|master| RawTerminal::enter(master.as_fd()));
    let ended = follow_raw(followed, signals);
    drop(raw);
    ended
}

fn follow_raw(followed: &Followed, signals: &OwnedFd) -> Result<Ended> {
    let mut ended = None;
    let mut input_open = followed.master.is_some();
    let mut output_open = followed.master.is_some();
    loop {
        let mut fds: Vec<BorrowedFd<'_>> = vec![signals.as_fd()];
        if let (true, Some(master)) = (output_open, &followed.master) {
            fds.push(master.as_fd());
            if input_open {
                fds.push(rustix::stdio::stdin());
            }
        }
        let relay_at = fds.len();
        fds.extend(followed.relay.iter().map(AsFd::as_fd));
        if let (Some(ended), false) = (ended, output_open) {
            // Its last words came before its end.
            if let Some(relay) = &followed.relay {
                while process::wait_readable(&[relay.as_fd()], Some(Duration::ZERO))?[0] {
                    pass_on(relay);
                }
            }
            return Ok(ended);
        }
        // Once it has ended, what is left in the terminal is read without waiting for more: somebody may keep it open.
        let patience = ended.map(|_| Duration::ZERO);
        let ready = process::wait_readable(&fds, patience)?;
        if ended.is_some() && !ready[1..].iter().any(|r| *r) {
            output_open = false;
        }
        if ready[0] {
            ended = ended.or(on_signals(followed, signals)?);
        }
        if let Some(relay) = followed.relay.as_ref().filter(|_| ready[relay_at]) {
            pass_on(relay);
        }
        if let Some(master) = followed.master.as_ref().filter(|_| relay_at > 1) {
            if ready[1] {
                output_open = copy(master.as_fd(), rustix::stdio::stdout());
            }
            if relay_at > 2 && ready[2] {
                input_open = copy(rustix::stdio::stdin(), master.as_fd());
            }
        }
    }
}

/// This process is what its service manager watches.
fn pass_on(relay: &Relay) {
    if let Err(e) = relay.pass_on(std::process::id().cast_signed()) {
        rrun_core::log::warn(&e.to_string());
    }
}

fn on_signals(followed: &Followed, signals: &OwnedFd) -> Result<Option<Ended>> {
    let mut ended = None;
    while let Some(signal) = process::next_signal(signals)? {
        match signal {
            libc::SIGCHLD => {
                while let Some((pid, how)) = process::reap_any()? {
                    if pid == followed.pid {
                        ended = Some(how);
                    }
                }
            }
            libc::SIGWINCH if followed.master.is_some() => {
                if let Some(master) = &followed.master {
                    copy_size(master.as_fd());
                }
            }
            other => match process::pidfd_signal(&followed.pidfd, other) {
                Err(e) if e.is(libc::ESRCH) => {}
                done => done?,
            },
        }
    }
    Ok(ended)
}

/// One piece of what is there; false: that direction is over.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buf = [0u8; 8192];
    let Ok(n) = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buf)) else { return false };
    let mut rest = &buf[..n];
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to, rest)) {
            Ok(n) => rest = &rest[n..],
            Err(_) => return false,
        }
    }
    n > 0
}

fn copy_size(master: BorrowedFd<'_>) {
    // No terminal of our own has no size; then the container's stays as it is.
    if let Ok((rows, columns)) = tty::size(rustix::stdio::stdin())
        && (rows, columns) != (0, 0)
    {
        drop(tty::set_size(master, rows, columns));
    }
}

/// Our own terminal in raw mode, put back on drop.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter(master: BorrowedFd<'_>) -> RawTerminal {
        copy_size(master);
        let Ok(saved) = tcgetattr(rustix::stdio::stdin()) else { return RawTerminal(None) };
        let mut raw = saved.clone();
        raw.make_raw();
        match tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw) {
            Ok(()) => RawTerminal(Some(saved)),
            Err(_) => RawTerminal(None),
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            // Nothing more can be done for a terminal that is gone.
            tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, saved).unwrap_or_default();
        }
    }
}
