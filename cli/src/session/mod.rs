//! A container's or exec's streams on this terminal.

pub mod demux;
pub mod signals;
pub mod stdin;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cli::Cli;
use crate::client::Hijacked;
use crate::failure::Failure;
use crate::terminal::{self, Raw, detach};

/// How a session is to be wired.
#[derive(Debug, Clone)]
pub struct Wiring {
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub detach_keys: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The process's output is complete.
    Finished,
    /// The user left it running.
    Detached,
}

/// Keys from the flag, the configuration or the default.
///
/// # Errors
/// A sequence that is none.
pub fn detach_keys(cli: &Cli, flag: Option<&str>) -> Result<Vec<u8>, Failure> {
    let chosen = flag
        .filter(|keys| !keys.is_empty())
        .map_or_else(|| cli.config().string("detachKeys").unwrap_or_default().to_owned(), str::to_owned);
    detach::parse(&chosen)
}

/// Docker's refusal of `-it` without a terminal.
///
/// # Errors
/// When a terminal is wanted for stdin and stdin is none.
pub fn check_tty(attach_stdin: bool, tty: bool) -> Result<(), Failure> {
    if attach_stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::message("the input device is not a TTY"));
    }
    Ok(())
}

/// An attached connection and the terminal's raw mode with it.
pub struct Session {
    hijacked: Hijacked,
    wiring: Wiring,
    raw: Option<Raw>,
}

impl Session {
    /// Takes the terminal (if the wiring wants it) and is ready to stream.
    ///
    /// # Errors
    /// When the terminal refuses raw mode.
    pub fn open(hijacked: Hijacked, wiring: Wiring) -> Result<Self, Failure> {
        let raw = if wiring.tty && wiring.stdin {
            Raw::enter().map_err(|err| Failure::message(format!("unable to set IO streams as raw terminal: {err}")))?
        } else {
            None
        };
        Ok(Self { hijacked, wiring, raw })
    }

    /// Streams until the output ends or the user detaches.
    ///
    /// # Errors
    /// A broken connection, or a stdout that cannot be written.
    pub async fn run(self) -> Result<End, Failure> {
        let Self { hijacked, wiring, raw } = self;
        let (mut from, mut to) = tokio::io::split(hijacked.io);
        let wants_output = wiring.stdout || wiring.stderr;
        let input = async {
            if wiring.stdin {
                let watcher = wiring.tty.then(|| detach::Watcher::new(wiring.detach_keys.clone()));
                if stdin::copy(&mut to, watcher).await {
                    return End::Detached;
                }
            }
            // The other end may be gone already; its output says how it went.
            drop(to.shutdown().await);
            if wants_output {
                std::future::pending::<()>().await;
            }
            End::Finished
        };
        let output = async {
            if wants_output {
                demux::copy(&mut from, !wiring.tty, wiring.stdout, wiring.stderr).await.map(|()| End::Finished)
            } else {
                drain(&mut from).await;
                Ok(End::Finished)
            }
        };
        let end = tokio::select! {
            end = output => end,
            end = input => Ok(end),
        };
        drop(raw);
        end
    }
}

/// Waits for the other end to close.
async fn drain(from: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut buffer = [0u8; 4096];
    while matches!(from.read(&mut buffer).await, Ok(count) if count > 0) {}
}
