//! One repository, over all the endpoints that may serve it.

use std::sync::Arc;
use std::time::Duration;

use rcontainerd_types::{Descriptor, Digest, Error, ErrorKind, Reference, Result, media_type};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LINK};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;

use crate::auth::Credentials;
use crate::blob::BlobStream;
use crate::config::RegistryConfig;
use crate::endpoint;
use crate::error;
use crate::http::{Purpose, Session, read_limited};
use crate::manifest::{self, Document, MANIFEST_MAX};

const DIGEST_HEADER: &str = "docker-content-digest";
const TAG_PAGE_MAX: usize = 4 << 20;
/// Most tags that we list of one repository.
const TAGS_MAX: usize = 100_000;

/// Most referrers that we list of one manifest.
const REFERRERS_MAX: usize = 10_000;

/// The client; cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    config: Arc<RegistryConfig>,
}

impl Registry {
    pub fn new(config: RegistryConfig) -> Self {
        Self { config: Arc::new(config) }
    }

    /// Prepares to speak about the repository of `reference`; nothing is sent yet.
    ///
    /// # Errors
    /// When the files that describe the host are malformed.
    pub fn repository(&self, reference: &Reference, credentials: &Credentials) -> Result<Repository> {
        let sessions = self.sessions(reference, credentials, Purpose::Pull)?;
        Ok(Repository { config: Arc::clone(&self.config), reference: reference.clone(), sessions })
    }

    pub(crate) fn sessions(&self, reference: &Reference, credentials: &Credentials, purpose: Purpose) -> Result<Vec<Arc<Session>>> {
        let endpoints = endpoint::endpoints(&self.config, reference.domain())?;
        let session = |endpoint| Session::new(&self.config, endpoint, reference, credentials, purpose).map(Arc::new);
        endpoints.into_iter().map(session).collect()
    }

    pub(crate) fn config(&self) -> &RegistryConfig {
        &self.config
    }

    pub(crate) fn limits(&self) -> crate::Limits {
        self.config.limits
    }
}

/// A repository during one pull: connections and tokens are kept as long as it lives.
#[derive(Clone)]
pub struct Repository {
    config: Arc<RegistryConfig>,
    reference: Reference,
    sessions: Vec<Arc<Session>>,
}

/// A manifest or an index as it came, its digest computed here.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
    pub document: Document,
}

impl Repository {
    /// What the registry says a tag stands for now, without fetching it; `None` where it does not tell. Not verified: good only to
    /// look for what is here already.
    ///
    /// # Errors
    /// When no endpoint answers.
    pub async fn peek(&self, tag: &str) -> Result<Option<Digest>> {
        let mut last = None;
        for session in self.sessions.iter().filter(|session| session.endpoint.can.resolve) {
            match session.ready().await {
                Ok(()) => return Self::peek_at(session, tag).await,
                Err(err) => last = Some(err),
            }
        }
        last.map_or_else(|| Err(self.nowhere()), Err)
    }

    async fn peek_at(session: &Session, tag: &str) -> Result<Option<Digest>> {
        let url = session.url(&format!("manifests/{tag}"))?;
        let answer = session.send(&Method::HEAD, &url, &accept_manifests(), 1).await?;
        if !answer.response.status().is_success() {
            return Ok(None);
        }
        Ok(content_digest(&answer.response))
    }

    /// Fetches the manifest or index under a tag.
    ///
    /// # Errors
    /// `NotFound` in Docker's words; `DataLoss` when it is not what the registry's digest says; those of `manifest::parse`.
    pub async fn manifest_by_tag(&self, tag: &str) -> Result<Fetched> {
        self.fetch_manifest(tag, None, None).await
    }

    /// Fetches the manifest or index with that digest; `expected` (from an index) must hold too.
    ///
    /// # Errors
    /// As `manifest_by_tag`.
    pub async fn manifest_by_digest(&self, digest: &Digest, expected: Option<&Descriptor>) -> Result<Fetched> {
        self.fetch_manifest(&digest.to_string(), Some(digest), expected).await
    }

