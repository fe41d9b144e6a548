//! Bodies for code that reads and writes synchronously on a blocking thread: bounded queues in between, so that neither side
//! runs ahead of the other.

use std::io::{self, Read, Write};

use axum::body::Body;
use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use rcontainerd_types::Error;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::time::Duration;

/// Chunks under way; a chunk is at most what one read from the socket gave, or [`CHUNK`].
const QUEUE: usize = 16;
const CHUNK: usize = 64 * 1024;

/// Reads a request's body. The connection is read no faster than this is.
pub(crate) fn reader(mut body: Body) -> BodyReader {
    let (sender, chunks) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            let chunk = frame.map_err(io::Error::other).map(|frame| frame.into_data().unwrap_or_default());
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    });
    BodyReader { chunks, current: Bytes::new() }
}

/// See [`reader`].
#[derive(Debug)]
pub(crate) struct BodyReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// A client that takes nothing for so long is dropped: what writes may hold something that others wait for.
const STALL: Duration = Duration::from_secs(120);

/// What is written comes out as chunks; a receiver that is gone is a broken pipe. Must be called within a tokio runtime.
pub(crate) fn writer() -> (BodyWriter, mpsc::Receiver<Bytes>) {
    let (chunks, receiver) = mpsc::channel(QUEUE);
    (BodyWriter { chunks, pending: Vec::with_capacity(CHUNK), runtime: Handle::current(), stall: STALL }, receiver)
}

/// What comes out of a [`writer`] as a body; the task's failure cuts it short, so that a client does not take it for whole.
pub(crate) fn body(chunks: mpsc::Receiver<Bytes>, task: Outcome) -> Body {
    Body::from_stream(rest(chunks, task))
}

/// As [`body`], with a chunk that was taken already.
pub(crate) fn body_after(first: Bytes, chunks: mpsc::Receiver<Bytes>, task: Outcome) -> Body {
    let head = stream::once(std::future::ready(Ok(first)));
    Body::from_stream(head.chain(rest(chunks, task)))
}

/// The task that writes.
pub(crate) type Outcome = tokio::task::JoinHandle<Result<(), Error>>;

fn rest(chunks: mpsc::Receiver<Bytes>, task: Outcome) -> impl Stream<Item = Result<Bytes, Error>> {
    stream::unfold((chunks, Some(task)), |(mut chunks, task)| async move {
        if let Some(chunk) = chunks.recv().await {
            return Some((Ok(chunk), (chunks, task)));
        }
        match task?.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((Err(error), (chunks, None))),
            Err(error) => Some((Err(Error::internal(format!("write the archive: {error}"))), (chunks, None))),
        }
    })
}

/// See [`writer`]. Dropping it sends what is pending.
#[derive(Debug)]
pub(crate) struct BodyWriter {
    chunks: mpsc::Sender<Bytes>,
    pending: Vec<u8>,
    runtime: Handle,
    stall: Duration,
}

impl BodyWriter {
    fn send(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK));
        self.runtime.block_on(self.chunks.send_timeout(chunk.into(), self.stall)).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"),
            SendTimeoutError::Closed(_) => io::ErrorKind::BrokenPipe.into(),
        })
    }
}

impl Write for BodyWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = data.len().min(CHUNK - self.pending.len());
        self.pending.extend_from_slice(&data[..length]);
        if self.pending.len() == CHUNK {
            self.send()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        if let Err(error) = self.send() {
            tracing::debug!(%error, "client left before the end of the archive");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_read_whole_on_a_blocking_thread() {
        let pieces = futures_util::stream::iter((0..100).map(|n| Ok::<_, io::Error>(Bytes::from(format!("{n},")))));
        let mut reader = reader(Body::from_stream(pieces));
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        let expected: String = (0..100).map(|n| format!("{n},")).collect();
        assert_eq!(read.await.expect("no panic").expect("readable"), expected);
    }

    #[tokio::test]
    async fn a_body_cut_short_is_an_error() {
        let pieces = futures_util::stream::iter([Ok(Bytes::from_static(b"x")), Err(io::Error::other("cut"))]);
        let mut reader = reader(Body::from_stream(pieces));
        let read = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
        assert!(read.await.expect("no panic").is_err());
    }

    #[tokio::test]
    async fn everything_written_arrives_in_order_and_bounded() {
        let (mut writer, mut chunks) = writer();
        let data: Vec<u8> = (0..CHUNK * 40 + 7).map(|n| u8::try_from(n % 251).expect("small")).collect();
        let expected = data.clone();
        let task = tokio::task::spawn_blocking(move || writer.write_all(&data));
        let mut seen = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            assert!(chunk.len() <= CHUNK);
            seen.extend_from_slice(&chunk);
        }
        task.await.expect("no panic").expect("written");
        assert!(seen == expected);
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_stops_the_writer() {
        let (mut writer, _chunks) = writer();
        writer.stall = Duration::from_millis(10);
        let task = tokio::task::spawn_blocking(move || writer.write_all(&vec![0; CHUNK * (QUEUE + 1)]));
        assert_eq!(task.await.expect("no panic").expect_err("stuck").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_reader_that_left_stops_the_writer() {
        let (mut writer, chunks) = writer();
        drop(chunks);
        let task = tokio::task::spawn_blocking(move || writer.write_all(&[0; CHUNK * 2]));
        assert_eq!(task.await.expect("no panic").expect_err("nobody reads").kind(), io::ErrorKind::BrokenPipe);
    }
}
