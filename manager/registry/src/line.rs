//! One stretch of a blob over one connection at a time: each new attempt goes on where the last one stopped.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rcontainerd_types::{Descriptor, Error, ErrorKind, Result};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use crate::blob::Chunk;
use crate::config::Limits;
use crate::http::{Answer, RETRY_AFTER_MAX, Session, retry_after};
use crate::repository::seconds;

/// Attempts in all, however much each brings.
const ATTEMPTS_MAX: u32 = 100;

/// What all lines of one blob share.
#[derive(Clone)]
pub(crate) struct Source {
    pub sessions: Vec<Arc<Session>>,
    pub blob: Descriptor,
    pub limits: Limits,
}

/// Bytes `next..end` of a blob.
pub(crate) struct Line {
    source: Source,
    /// Index of the session in use.
    current: usize,
    next: u64,
    end: u64,
    /// Whether a server that does not know ranges will do: then the bytes before are dropped.
    must_range: bool,
    /// Bytes to drop because the server does not know ranges.
    skip: u64,
    body: Option<Response>,
    pause: Option<Duration>,
    /// Failures since the last byte, and in all.
    failures: u32,
    failures_in_all: u32,
}

/// No body came.
struct Refused {
    error: Error,
    /// What the registry asks for before the next attempt.
    pause: Option<Duration>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, pause: None }
    }
}

impl Line {
    /// From `range.start` on; a server that sends the whole blob will do.
    pub(crate) fn new(source: Source, range: Range<u64>) -> Self {
        Self {
            source,
            current: 0,
            next: range.start,
            end: range.end,
            must_range: false,
            skip: 0,
            body: None,
            pause: None,
            failures: 0,
            failures_in_all: 0,
        }
    }

    /// Just that range, by the session that serves the others; `Unsupported` where the server does not know ranges.
    pub(crate) fn part(source: Source, range: Range<u64>, session: usize) -> Self {
        Self { must_range: true, current: session, ..Self::new(source, range) }
    }

    pub(crate) fn next_offset(&self) -> u64 {
        self.next
    }

    pub(crate) fn session(&self) -> usize {
        self.current
    }

    /// Leaves what comes after `end` to others.
    pub(crate) fn shorten(&mut self, end: u64) {
        self.end = end.clamp(self.next, self.end);
    }