    async fn fetch_manifest(&self, target: &str, digest: Option<&Digest>, expected: Option<&Descriptor>) -> Result<Fetched> {
        let mut last = None;
        let mut registry_answered = false;
        for session in &self.sessions {
            let skipped = !may_serve(session, digest.is_none()) || (session.endpoint.is_plain_fallback && registry_answered);
            if skipped {
                continue;
            }
            if let Err(err) = session.ready().await {
                last = Some(err);
                continue;
            }
            registry_answered |= session.endpoint.is_registry;
            match Self::fetch_manifest_at(session, target, digest, expected, self.config.limits.attempts).await {
                Ok(fetched) => return Ok(fetched),
                Err(err) => {
                    tracing::debug!(endpoint = %session.endpoint.base, error = %err, "manifest not served");
                    last = Some(err);
                }
            }
        }
        last.map_or_else(|| Err(self.nowhere()), Err)
    }

    async fn fetch_manifest_at(
        session: &Session,
        target: &str,
        digest: Option<&Digest>,
        expected: Option<&Descriptor>,
        attempts: u32,
    ) -> Result<Fetched> {
        let url = session.url(&format!("manifests/{target}"))?;
        let answer = session.send(&Method::GET, &url, &accept_manifests(), attempts).await?;
        if !answer.response.status().is_success() {
            return Err(session.refusal(&Method::GET, &url, answer).await);
        }
        let told = content_digest(&answer.response);
        let sent_as = answer.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = read_limited(answer.response, MANIFEST_MAX).await.map_err(|err| err.context(format!("manifest {target}")))?;
        verified(target, &bytes, sent_as.as_deref(), digest.or(told.as_ref()), expected)
    }

    /// A stream of a blob's bytes from `offset` on. The bytes are counted, not hashed: who stores them does that.
    pub fn blob(&self, blob: &Descriptor, offset: u64) -> BlobStream {
        BlobStream::new(self.sessions.clone(), blob.clone(), offset, self.config.limits)
    }

    /// All tags, in order.
    ///
    /// # Errors
    /// `NotFound` when there is no such repository.
    pub async fn tags(&self) -> Result<Vec<String>> {
        let mut last = None;
        for session in self.sessions.iter().filter(|session| session.endpoint.can.resolve) {
            let listed = match session.ready().await {
                Ok(()) => self.tags_at(session).await,
                Err(err) => Err(err),
            };
            match listed {
                // Whether there is such a repository is the registry's to say, not a mirror's.
                Err(err) if !session.endpoint.is_registry => last = Some(err),
                Err(err) if err.kind() == ErrorKind::Unavailable => last = Some(err),
                other => return other,
            }
        }
        last.map_or_else(|| Err(self.nowhere()), Err)
    }

