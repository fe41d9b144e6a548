//! A blob's bytes, through broken lines: each new attempt goes on where the last one stopped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rcontainerd_types::{Descriptor, Error, ErrorKind, Result};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use crate::config::Limits;
use crate::http::{Answer, Session};
use crate::repository::seconds;

/// Attempts in all, however much each brings.
const ATTEMPTS_MAX: u32 = 100;

#[derive(Debug)]
pub enum Chunk {
    Data(Bytes),
    /// The line broke; the next call waits that many seconds, then tries again.
    Retrying(u64),
}

/// One blob on its way. Not more bytes than the descriptor says are ever given; their digest is for the receiver to check.
pub struct BlobStream {
    sessions: Vec<Arc<Session>>,
    current: usize,
    blob: Descriptor,
    /// Bytes given so far, those before the first call included.
    offset: u64,
    /// Bytes to drop because the server does not know ranges.
    skip: u64,
    body: Option<Response>,
    pause: Option<Duration>,
    /// Failures since the last byte, and in all.
    failures: u32,
    failures_in_all: u32,
    limits: Limits,
}

impl BlobStream {
    pub(crate) fn new(sessions: Vec<Arc<Session>>, blob: Descriptor, offset: u64, limits: Limits) -> Self {
        Self { sessions, current: 0, blob, offset, skip: 0, body: None, pause: None, failures: 0, failures_in_all: 0, limits }
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
            if self.offset == self.blob.size {
                return Ok(None);
            }
            let Some(body) = &mut self.body else {
                if let Some(pause) = self.pause.take() {
                    tokio::time::sleep(pause).await;
                }
                match self.open().await {
                    Ok(response) => self.body = Some(response),
                    Err(err) => return self.failed(err).map(Some),
                }
                continue;
            };
            let chunk = tokio::time::timeout(self.limits.stall_timeout, body.chunk()).await;
            match chunk {
                Ok(Ok(Some(bytes))) => {
                    if let Some(bytes) = self.accept(bytes)? {
                        return Ok(Some(Chunk::Data(bytes)));
                    }
                }
                Ok(Ok(None)) => return self.failed(self.broken("the registry closed the connection early")).map(Some),
                Ok(Err(err)) => return self.failed(self.broken(&format!("the connection broke: {err}"))).map(Some),
                Err(_) => return self.failed(self.broken(&format!("no byte for {:?}", self.limits.stall_timeout))).map(Some),
            }
        }
    }

    /// Counts bytes in, drops those already given.
    fn accept(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>> {
        let dropped = self.skip.min(bytes.len() as u64);
        self.skip -= dropped;
        bytes = bytes.split_off(usize::try_from(dropped).unwrap_or(bytes.len()));
        if bytes.is_empty() {
            return Ok(None);
        }
        if self.offset + bytes.len() as u64 > self.blob.size {
            return Err(self.lies(&format!("is longer than the {} bytes that its manifest says", self.blob.size)));
        }
        self.offset += bytes.len() as u64;
        self.failures = 0;
        Ok(Some(bytes))
    }

    /// Decides what a failure means: another attempt, another endpoint, or the end.
    fn failed(&mut self, err: Error) -> Result<Chunk> {
        self.body = None;
        self.failures += 1;
        self.failures_in_all += 1;
        let passing = matches!(err.kind(), ErrorKind::Unavailable | ErrorKind::ResourceExhausted);
        if passing && self.failures < self.limits.attempts && self.failures_in_all < ATTEMPTS_MAX {
            tracing::debug!(blob = %self.blob.digest, error = %err, "blob interrupted");
            let pause = self.limits.pause(self.failures);
            self.pause = Some(pause);
            return Ok(Chunk::Retrying(seconds(pause)));
        }
        if self.current + 1 < self.sessions.len() && !self.sessions[self.current + 1].endpoint.is_plain_fallback {
            self.current += 1;
            self.failures = 0;
            return Ok(Chunk::Retrying(0));
        }
        Err(err)
    }

    async fn open(&mut self) -> Result<Response> {
        self.settle().await?;
        let session = Arc::clone(&self.sessions[self.current]);
        let url = session.url(&format!("blobs/{}", self.blob.digest))?;
        let mut headers = HeaderMap::new();
        if self.offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.offset)).expect("digits are valid in a header");
            headers.insert(RANGE, range);
        }
        let answer = session.send(&Method::GET, &url, &headers, 1).await?;
        match answer.response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => self.begin(answer),
            _ => Err(session.refusal(&Method::GET, &url, answer).await),
        }
    }

    /// Moves to the first endpoint that answers.
    async fn settle(&mut self) -> Result<()> {
        loop {
            match self.sessions[self.current].ready().await {
                Ok(()) => return Ok(()),
                Err(_) if self.current + 1 < self.sessions.len() => self.current += 1,
                Err(err) => return Err(err),
            }
        }
    }

    /// Checks what the head of the answer says against what was asked for.
    fn begin(&mut self, answer: Answer) -> Result<Response> {
        let response = answer.response;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        self.skip = if partial { 0 } else { self.offset };
        if partial {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {}-", self.offset)) {
                return Err(self.lies(&format!("came as range {range:?} when bytes from {} on were asked for", self.offset)));
            }
        }
        let expected = self.blob.size - (self.offset - self.skip);
        match response.content_length() {
            Some(length) if length != expected => Err(self.lies(&format!("has {length} bytes where its manifest says {expected}"))),
            _ => Ok(response),
        }
    }

    fn broken(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("fetch {}: {why} after {} of {} bytes", self.blob.digest, self.offset, self.blob.size))
    }

    fn lies(&self, why: &str) -> Error {
        Error::new(ErrorKind::DataLoss, format!("blob {} from the registry {why}", self.blob.digest))
    }
}
