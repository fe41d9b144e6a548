//! Signals and window sizes on their way to a container.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::{Client, path_segment};
use crate::failure::Failure;
use crate::terminal;

/// Signals that are passed on, by number and name.
const FORWARDED: [(i32, &str); 9] = [
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGALRM, "ALRM"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGCONT, "CONT"),
    (libc::SIGTSTP, "TSTP"),
];

/// Signals caught from now on.
pub struct Caught(Vec<(Signal, &'static str)>);

/// Starts catching, so that none is lost while the container is being started.
///
/// # Errors
/// When the kernel refuses a handler.
pub fn catch() -> Result<Caught, Failure> {
    let caught: std::io::Result<Vec<_>> =
        FORWARDED.iter().map(|(number, name)| Ok((signal(SignalKind::from_raw(*number))?, *name))).collect();
    Ok(Caught(caught?))
}

impl Caught {
    async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            for (signal, name) in &mut self.0 {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Passes every signal on to the container, for ever.
    pub async fn forward(mut self, client: &Client, container: &str) -> std::convert::Infallible {
        loop {
            let name = self.next().await;
            let sent = client.post(format!("/containers/{}/kill", path_segment(container))).query("signal", name).done().await;
            if let Err(err) = sent
                && err.is_connect()
            {
                eprintln!("{err}");
            }
        }
    }
}

/// Where to send window sizes.
#[derive(Debug, Clone)]
pub enum Window {
    Container(String),
    Exec(String),
}

impl Window {
    async fn resize(&self, client: &Client, (rows, columns): (u16, u16)) -> bool {
        let path = match self {
            Self::Container(id) => format!("/containers/{id}/resize"),
            Self::Exec(id) => format!("/exec/{id}/resize"),
        };
        client.post(path).query("h", rows.to_string()).query("w", columns.to_string()).done().await.is_ok()
    }

    /// Changes the size for a moment, so that a program that was there before draws its screen again.
    pub async fn nudge(&self, client: &Client) {
        if let Some((rows, columns)) = terminal::size() {
            self.resize(client, (rows.saturating_add(1), columns)).await;
        }
    }

    /// Sends the size now and whenever it changes, for ever.
    pub async fn follow(self, client: &Client) -> std::convert::Infallible {
        let mut changes = signal(SignalKind::window_change()).ok();
        self.first(client).await;
        loop {
            match &mut changes {
                Some(changes) => changes.recv().await,
                None => std::future::pending().await,
            };
            if let Some(size) = terminal::size() {
                self.resize(client, size).await;
            }
        }
    }

    /// The process may need a moment until it has a terminal to resize.
    async fn first(&self, client: &Client) {
        let Some(size) = terminal::size() else { return };
        for attempt in 1..=10u64 {
            if self.resize(client, size).await {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10 * attempt)).await;
        }
    }
}

/// Runs helpers that never end beside the work that does.
pub async fn beside<T>(
    work: impl Future<Output = T>,
    first: Option<impl Future<Output = std::convert::Infallible>>,
    second: Option<impl Future<Output = std::convert::Infallible>>,
) -> T {
    let first = async {
        match first {
            Some(helper) => helper.await,
            None => std::future::pending().await,
        }
    };
    let second = async {
        match second {
            Some(helper) => helper.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        done = work => done,
        never = first => match never {},
        never = second => match never {},
    }
}

/// Ends the program by a signal's rule (128 + n) with the terminal restored: for the signals that end a program
/// while it holds a raw terminal.
pub fn restore_terminal_on_fatal_signals() {
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        let Ok(mut stream) = signal(SignalKind::from_raw(number)) else { continue };
        tokio::spawn(async move {
            if stream.recv().await.is_some() {
                terminal::restore();
                std::process::exit(128 + number);
            }
        });
    }
}
