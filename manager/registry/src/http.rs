//! Requests to one endpoint: authorisation, redirects, retries.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rcontainerd_types::{Error, ErrorKind, Reference, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::sync::{Mutex, OnceCell};

use crate::auth::Credentials;
use crate::challenge::{self, Challenge};
use crate::config::{Limits, RegistryConfig};
use crate::endpoint::Endpoint;
use crate::error;
use crate::tls::{self, TlsFiles};
use crate::token::{Realm, Token};

const REDIRECTS_MAX: usize = 5;
/// Longest pause that a registry's `Retry-After` may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
const ERROR_BODY_MAX: usize = 64 << 10;
const USER_AGENT: &str = concat!("rcontainerd/", env!("CARGO_PKG_VERSION"));

/// One repository at one endpoint, for the length of one pull.
pub(crate) struct Session {
    pub endpoint: Endpoint,
    reference: Reference,
    credentials: Credentials,
    limits: Limits,
    client: Client,
    ready: OnceCell<()>,
    shown: Mutex<Option<Shown>>,
}

/// What is put into `Authorization`.
#[derive(Clone)]
enum Shown {
    Fixed(HeaderValue),
    Bearer { realm: Realm, token: Token },
}

/// An answer, and whether it came from the endpoint itself (not from where it redirected to).
pub(crate) struct Answer {
    pub response: Response,
    pub own: bool,
}

impl Session {
    pub(crate) fn new(config: &RegistryConfig, endpoint: Endpoint, reference: &Reference, credentials: &Credentials) -> Result<Self> {
        let client = http_client(&endpoint.tls, &endpoint.base, &config.limits)?;
        let credentials = if endpoint.is_registry { credentials.clone() } else { Credentials::Anonymous };
        let reference = reference.clone();
        let limits = config.limits;
        Ok(Self { endpoint, reference, credentials, limits, client, ready: OnceCell::new(), shown: Mutex::new(None) })
    }

    /// Asks `/v2/` once: finds out whether it answers and what it wants to see.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.ready.get_or_try_init(|| self.ping()).await.copied()
    }

    async fn ping(&self) -> Result<()> {
        let url = self.endpoint.base.clone();
        let mut failures = 0;
        loop {
            let failure = match self.follow(&Method::GET, &url, &HeaderMap::new(), None).await {
                Ok(answer) if answer.response.status() == StatusCode::UNAUTHORIZED => return self.answer_challenge(&answer, None).await,
                Ok(answer) if !is_passing(answer.response.status()) => return Ok(()),
                Ok(answer) => self.refusal(&Method::GET, &url, answer).await,
                Err(failure) if failure.is_connect => return Err(failure.error),
                Err(failure) => failure.error,
            };
            failures += 1;
            if failures >= self.limits.attempts {
                return Err(failure);
            }
            tokio::time::sleep(self.limits.pause(failures)).await;
        }
    }

    /// `repository path` below the endpoint, such as `manifests/latest`.
    pub(crate) fn url(&self, path: &str) -> Result<Url> {
        let joined = format!("{}/{path}", self.reference.path());
        self.endpoint.base.join(&joined).map_err(|err| Error::invalid(format!("repository path {joined:?}: {err}")))
    }

    /// Sends, answers a challenge, follows redirects, tries again (`attempts` times in all) what may pass; any final answer is `Ok`.
    pub(crate) async fn send(&self, method: &Method, url: &Url, headers: &HeaderMap, attempts: u32) -> Result<Answer> {
        let mut failures = 0;
        let mut challenged = false;
        loop {
            let authorization = self.authorization().await?;
            let pause = match self.follow(method, url, headers, authorization.as_ref()).await {
                Ok(answer) if answer.own && answer.response.status() == StatusCode::UNAUTHORIZED && !challenged => {
                    challenged = true;
                    self.answer_challenge(&answer, authorization.as_ref()).await?;
                    continue;
                }
                Ok(answer) if !is_passing(answer.response.status()) || failures + 1 >= attempts => return Ok(answer),
                Ok(answer) => retry_after(&answer.response),
                Err(failure) if failure.is_connect || failures + 1 >= attempts => return Err(failure.error),
                Err(_) => None,
            };
            failures += 1;
            tokio::time::sleep(pause.unwrap_or_else(|| self.limits.pause(failures))).await;
        }
    }

    /// The error that a negative answer stands for.
    pub(crate) async fn refusal(&self, method: &Method, url: &Url, answer: Answer) -> Error {
        let status = answer.response.status();
        // What a redirect's target says is not shown: it may be a host that the registry should not be able to read through us.
        let body = if answer.own { read_limited(answer.response, ERROR_BODY_MAX).await.unwrap_or_default() } else { Vec::new() };
        error::refused(&self.reference, method, url, status, &body)
    }

    async fn follow(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Failure> {
        let mut url = url.clone();
        let mut own = true;
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.client.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(value) = authorization.filter(|_| own) {
                request = request.header(AUTHORIZATION, value);
            }
            let response = match tokio::time::timeout(self.limits.answer_timeout, request.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(err)) => return Err(Failure { is_connect: err.is_connect(), error: error::transport(method, &url, &err) }),
                Err(_) => return Err(Failure::new(format!("{}: no answer in time", error::request(method, &url)))),
            };
            if !is_redirect(response.status()) {
                return Ok(Answer { response, own });
            }
            url = redirect_target(method, &url, &response)?;
            own &= url.origin() == self.endpoint.base.origin();
        }
        Err(Failure::new(format!("{}: more than {REDIRECTS_MAX} redirects", error::request(method, &url))))
    }

    /// The header to show, with a token that is about to expire renewed first.
    async fn authorization(&self) -> Result<Option<HeaderValue>> {
        let mut shown = self.shown.lock().await;
        if let Some(Shown::Bearer { realm, token }) = &mut *shown
            && Instant::now() >= token.renew_at
        {
            *token = realm.fetch(&self.token_client(&realm.url)?, &self.credentials).await?;
        }
        shown.as_ref().map(Shown::header).transpose()
    }

    /// Makes ready what the endpoint asks for; `refused` is what it has just not accepted.
    async fn answer_challenge(&self, answer: &Answer, refused: Option<&HeaderValue>) -> Result<()> {
        let mut shown = self.shown.lock().await;
        if let Some(current) = &*shown
            && refused.is_none_or(|refused| current.header().is_ok_and(|header| header != refused))
        {
            return Ok(());
        }
        let headers = answer.response.headers().get_all(WWW_AUTHENTICATE);
        let challenges = challenge::parse_all(headers.iter().filter_map(|value| value.to_str().ok()));
        let find = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        *shown = match (find("bearer"), find("basic")) {
            (Some(bearer), _) => Some(self.bearer(bearer).await?),
            (None, Some(_)) => Some(self.basic(answer.response.url())?),
            (None, None) => None,
        };
        Ok(())
    }

    async fn bearer(&self, challenge: &Challenge) -> Result<Shown> {
        if let Credentials::RegistryToken(token) = &self.credentials {
            return Ok(Shown::Fixed(secret_header(&format!("Bearer {token}"))?));
        }
        let realm = Realm::from_challenge(challenge, &self.endpoint.base, self.reference.path())?;
        let token = realm.fetch(&self.token_client(&realm.url)?, &self.credentials).await?;
        Ok(Shown::Bearer { realm, token })
    }

    fn basic(&self, url: &Url) -> Result<Shown> {
        use base64::Engine as _;
        match &self.credentials {
            Credentials::Basic { username, password } => {
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
                Ok(Shown::Fixed(secret_header(&format!("Basic {pair}"))?))
            }
            _ => {
                let told = format!("{}: no basic auth credentials", error::request(&Method::GET, url));
                Err(Error::new(ErrorKind::Unauthenticated, told))
            }
        }
    }

    /// A token service on another host is verified even where the registry itself need not be.
    fn token_client(&self, realm: &Url) -> Result<Client> {
        if realm.host_str() == self.endpoint.base.host_str() {
            return Ok(self.client.clone());
        }
        http_client(&TlsFiles { unverified: false, client: None, ..self.endpoint.tls.clone() }, realm, &self.limits)
    }
}

