//! The Docker Engine API over a unix socket, TCP, TLS or ssh.

mod call;
pub mod endpoint;
mod error;
mod ssh;
mod tls;
mod transport;

use std::cell::{Cell, RefCell};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use crate::log;
pub use call::{Call, Hijacked, path_segment};
pub use endpoint::Endpoint;
pub use error::ApiError;
pub use transport::connect as dial;

/// The newest API version this client speaks; an older server's version is used when it says so.
pub const API_VERSION: Version = Version { major: 1, minor: 50 };

pub type Body = BoxBody<Bytes, std::io::Error>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One engine. A finished request's connection serves the next one.
pub struct Client {
    endpoint: Endpoint,
    idle: RefCell<Option<SendRequest<Body>>>,
    version: Cell<Option<Version>>,
}

impl Client {
    pub fn new(endpoint: Endpoint) -> Self {
        let fixed = std::env::var("DOCKER_API_VERSION").ok();
        let version = fixed.as_deref().and_then(|text| Version::parse(text.trim_start_matches('v')));
        Self { endpoint, idle: RefCell::new(None), version: Cell::new(version) }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub fn get(&self, path: impl Into<String>) -> Call<'_> {
        Call::new(self, Method::GET, path.into())
    }

    pub fn post(&self, path: impl Into<String>) -> Call<'_> {
        Call::new(self, Method::POST, path.into())
    }

    pub fn put(&self, path: impl Into<String>) -> Call<'_> {
        Call::new(self, Method::PUT, path.into())
    }

    pub fn head(&self, path: impl Into<String>) -> Call<'_> {
        Call::new(self, Method::HEAD, path.into())
    }

    pub fn delete(&self, path: impl Into<String>) -> Call<'_> {
        Call::new(self, Method::DELETE, path.into())
    }

    /// The API version both sides speak; asks the server once.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn version(&self) -> Result<Version, ApiError> {
        if let Some(version) = self.version.get() {
            return Ok(version);
        }
        let response = self.exchange(call::ping_request(), true).await?;
        let theirs = response.headers().get("api-version").and_then(|value| value.to_str().ok()).and_then(Version::parse);
        // A server that does not tell its version is as old as the ping itself.
        let version = theirs.unwrap_or(Version::new(1, 24)).min(API_VERSION);
        self.version.set(Some(version));
        Ok(version)
    }

    /// Sends one request over an idle connection or a new one.
    async fn exchange(&self, request: http::Request<Body>, reuse: bool) -> Result<Response<Incoming>, ApiError> {
        let mut sender = match self.take_idle() {
            Some(sender) => sender,
            None => {
                log::debug(format_args!("connecting to {}", self.endpoint.url));
                transport::open(&self.endpoint).await?
            }
        };
        let told = log::debugging().then(|| (format!("{} {}", request.method(), request.uri()), Instant::now()));
        let answer = sender.send_request(request).await.map_err(|err| self.endpoint.request_failed(&err));
        if let Some((what, since)) = told {
            let how = answer.as_ref().map_or_else(ToString::to_string, |response| response.status().to_string());
            log::debug(format_args!("{what}: {how} after {} ms", since.elapsed().as_millis()));
        }
        let response = answer?;
        if reuse {
            self.idle.replace(Some(sender));
        }
        Ok(response)
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        self.idle.take().filter(SendRequest::is_ready)
    }
}
