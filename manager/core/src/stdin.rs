//! The writing side of a process's stdin.

use rcontainerd_task::Task;
use rcontainerd_types::{Error, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

/// Writes to the process's stdin with back-pressure. Several clients may hold one for the same process.
#[derive(Debug)]
pub struct InputWriter {
    pipe: pipe::Sender,
    on_close: Option<CloseStdin>,
}

/// Whom to tell that no more input comes.
#[derive(Debug)]
struct CloseStdin {
    task: Task,
    exec_id: Option<String>,
}

impl InputWriter {
    /// `closes`: the process sees end of file when this client closes its side (Docker's `StdinOnce`, and every exec).
    pub(crate) fn new(pipe: pipe::Sender, task: Task, exec_id: Option<String>, closes: bool) -> Self {
        Self { pipe, on_close: closes.then_some(CloseStdin { task, exec_id }) }
    }

    /// Writes all of `data`; waits while the process does not read.
    ///
    /// # Errors
    /// When the process has closed its stdin or ended.
    pub async fn write(&mut self, data: &[u8]) -> Result<()> {
        self.pipe.write_all(data).await.map_err(|err| Error::io("write to the container's stdin", err))
    }

    /// The client has no more input: end of file for the process if that is what this client's closing means.
    ///
    /// # Errors
    /// When the shim does not take the message; a process that has ended already is no error.
    pub async fn close(self) -> Result<()> {
        let Self { pipe, on_close } = self;
        drop(pipe);
        let Some(CloseStdin { task, exec_id }) = on_close else { return Ok(()) };
        match task.close_stdin(exec_id.as_deref()).await {
            Err(err) if err.kind() == rcontainerd_types::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
