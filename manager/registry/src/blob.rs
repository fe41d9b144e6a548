//! A blob's bytes in order, through broken lines; where one line is slow, by several ranges at once.
//!
//! A line alone is the rule: on a fast network a second one gains nothing. When what is left would take longer than `Limits::patience`
//! at the rate so far, the line is cut short and the rest comes in ranges, a few at a time; each waits in memory for its turn. The rate
//! is that of the network alone: a receiver that is slow (a busy disk) gains nothing from more lines.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rcontainerd_types::{Descriptor, Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Limits;
use crate::http::Session;
use crate::line::{Line, Source};

/// The rate is judged when the network has been waited for so long.
const JUDGED_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub enum Chunk {
    Data(Bytes),
    /// The line broke; the next call waits that many seconds, then tries again.
    Retrying(u64),
}

/// One blob on its way. Not more bytes than the descriptor says are ever given; their digest is for the receiver to check.
pub struct BlobStream {
    source: Source,
    /// Bytes given so far, those before the first call included.
    offset: u64,
    line: Line,
    /// What comes after the line, in order.
    parts: VecDeque<Part>,
    /// First byte that no part has been asked for.
    unasked: u64,
    /// Where the line began, and the time that was spent waiting for it.
    first: u64,
    waited: Duration,
    judged: bool,
}

impl BlobStream {
    pub(crate) fn new(sessions: Vec<Arc<Session>>, blob: Descriptor, offset: u64, limits: Limits) -> Self {
        let size = blob.size;
        let source = Source { sessions, blob, limits };
        let line = Line::new(source.clone(), offset.min(size)..size);
        let judged = limits.ranges < 2;
        Self { source, offset, line, parts: VecDeque::new(), unasked: size, first: offset, waited: Duration::ZERO, judged }
    }

    /// Bytes given so far, those before the stream began included.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, `None` after the last. Dropping the future loses the attempt, not the place.
    ///
    /// # Errors
    /// `DataLoss` when the registry has another size than the manifest says; else as the last attempt failed.
    pub async fn next(&mut self) -> Result<Option<Chunk>> {
        loop {
            if self.offset == self.source.blob.size {
                return Ok(None);
            }
            self.ask();
            let begun = Instant::now();
            let read = if self.line.next_offset() == self.offset { self.line.read().await } else { Ok(None) };
            self.waited += begun.elapsed();
            let chunk = match read? {
                Some(chunk) => Some(chunk),
                None => self.next_of_parts().await?,
            };
            match &chunk {
                Some(Chunk::Data(bytes)) => {
                    self.offset += bytes.len() as u64;
                    self.judge();
                    return Ok(chunk);
                }
                Some(Chunk::Retrying(_)) => return Ok(chunk),
                // A part ended, or there are none any more.
                None => {}
            }
        }
    }

    /// From the first part; `None` when it has given all it had.
    async fn next_of_parts(&mut self) -> Result<Option<Chunk>> {
        let Some(part) = self.parts.front_mut() else { return Ok(None) };
        match part.chunks.recv().await {
            Some(Ok(chunk)) => Ok(Some(chunk)),
            None => {
                self.parts.pop_front();
                Ok(None)
            }
            Some(Err(err)) if err.kind() == ErrorKind::Unsupported => {
                // One line after all, from here on.
                self.parts.clear();
                self.unasked = self.source.blob.size;
                self.line = Line::new(self.source.clone(), self.offset..self.source.blob.size);
                Ok(None)
            }
            Some(Err(err)) => Err(err),
        }
    }

    /// Cuts the line short when it is too slow for what is left.
    fn judge(&mut self) {
        let limits = &self.source.limits;
        let left = self.source.blob.size - self.offset;
        if self.judged || self.waited < JUDGED_AFTER.min(limits.patience) {
            return;
        }
        self.judged = true;
        if left < 2 * limits.range_size {
            return;
        }
        let rate = (self.offset - self.first) as f64 / self.waited.as_secs_f64().max(f64::EPSILON);
        if left as f64 > rate * limits.patience.as_secs_f64() {
            self.line.shorten(self.offset + limits.range_size);
            self.unasked = (self.offset + limits.range_size).min(self.source.blob.size);
        }
    }

    /// Keeps the ranges under way that may be; the line counts as one while it lasts.
    fn ask(&mut self) {
        let others = self.source.limits.ranges.saturating_sub(1).max(1);
        while self.unasked < self.source.blob.size && self.parts.len() < others {
            let end = (self.unasked + self.source.limits.range_size).min(self.source.blob.size);
            let line = Line::part(self.source.clone(), self.unasked..end, self.line.session());
            self.parts.push_back(Part::start(line));
            self.unasked = end;
        }
    }
}

/// A range that is fetched ahead of its turn, by a task that ends with it.
struct Part {
    chunks: mpsc::UnboundedReceiver<Result<Chunk, Error>>,
    task: JoinHandle<()>,
}

impl Part {
    fn start(mut line: Line) -> Self {
        // As many bytes as the range has: that is the bound.
        let (sender, chunks) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Some(read) = line.read().await.transpose() {
                let failed = read.is_err();
                if sender.send(read).is_err() || failed {
                    return;
                }
            }
        });
        Self { chunks, task }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}
