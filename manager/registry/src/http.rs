//! Requests to one endpoint: authorisation, redirects, retries.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rcontainerd_types::{Error, ErrorKind, Reference, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::sync::{Mutex, OnceCell};

use crate::auth::Credentials;
use crate::challenge::{self, Challenge};
use crate::config::{Limits, Proxies, RegistryConfig};
use crate::endpoint::Endpoint;
use crate::error;
use crate::proxy;
use crate::tls::{self, TlsFiles};
use crate::token::{Realm, Token};

const REDIRECTS_MAX: usize = 5;
/// Longest pause that a registry's `Retry-After` may ask for; when it asks for more, its answer is told instead.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
const ERROR_BODY_MAX: usize = 64 << 10;
const USER_AGENT: &str = concat!("rcontainerd/", env!("CARGO_PKG_VERSION"));

/// What is to be done with a repository: what a token must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Pull,
    Push,
    /// Nothing but to see whether the credentials are taken.
    Login,
    /// To look for repositories.
    Search,
}

/// One repository at one endpoint, for the length of one pull or push.
pub(crate) struct Session {
    pub endpoint: Endpoint,
    reference: Reference,
    purpose: Purpose,
    credentials: Credentials,
    limits: Limits,
    client: Client,
    /// For hosts that the registry sends us to: they see neither its client certificate nor its headers.
    elsewhere: std::sync::OnceLock<Client>,
    proxies: Option<Proxies>,
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
    pub(crate) fn new(
        config: &RegistryConfig,
        endpoint: Endpoint,
        reference: &Reference,
        credentials: &Credentials,
        purpose: Purpose,
    ) -> Result<Self> {
        let mut limits = config.limits;
        limits.connect_timeout = endpoint.connect_timeout.unwrap_or(limits.connect_timeout);
        let proxies = config.proxies.clone();
        let client = http_client(&endpoint.tls, &endpoint.base, &limits, proxies.as_ref())?;
        let credentials = if endpoint.is_registry { credentials.clone() } else { Credentials::Anonymous };
        let reference = reference.clone();
        let (ready, shown, elsewhere) = (OnceCell::new(), Mutex::new(None), std::sync::OnceLock::new());
        Ok(Self { endpoint, reference, purpose, credentials, limits, client, elsewhere, proxies, ready, shown })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Asks `/v2/` once: finds out whether it answers and what it wants to see.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.ready.get_or_try_init(|| self.ping()).await.copied()
    }

