//! Pushing (distribution spec, "Pushing"): blobs in chunks, mounted from another repository where the registry can; manifests last. Always
//! to the registry itself, never to a mirror.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rcontainerd_types::{Descriptor, Digest, Error, ErrorKind, Reference, Result};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use crate::auth::Credentials;
use crate::error;
use crate::http::{Answer, Purpose, RETRY_AFTER_MAX, Session, retry_after};
use crate::repository::{Registry, content_digest};

/// Bytes in one request: registries cap what they take at once (GHCR at 4 MiB).
const CHUNK: usize = 4 << 20;

impl Registry {
    /// Connects to the registry of `reference` with leave to push.
    ///
    /// # Errors
    /// When no endpoint answers, or it refuses the credentials.
    pub async fn pusher(&self, reference: &Reference, credentials: &Credentials) -> Result<Pusher> {
        let session = self.reach(reference, credentials, Purpose::Push).await?;
        Ok(Pusher { session, attempts: self.limits().attempts })
    }

    /// Whether the registry takes the credentials (`docker login`); `reference` names any repository of it. Gives the identity token
    /// that is to be kept in the password's place, if the registry's token service offers one.
    ///
    /// # Errors
    /// `Unauthenticated` when it refuses them, `Unavailable` when it does not answer.
    pub async fn login(&self, reference: &Reference, credentials: &Credentials) -> Result<Option<String>> {
        let session = self.reach(reference, credentials, Purpose::Login).await?;
        let url = session.endpoint.base.clone();
        let answer = session.send(&Method::GET, &url, &HeaderMap::new(), 1).await?;
        match answer.response.status() {
            status if status.is_success() => Ok(session.refresh_token().await),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let told = format!("{}: unauthorized: incorrect username or password", error::request(&Method::GET, &url));
                Err(Error::new(ErrorKind::Unauthenticated, told))
            }
            _ => Err(session.refusal(&Method::GET, &url, answer).await),
        }
    }

    /// The first endpoint of the registry itself that answers.
    async fn reach(&self, reference: &Reference, credentials: &Credentials, purpose: Purpose) -> Result<Arc<Session>> {
        let mut last = None;
        for session in self
            .sessions(reference, credentials, purpose)?
            .into_iter()
            .filter(|session| session.endpoint.is_registry && (purpose == Purpose::Login || session.endpoint.can.push))
        {
            match session.ready().await {
                Ok(()) => return Ok(session),
                Err(err) => last = Some(err),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, format!("{} has no endpoint that takes pushes", reference.domain()))))
    }
}

/// A repository that is being pushed to.
#[derive(Clone)]
pub struct Pusher {
    session: Arc<Session>,
    attempts: u32,
}

