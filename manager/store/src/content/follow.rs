//! Reading a blob while it arrives: the reader waits for the writer, and learns when the writer has given up.
//!
//! What is read is not verified yet. Nothing made from it may be seen before the ingest has been committed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How far an ingest has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes in the file.
    offset: u64,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All bytes are there.
    Complete,
    /// No more will come.
    GivenUp,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn reached(&self, offset: u64) {
        self.lock().offset = offset;
        self.changed.notify_all();
    }

    /// The first end counts.
    pub fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.changed.notify_all();
    }
}

/// A blob from its first byte on. Reads block until there is something to read; an ingest that is given up is an error, not an end.
#[derive(Debug)]
pub struct Follower {
    file: File,
    progress: Arc<Progress>,
    position: u64,
}

impl Follower {
    pub(super) fn new(file: File, progress: Arc<Progress>) -> Self {
        Self { file, progress, position: 0 }
    }

    /// Bytes that can be read now; 0 at the end.
    fn available(&self) -> io::Result<u64> {
        let waits = |state: &mut State| state.offset <= self.position && state.end.is_none();
        let state = self.progress.changed.wait_while(self.progress.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        match (state.offset.saturating_sub(self.position), state.end) {
            (0, Some(End::GivenUp)) => Err(io::Error::other("the blob did not arrive whole")),
            (available, _) => Ok(available),
        }
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let available = usize::try_from(self.available()?).unwrap_or(usize::MAX);
        if available == 0 {
            return Ok(0);
        }
        let length = buffer.len().min(available);
        let read = self.file.read_at(&mut buffer[..length], self.position)?;
        if read == 0 {
            // The writer began anew with less than we have read.
            return Err(io::Error::other("the blob began anew while it was read"));
        }
        self.position += read as u64;
        Ok(read)
    }
}