    async fn tags_at(&self, session: &Session) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut all = Vec::new();
        let mut next = Some(session.url("tags/list")?);
        while let Some(url) = next {
            let answer = session.send(&Method::GET, &url, &HeaderMap::new(), self.config.limits.attempts).await?;
            if !answer.response.status().is_success() {
                return Err(session.refusal(&Method::GET, &url, answer).await);
            }
            next = next_page(&url, &answer.response).filter(|next| next.origin() == url.origin() && *next != url);
            let bytes = read_limited(answer.response, TAG_PAGE_MAX).await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|err| {
                Error::new(ErrorKind::Unavailable, format!("{}: not a list of tags: {err}", error::request(&Method::GET, &url)))
            })?;
            all.extend(page.tags.unwrap_or_default());
            if all.len() > TAGS_MAX {
                return Err(Error::invalid(format!("{} has more than {TAGS_MAX} tags", self.reference.familiar_name())));
            }
        }
        all.sort();
        Ok(all)
    }

    /// What refers to the manifest `subject`: signatures, lists of parts, attestations (distribution spec 1.1, "Listing Referrers"), by
    /// the referrers API or, where that is not known, by the tag that stands for it.
    ///
    /// # Errors
    /// When no endpoint answers; that there are none is an empty list.
    pub async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut last = None;
        for session in self.sessions.iter().filter(|session| may_serve(session, false)) {
            let listed = match session.ready().await {
                Ok(()) => self.referrers_at(session, subject).await,
                Err(err) => Err(err),
            };
            match listed {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => return self.referrers_by_tag(subject).await,
                Err(err) => last = Some(err),
            }
        }
        last.map_or_else(|| Err(self.nowhere()), Err)
    }

    /// `None` where the API is not known.
    async fn referrers_at(&self, session: &Session, subject: &Digest) -> Result<Option<Vec<Descriptor>>> {
        let mut all = Vec::new();
        let mut next = Some(session.url(&format!("referrers/{subject}"))?);
        while let Some(url) = next {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX))]);
            let answer = session.send(&Method::GET, &url, &headers, self.config.limits.attempts).await?;
            match answer.response.status() {
                status if status.is_success() => {}
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(None),
                _ => return Err(session.refusal(&Method::GET, &url, answer).await),
            }
            next = next_page(&url, &answer.response).filter(|next| next.origin() == url.origin() && *next != url);
            let bytes = read_limited(answer.response, MANIFEST_MAX).await?;
            match manifest::parse(Some(media_type::OCI_INDEX), &bytes)? {
                (_, Document::Index(index)) => all.extend(index.manifests),
                _ => return Err(Error::invalid(format!("{}: not a list of referrers", error::request(&Method::GET, &url)))),
            }
            if all.len() > REFERRERS_MAX {
                return Err(Error::invalid(format!("{subject} has more than {REFERRERS_MAX} referrers")));
            }
        }
        Ok(Some(all))
    }

    /// `sha256-<hex>` is an index of them (distribution spec, "Referrers Tag Schema").
    async fn referrers_by_tag(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let tag = format!("{}-{}", subject.algorithm().as_str(), subject.hex());
        match self.manifest_by_tag(&tag).await {
            Ok(Fetched { document: Document::Index(index), .. }) => Ok(index.manifests),
            Ok(_) => Ok(Vec::new()),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(err) => Err(err),
        }
    }

    fn nowhere(&self) -> Error {
        Error::new(ErrorKind::Unavailable, format!("no endpoint of {} may resolve names (hosts.toml)", self.reference.domain()))
    }
}

/// Whether the endpoint may be asked for manifests, by tag or by digest.
fn may_serve(session: &Session, by_tag: bool) -> bool {
    if by_tag { session.endpoint.can.resolve } else { session.endpoint.can.pull || session.endpoint.can.resolve }
}

/// Checks digest, size and type of what came, then reads it.
fn verified(target: &str, bytes: &[u8], sent_as: Option<&str>, digest: Option<&Digest>, expected: Option<&Descriptor>) -> Result<Fetched> {
    let lies = |why: String| Error::new(ErrorKind::DataLoss, format!("manifest {target} from the registry {why}"));
    let computed = match digest {
        Some(digest) => {
            let mut hasher = digest.algorithm().hasher();
            hasher.update(bytes);
            hasher.finish()
        }
        None => Digest::sha256(bytes),
    };
    if let Some(digest) = digest.filter(|digest| **digest != computed) {
        return Err(lies(format!("has digest {computed}, not {digest}")));
    }
    if let Some(expected) = expected.filter(|expected| expected.size != bytes.len() as u64) {
        return Err(lies(format!("has {} bytes, not the {} that its index says", bytes.len(), expected.size)));
    }
    let sent_as = expected.map(|expected| expected.media_type.as_str()).or(sent_as);
    let (kind, document) = manifest::parse(sent_as, bytes)?;
    Ok(Fetched { descriptor: Descriptor::new(kind, computed, bytes.len() as u64), bytes: bytes.to_vec(), document })
}

fn accept_manifests() -> HeaderMap {
    let kinds = [media_type::OCI_INDEX, media_type::DOCKER_LIST, media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST];
    let mut headers = HeaderMap::new();
    for kind in kinds {
        headers.append(ACCEPT, HeaderValue::from_static(kind));
    }
    headers
}

pub(crate) fn content_digest(response: &Response) -> Option<Digest> {
    response.headers().get(DIGEST_HEADER)?.to_str().ok()?.parse().ok()
}

/// `Link: </v2/…?last=x>; rel="next"`
fn next_page(url: &Url, response: &Response) -> Option<Url> {
    let link = response.headers().get(LINK)?.to_str().ok()?;
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    if parameters.contains("next") { url.join(target).ok() } else { None }
}

/// How long until the caller should expect bytes again, in whole seconds for people.
pub(crate) fn seconds(pause: Duration) -> u64 {
    pause.as_secs_f64().ceil() as u64
}