    /// The next bytes, `None` after the last. Dropping the future loses the attempt, not the place.
    ///
    /// # Errors
    /// `DataLoss` when the registry has another size than the manifest says; else as the last attempt failed.
    pub(crate) async fn read(&mut self) -> Result<Option<Chunk>> {
        loop {
            if self.next == self.end {
                // What the server would still send is not ours any more.
                self.body = None;
                return Ok(None);
            }
            let Some(body) = &mut self.body else {
                if let Some(pause) = self.pause.take() {
                    tokio::time::sleep(pause).await;
                }
                match self.open().await {
                    Ok(response) => self.body = Some(response),
                    Err(refused) => return self.failed(refused).map(Some),
                }
                continue;
            };
            let stall = self.source.limits.stall_timeout;
            match tokio::time::timeout(stall, body.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    if let Some(bytes) = self.accept(bytes)? {
                        return Ok(Some(Chunk::Data(bytes)));
                    }
                }
                Ok(Ok(None)) => return self.broken("the registry closed the connection early"),
                Ok(Err(err)) => return self.broken(&format!("the connection broke: {err}")),
                Err(_) => return self.broken(&format!("no byte for {stall:?}")),
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
        let left = self.end - self.next;
        if bytes.len() as u64 > left {
            let size = self.source.blob.size;
            if self.end == size {
                return Err(self.lies(&format!("is longer than the {size} bytes that its manifest says")));
            }
            // The rest is somebody else's by now.
            bytes.truncate(usize::try_from(left).unwrap_or(bytes.len()));
        }
        self.next += bytes.len() as u64;
        self.failures = 0;
        Ok(Some(bytes))
    }

    fn broken(&mut self, why: &str) -> Result<Option<Chunk>> {
        let (blob, next) = (&self.source.blob, self.next);
        let told = format!("fetch {}: {why} after {next} of {} bytes", blob.digest, blob.size);
        self.failed(Error::new(ErrorKind::Unavailable, told).into()).map(Some)
    }

    /// Decides what a failure means: another attempt, another endpoint, or the end.
    fn failed(&mut self, refused: Refused) -> Result<Chunk> {
        self.body = None;
        self.failures += 1;
        self.failures_in_all += 1;
        let limits = &self.source.limits;
        let passing = matches!(refused.error.kind(), ErrorKind::Unavailable | ErrorKind::ResourceExhausted);
        let in_time = refused.pause.is_none_or(|pause| pause <= RETRY_AFTER_MAX);
        if passing && in_time && self.failures < limits.attempts && self.failures_in_all < ATTEMPTS_MAX {
            tracing::debug!(blob = %self.source.blob.digest, error = %refused.error, "blob interrupted");
            let pause = refused.pause.unwrap_or_else(|| limits.pause(self.failures));
            self.pause = Some(pause);
            return Ok(Chunk::Retrying(seconds(pause)));
        }
        let sessions = &self.source.sessions;
        if self.current + 1 < sessions.len() && !sessions[self.current + 1].endpoint.is_plain_fallback {
            self.current += 1;
            self.failures = 0;
            return Ok(Chunk::Retrying(0));
        }
        Err(refused.error)
    }

    async fn open(&mut self) -> Result<Response, Refused> {
        self.settle().await?;
        let session = Arc::clone(&self.source.sessions[self.current]);
        let url = session.url(&format!("blobs/{}", self.source.blob.digest))?;
        let mut headers = HeaderMap::new();
        let is_whole = self.next == 0 && self.end == self.source.blob.size;
        if !is_whole {
            let last = if self.must_range { (self.end - 1).to_string() } else { String::new() };
            let range = HeaderValue::from_str(&format!("bytes={}-{last}", self.next)).expect("digits are valid in a header");
            headers.insert(RANGE, range);
        }
        let answer = session.send(&Method::GET, &url, &headers, 1).await?;
        match answer.response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => self.begin(answer).map_err(Refused::from),
            _ => {
                let pause = retry_after(&answer.response);
                Err(Refused { error: session.refusal(&Method::GET, &url, answer).await, pause })
            }
        }
    }

    /// Moves to the first endpoint that answers.
    async fn settle(&mut self) -> Result<()> {
        loop {
            let session = &self.source.sessions[self.current];
            let is_last = self.current + 1 >= self.source.sessions.len();
            if !session.endpoint.can.pull && !is_last {
                self.current += 1;
                continue;
            }
            match session.ready().await {
                Ok(()) => return Ok(()),
                Err(_) if !is_last => self.current += 1,
                Err(err) => return Err(err),
            }
        }
    }

    /// Checks what the head of the answer says against what was asked for.
    fn begin(&mut self, answer: Answer) -> Result<Response> {
        let response = answer.response;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        if self.must_range && !partial {
            return Err(Error::unsupported(format!("fetch {}: the registry does not know ranges", self.source.blob.digest)));
        }
        self.skip = if partial { 0 } else { self.next };
        if partial {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {}-", self.next)) {
                return Err(self.lies(&format!("came as range {range:?} when bytes from {} on were asked for", self.next)));
            }
        }
        let last = if self.must_range { self.end } else { self.source.blob.size };
        let expected = last - (self.next - self.skip);
        match response.content_length() {
            Some(length) if length != expected => Err(self.lies(&format!("has {length} bytes where its manifest says {expected}"))),
            _ => Ok(response),
        }
    }

    fn lies(&self, why: &str) -> Error {
        Error::new(ErrorKind::DataLoss, format!("blob {} from the registry {why}", self.source.blob.digest))
    }
}
