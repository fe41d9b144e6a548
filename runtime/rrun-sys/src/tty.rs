//! Terminals.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::termios::Winsize;

use crate::error::Described;
use crate::{Result, check};

/// Unlocks the master's peer and opens it without a path (TIOCSPTLCK, TIOCGPTPEER, Linux 4.13): no name can be swapped.
pub fn open_peer(master: impl AsFd) -> Result<OwnedFd> {
    rustix::pty::unlockpt(master.as_fd()).describe("TIOCSPTLCK", String::new)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let fd = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) };
    let fd = check(fd.into(), "TIOCGPTPEER", String::new)?;
    // SAFETY: the kernel has just returned this descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes `tty` the controlling terminal of this session (TIOCSCTTY).
pub fn make_controlling(tty: impl AsFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(tty).describe("TIOCSCTTY", String::new)
}

/// Sets the window size in characters (TIOCSWINSZ).
pub fn set_size(tty: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    rustix::termios::tcsetwinsize(tty, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
        .describe("TIOCSWINSZ", String::new)
}

/// Leaves line ends as they are written (no ONLCR): whoever shows the output has a terminal that adds carriage returns itself.
pub fn keep_line_ends(tty: impl AsFd) -> Result<()> {
    let mut settings = rustix::termios::tcgetattr(tty.as_fd()).describe("TCGETS", String::new)?;
    settings.output_modes.remove(rustix::termios::OutputModes::ONLCR);
    rustix::termios::tcsetattr(tty, rustix::termios::OptionalActions::Now, &settings).describe("TCSETS", String::new)
}

/// Reads the window size as (rows, columns).
pub fn size(tty: impl AsFd) -> Result<(u16, u16)> {
    rustix::termios::tcgetwinsize(tty).describe("TIOCGWINSZ", String::new).map(|w| (w.ws_row, w.ws_col))
}