impl Pusher {
    /// Whether the repository has the blob.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn has(&self, blob: &Digest) -> Result<bool> {
        let url = self.session.url(&format!("blobs/{blob}"))?;
        let answer = self.session.send(&Method::HEAD, &url, &HeaderMap::new(), self.attempts).await?;
        match answer.response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.session.refusal(&Method::HEAD, &url, answer).await),
        }
    }

    /// Makes a blob of another repository of the same registry one of this: `None` when that is done, else an upload to go on with.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub async fn mount(&self, blob: &Descriptor, from: &str) -> Result<Option<Upload>> {
        self.session.widen(from).await;
        let mut url = self.session.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", from);
        let answer = self.session.send_body(&Method::POST, &url, &HeaderMap::new(), Some(Bytes::new()), self.attempts).await?;
        match answer.response.status() {
            StatusCode::CREATED => Ok(None),
            // The token is for this repository alone, or the other one is not ours to read: the bytes are sent instead.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.upload(blob).await.map(Some),
            _ => self.begun(&url, answer, blob).await.map(Some),
        }
    }

    /// Begins to send a blob.
    ///
    /// # Errors
    /// When the registry refuses it or does not answer.
    pub async fn upload(&self, blob: &Descriptor) -> Result<Upload> {
        let url = self.session.url("blobs/uploads/")?;
        let answer = self.session.send_body(&Method::POST, &url, &HeaderMap::new(), Some(Bytes::new()), self.attempts).await?;
        self.begun(&url, answer, blob).await
    }

    async fn begun(&self, url: &Url, answer: Answer, blob: &Descriptor) -> Result<Upload> {
        if answer.response.status() != StatusCode::ACCEPTED {
            return Err(self.session.refusal(&Method::POST, url, answer).await);
        }
        let location = location(url, &answer)?;
        let (session, attempts) = (Arc::clone(&self.session), self.attempts);
        Ok(Upload { pusher: self.clone(), session, attempts, blob: blob.clone(), location, pending: Vec::new(), sent: 0 })
    }

    /// Puts a manifest or an index under a tag, or under its digest.
    ///
    /// # Errors
    /// What the registry has against it.
    pub async fn manifest(&self, target: &str, media_type: &str, bytes: Vec<u8>) -> Result<()> {
        let url = self.session.url(&format!("manifests/{target}"))?;
        let kind = HeaderValue::from_str(media_type).map_err(|_| Error::invalid(format!("media type {media_type:?}")))?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        let ours = Digest::sha256(&bytes);
        let answer = self.session.send_body(&Method::PUT, &url, &headers, Some(bytes.into()), self.attempts).await?;
        if !answer.response.status().is_success() {
            return Err(self.session.refusal(&Method::PUT, &url, answer).await);
        }
        match content_digest(&answer.response) {
            Some(theirs) if theirs.algorithm() == ours.algorithm() && theirs != ours => Err(Error::new(
                ErrorKind::DataLoss,
                format!("{}: the registry took {theirs} for {ours}", error::request(&Method::PUT, &url)),
            )),
            _ => Ok(()),
        }
    }
}

/// A blob on its way to the registry, in chunks that are kept until they have arrived: a broken line goes on where the registry says.
pub struct Upload {
    pusher: Pusher,
    session: Arc<Session>,
    attempts: u32,
    blob: Descriptor,
    location: Url,
    pending: Vec<u8>,
    sent: u64,
}

