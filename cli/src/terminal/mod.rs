//! The user's terminal: raw mode that is always undone, its size, detach keys.

pub mod detach;

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// The settings to go back to, while raw mode is on.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode for as long as it lives.
#[must_use]
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Switches stdin's terminal to raw mode; `None` if stdin is no terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> std::io::Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return Ok(None);
        }
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        remember(Some(before));
        tcsetattr(stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self(())))
    }
}

impl Raw {
    /// Stops the echo of what is typed, for passwords, and leaves the rest as it is.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn without_echo() -> std::io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(rustix::termios::LocalModes::ECHO);
        remember(Some(before));
        tcsetattr(stdin, OptionalActions::Now, &quiet)?;
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn remember(settings: Option<Termios>) {
    *SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = settings;
}

/// Undoes raw mode if it is on. Called on every way out, a panic's and a signal's too.
pub fn restore() {
    let saved = SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(settings) = saved {
        // There is nothing left to do if the terminal is gone.
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &settings).ok();
    }
}

/// Restores the terminal before a panic's message is printed.
pub fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        print(info);
    }));
}

pub fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Rows and columns of stdout's terminal.
pub fn size() -> Option<(u16, u16)> {
    size_of(rustix::stdio::stdout())
}

fn size_of(fd: impl AsFd) -> Option<(u16, u16)> {
    let size = tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 || size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Columns for help texts, as stdin's terminal has them.
pub fn width() -> usize {
    size_of(rustix::stdio::stdin()).map_or(80, |(_, columns)| usize::from(columns).max(40))
}
