//! The writing side of a process's stdin.

use std::pin::Pin;

use rcontainerd_task::Task;
use rcontainerd_types::{Error, ErrorKind, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

/// Writes to the process's stdin with back-pressure. Several clients may hold one for the same process.
pub struct InputWriter(State);

enum State {
    Open(Opened),
    /// The process is not started yet.
    Later(Pin<Box<dyn Future<Output = Result<Opened>> + Send>>),
    Failed,
}

/// An open stdin, and whom to tell that no more comes.
pub(crate) struct Opened {
    pub pipe: pipe::Sender,
    pub task: Task,
    pub exec_id: Option<String>,
    /// The process sees end of file when this client closes its side (Docker's `StdinOnce`, and every exec).
    pub closes: bool,
}

impl InputWriter {
    pub(crate) fn new(pipe: pipe::Sender, task: Task, exec_id: Option<String>, closes: bool) -> Self {
        Self(State::Open(Opened { pipe, task, exec_id, closes }))
    }

    /// For a process that is yet to be started: the first write waits for it.
    pub(crate) fn later(opening: impl Future<Output = Result<Opened>> + Send + 'static) -> Self {
        Self(State::Later(Box::pin(opening)))
    }

    async fn open(&mut self) -> Result<&mut Opened> {
        if let State::Later(opening) = &mut self.0 {
            let opened = opening.await;
            self.0 = State::Failed;
            self.0 = State::Open(opened?);
        }
        match &mut self.0 {
            State::Open(opened) => Ok(opened),
            _ => Err(Error::conflict("the container was not started")),
        }
    }

    /// Writes all of `data`; waits while the process does not read.
    ///
    /// # Errors
    /// When the process has closed its stdin or ended.
    pub async fn write(&mut self, data: &[u8]) -> Result<()> {
        let opened = self.open().await?;
        opened.pipe.write_all(data).await.map_err(|err| Error::io("write to the container's stdin", err))
    }

    /// The client has no more input: end of file for the process if that is what this client's closing means.
    ///
    /// # Errors
    /// When the shim does not take the message; a process that has ended already is no error.
    pub async fn close(mut self) -> Result<()> {
        self.open().await?;
        let State::Open(Opened { pipe, task, exec_id, closes }) = self.0 else { return Ok(()) };
        drop(pipe);
        if !closes {
            return Ok(());
        }
        match task.close_stdin(exec_id.as_deref()).await {
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