impl Upload {
    /// Takes the next bytes; sends what fills a chunk.
    ///
    /// # Errors
    /// When the registry refuses a chunk or does not answer. `Unavailable` and `NotFound` (it has forgotten what it had) are mended by
    /// another upload from the beginning.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let length = bytes.len().min(CHUNK - self.pending.len());
            self.pending.extend_from_slice(&bytes[..length]);
            bytes = &bytes[length..];
            if self.pending.len() == CHUNK {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Bytes that the registry has.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    async fn flush(&mut self) -> Result<()> {
        let mut chunk = Bytes::from(std::mem::take(&mut self.pending));
        let mut failures = 0;
        while !chunk.is_empty() {
            let failed = match self.patch(&chunk).await {
                Ok(taken) => {
                    self.sent += taken;
                    chunk = chunk.slice(usize::try_from(taken).unwrap_or(chunk.len())..);
                    continue;
                }
                Err(failed) => failed,
            };
            failures += 1;
            let pause = match failed {
                Interrupted { error, .. } if failures >= self.attempts => return Err(error),
                Interrupted { error, pause: None } => return Err(error),
                Interrupted { error, pause: Some(pause) } => {
                    tracing::debug!(blob = %self.blob.digest, %error, "upload interrupted");
                    pause.max(self.session.limits().pause(failures))
                }
            };
            tokio::time::sleep(pause).await;
            let has = self.status().await?;
            let Some(taken) = has.checked_sub(self.sent).filter(|taken| *taken <= chunk.len() as u64) else {
                let told = format!("push {}: the registry has {has} bytes of the upload, {} were sent", self.blob.digest, self.sent);
                return Err(Error::new(ErrorKind::Unavailable, told));
            };
            self.sent = has;
            chunk = chunk.slice(usize::try_from(taken).unwrap_or(chunk.len())..);
        }
        Ok(())
    }

    /// Sends a chunk once; gives how many of its bytes the registry took.
    async fn patch(&mut self, chunk: &Bytes) -> Result<u64, Interrupted> {
        let end = self.sent + chunk.len() as u64;
        let header = |text: String| HeaderValue::from_str(&text).expect("digits are plain ASCII");
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (CONTENT_RANGE, header(format!("{}-{}", self.sent, end - 1))),
            (CONTENT_LENGTH, header(chunk.len().to_string())),
        ]);
        let again = |error: Error| Interrupted { pause: (error.kind() == ErrorKind::Unavailable).then_some(Duration::ZERO), error };
        let answer = self.session.send_body(&Method::PATCH, &self.location, &headers, Some(chunk.clone()), 1).await.map_err(again)?;
        let status = answer.response.status();
        if status != StatusCode::ACCEPTED {
            // 416: it has another idea of where we are, and says which when asked.
            let is_passing = status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::RANGE_NOT_SATISFIABLE);
            let asked = retry_after(&answer.response).unwrap_or_default();
            let pause = (is_passing && asked <= RETRY_AFTER_MAX).then_some(asked);
            return Err(Interrupted { error: self.session.refusal(&Method::PATCH, &self.location, answer).await, pause });
        }
        let taken = received(&answer).filter(|has| (self.sent + 1..end).contains(has)).unwrap_or(end) - self.sent;
        self.location = location(&self.location, &answer).map_err(again)?;
        Ok(taken)
    }

    /// How many bytes the registry has (distribution spec, "Pushing a blob in chunks": GET of the upload's location).
    async fn status(&mut self) -> Result<u64> {
        let answer = self.session.send(&Method::GET, &self.location, &HeaderMap::new(), self.attempts).await?;
        if !answer.response.status().is_success() {
            return Err(self.session.refusal(&Method::GET, &self.location, answer).await);
        }
        let has = received(&answer).unwrap_or(0);
        if answer.response.headers().contains_key(LOCATION) {
            self.location = location(&self.location, &answer)?;
        }
        Ok(has)
    }

    /// Sends the rest; the registry checks the digest.
    ///
    /// # Errors
    /// `DataLoss` when fewer or more bytes were written than the blob has; as [`Self::write`].
    pub async fn finish(mut self) -> Result<()> {
        if self.sent + self.pending.len() as u64 != self.blob.size {
            let told = format!("blob {} has not the {} bytes that its descriptor says", self.blob.digest, self.blob.size);
            return Err(Error::new(ErrorKind::DataLoss, told));
        }
        if !self.pending.is_empty() {
            self.flush().await?;
        }
        let mut url = self.location.clone();
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
        let refused = match self.session.send_body(&Method::PUT, &url, &headers, Some(Bytes::new()), self.attempts).await {
            Ok(answer) if answer.response.status() == StatusCode::CREATED => return Ok(()),
            Ok(answer) => self.session.refusal(&Method::PUT, &url, answer).await,
            Err(err) => err,
        };
        // An answer that was lost is followed by a refusal: the upload is no more, but the blob is there.
        match self.pusher.has(&self.blob.digest).await {
            Ok(true) => Ok(()),
            _ => Err(refused),
        }
    }
}

/// A chunk did not arrive; with a pause, it is worth another try.
struct Interrupted {
    error: Error,
    pause: Option<Duration>,
}

/// `Range: 0-N`: the registry has N + 1 bytes. Some say `0-0` for none.
fn received(answer: &Answer) -> Option<u64> {
    let range = answer.response.headers().get(RANGE)?.to_str().ok()?;
    let (_, last) = range.trim_start_matches("bytes=").split_once('-')?;
    match last.trim().parse::<u64>().ok()? {
        0 => Some(0),
        last => Some(last + 1),
    }
}

/// Where an upload goes on.
fn location(url: &Url, answer: &Answer) -> Result<Url> {
    let bad = |why: &str| Error::new(ErrorKind::Unavailable, format!("{}: {why}", error::request(&Method::POST, url)));
    let text = answer.response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target = url.join(text.ok_or_else(|| bad("the registry does not say where to upload to"))?);
    let target = target.map_err(|_| bad("the registry names no URL to upload to"))?;
    match (url.scheme(), target.scheme()) {
        ("https", "http") => Err(bad("an upload from https to plain http refused")),
        (_, "http" | "https") => Ok(target),
        _ => Err(bad("an upload to something else than http refused")),
    }
}