impl Shown {
    fn header(&self) -> Result<HeaderValue> {
        match self {
            Self::Fixed(header) => Ok(header.clone()),
            Self::Bearer { token, .. } => secret_header(&format!("Bearer {}", token.secret)),
        }
    }
}

/// No final answer came.
pub(crate) struct Failure {
    is_connect: bool,
    error: Error,
}

impl Failure {
    fn new(message: String) -> Self {
        Self { is_connect: false, error: Error::new(ErrorKind::Unavailable, message) }
    }
}

fn http_client(files: &TlsFiles, url: &Url, limits: &Limits) -> Result<Client> {
    let tls = if url.scheme() == "https" { tls::client_config(files)? } else { tls::unused_config()? };
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits.connect_timeout)
        .pool_idle_timeout(Duration::from_secs(15))
        .http1_only()
        .user_agent(USER_AGENT);
    if url.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]") {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|err| Error::internal(format!("set up the http client: {err}")))
}

fn secret_header(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| Error::invalid("credentials contain characters that no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Worth another try.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    )
}

fn redirect_target(method: &Method, from: &Url, response: &Response) -> Result<Url, Failure> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bad = |why: &str| Failure::new(format!("{}: redirect {why}", error::request(method, from)));
    let target = from.join(location).map_err(|_| bad("to what is no URL"))?;
    match (from.scheme(), target.scheme()) {
        ("https", "http") => Err(bad("from https to plain http refused")),
        (_, "http" | "https") => Ok(target),
        _ => Err(bad("to something else than http refused")),
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The body, if it is no longer than `max` bytes.
pub(crate) async fn read_limited(mut response: Response, max: usize) -> Result<Vec<u8>> {
    let too_long = || Error::invalid(format!("the answer is longer than {max} bytes"));
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    while let Some(chunk) = next_chunk(&mut response).await? {
        if body.len() + chunk.len() > max {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn next_chunk(response: &mut Response) -> Result<Option<Bytes>> {
    let url = response.url().clone();
    response.chunk().await.map_err(|err| error::transport(&Method::GET, &url, &err))
}