    async fn ping(&self) -> Result<()> {
        let url = self.endpoint.base.clone();
        let mut failures = 0;
        loop {
            let failure = match self.follow(&Method::GET, &url, &HeaderMap::new(), None, None).await {
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
        let mut url = self.endpoint.base.join(&joined).map_err(|err| Error::invalid(format!("repository path {joined:?}: {err}")))?;
        if let Some(namespace) = &self.endpoint.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    /// Sends, answers a challenge, follows redirects, tries again (`attempts` times in all) what may pass; any final answer is `Ok`.
    pub(crate) async fn send(&self, method: &Method, url: &Url, headers: &HeaderMap, attempts: u32) -> Result<Answer> {
        self.send_body(method, url, headers, None, attempts).await
    }

    /// As [`Self::send`], with a body, which each attempt sends whole.
    pub(crate) async fn send_body(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<Bytes>,
        attempts: u32,
    ) -> Result<Answer> {
        let mut failures = 0;
        let mut challenged = false;
        loop {
            let authorization = self.authorization().await?;
            let pause = match self.follow(method, url, headers, authorization.as_ref(), body.clone()).await {
                Ok(answer) if answer.own && answer.response.status() == StatusCode::UNAUTHORIZED && !challenged => {
                    challenged = true;
                    self.answer_challenge(&answer, authorization.as_ref()).await?;
                    continue;
                }
                Ok(answer) if !is_passing(answer.response.status()) || failures + 1 >= attempts => return Ok(answer),
                Ok(answer) => match retry_after(&answer.response) {
                    Some(pause) if pause > RETRY_AFTER_MAX => return Ok(answer),
                    pause => pause,
                },
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
        let later = retry_after(&answer.response);
        // What a redirect's target says is not shown: it may be a host that the registry should not be able to read through us.
        let body = if answer.own { read_limited(answer.response, ERROR_BODY_MAX).await.unwrap_or_default() } else { Vec::new() };
        let refused = error::refused(&self.reference, method, url, status, &body);
        match later {
            Some(pause) if refused.kind() == ErrorKind::ResourceExhausted => {
                Error::new(refused.kind(), format!("{} (try again in {} s)", refused.message(), pause.as_secs()))
            }
            _ => refused,
        }
    }

    async fn follow(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
        body: Option<Bytes>,
    ) -> Result<Answer, Failure> {
        let mut url = url.clone();
        // Credentials are the registry's alone, wherever it lets a blob be uploaded to.
        let mut own = url.origin() == self.endpoint.base.origin();
        for _ in 0..=REDIRECTS_MAX {
            let client =
                if is_same_server(&url, &self.endpoint.base) { &self.client } else { self.elsewhere(&url).map_err(Failure::fatal)? };
            let mut all = headers.clone();
            if own {
                all.extend(self.endpoint.headers.clone());
            }
            if let Some(value) = authorization.filter(|_| own) {
                all.insert(AUTHORIZATION, value.clone());
            }
            let mut request = client.request(method.clone(), url.clone()).headers(all);
            if let Some(body) = body.clone() {
                request = request.body(body);
            }
            let response = match tokio::time::timeout(self.limits.answer_timeout, request.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(err)) => {
                    let proxy = proxy::of_url(self.proxies.as_ref(), &url);
                    return Err(Failure { is_connect: err.is_connect(), error: error::transport_by(proxy.as_deref(), method, &url, &err) });
                }
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

    /// The client for other hosts than the endpoint's own.
    fn elsewhere(&self, url: &Url) -> Result<&Client> {
        if let Some(client) = self.elsewhere.get() {
            return Ok(client);
        }
        // For https always: where a plain http endpoint sends us may speak TLS.
        let files = TlsFiles { client: None, ..self.endpoint.tls.clone() };
        let client = with_tls(tls::client_config(&files)?, url, &self.limits, self.proxies.as_ref())?;
        Ok(self.elsewhere.get_or_init(|| client))
    }

    /// The header to show, with a token that is about to expire renewed first.
    async fn authorization(&self) -> Result<Option<HeaderValue>> {
        let mut shown = self.shown.lock().await;
        if let Some(Shown::Bearer { realm, token }) = &mut *shown
            && Instant::now() >= token.renew_at
        {
            *token = self.token(realm).await?;
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
        let realm = Realm::from_challenge(challenge, &self.endpoint.base, self.scopes())?;
        let token = self.token(&realm).await?;
        Ok(Shown::Bearer { realm, token })
    }

    fn scopes(&self) -> Vec<String> {
        let repository = self.reference.path();
        match self.purpose {
            Purpose::Pull => vec![format!("repository:{repository}:pull")],
            Purpose::Push => vec![format!("repository:{repository}:pull,push")],
            Purpose::Login => Vec::new(),
            Purpose::Search => vec!["registry:catalog:search".to_owned()],
        }
    }

    /// A token for the realm's scopes; a service that is busy is asked again.
    async fn token(&self, realm: &Realm) -> Result<Token> {
        let client = self.token_client(&realm.url)?;
        let mut failures = 0;
        loop {
            match realm.fetch(&client, &self.credentials).await {
                Err(err)
                    if matches!(err.kind(), ErrorKind::Unavailable | ErrorKind::ResourceExhausted)
                        && failures + 1 < self.limits.attempts =>
                {
                    failures += 1;
                    tracing::debug!(realm = %realm.url, error = %err, "token service asked again");
                    tokio::time::sleep(self.limits.pause(failures)).await;
                }
                fetched => return fetched,
            }
        }
    }

    /// Asks for a token that also allows to read `repository`, where tokens are what the registry wants. A service that refuses that
    /// changes nothing: the token at hand is kept.
    pub(crate) async fn widen(&self, repository: &str) {
        let mut shown = self.shown.lock().await;
        let Some(Shown::Bearer { realm, .. }) = &*shown else { return };
        let scope = format!("repository:{repository}:pull");
        if realm.scopes.contains(&scope) {
            return;
        }
        let mut wider = realm.clone();
        wider.scopes.push(scope);
        match self.token(&wider).await {
            Ok(token) => *shown = Some(Shown::Bearer { realm: wider, token }),
            Err(err) => tracing::debug!(repository, error = %err, "no token to mount from there"),
        }
    }

    /// The refresh token that came with the first one, if the service gave any.
    pub(crate) async fn refresh_token(&self) -> Option<String> {
        match &*self.shown.lock().await {
            Some(Shown::Bearer { token, .. }) => token.refresh.clone(),
            _ => None,
        }
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
        let files = TlsFiles { unverified: false, client: None, ..self.endpoint.tls.clone() };
        http_client(&files, realm, &self.limits, self.proxies.as_ref())
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
    /// Another attempt is of no use.
    is_connect: bool,
    error: Error,
}

impl Failure {
    fn fatal(error: Error) -> Self {
        Self { is_connect: true, error }
    }

    fn new(message: String) -> Self {
        Self { is_connect: false, error: Error::new(ErrorKind::Unavailable, message) }
    }
}

/// Whether what is known of one (trust, a certificate to show) holds for the other.
fn is_same_server(url: &Url, endpoint: &Url) -> bool {
    url.host_str() == endpoint.host_str() && url.scheme() == endpoint.scheme()
}

fn http_client(files: &TlsFiles, url: &Url, limits: &Limits, proxies: Option<&Proxies>) -> Result<Client> {
    let tls = if url.scheme() == "https" { tls::client_config(files)? } else { tls::unused_config()? };
    with_tls(tls, url, limits, proxies)
}

fn with_tls(tls: rustls::ClientConfig, url: &Url, limits: &Limits, proxies: Option<&Proxies>) -> Result<Client> {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits.connect_timeout)
        .pool_idle_timeout(Duration::from_secs(15))
        .http1_only()
        .user_agent(USER_AGENT);
    let builder = proxy::apply(builder, proxies, url)?;
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

/// What the registry's `Retry-After` asks for: seconds, or a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    pause_until(response.headers().get(RETRY_AFTER)?.to_str().ok()?, jiff::Timestamp::now())
}

fn pause_until(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_notations() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("date");
        assert_eq!(pause_until("7", now), Some(Duration::from_secs(7)));
        assert_eq!(pause_until("Thu, 01 Jan 2026 00:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(pause_until("Wed, 31 Dec 2025 00:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(pause_until("soon", now), None);
    }
}
