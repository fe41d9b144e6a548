//! One request: path, query, headers, body, and what to make of the answer.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use proto_docker::error::ErrorResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;

use super::{ApiError, Body, Client};

/// The raw connection after an upgrade.
pub struct Hijacked {
    pub io: TokioIo<hyper::upgrade::Upgraded>,
}

pub struct Call<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    query: String,
    headers: Vec<(&'static str, String)>,
    content_type: Option<&'static str>,
    body: Body,
    failure: Option<ApiError>,
}

impl<'a> Call<'a> {
    pub(super) fn new(client: &'a Client, method: Method, path: String) -> Self {
        Self { client, method, path, query: String::new(), headers: Vec::new(), content_type: None, body: empty_body(), failure: None }
    }

    pub fn query(mut self, key: &str, value: impl AsRef<str>) -> Self {
        let separator = if self.query.is_empty() { '?' } else { '&' };
        self.query.push(separator);
        encode(&mut self.query, key);
        self.query.push('=');
        encode(&mut self.query, value.as_ref());
        self
    }

    /// Adds the parameter only if the value is not empty.
    pub fn query_set(self, key: &str, value: impl AsRef<str>) -> Self {
        if value.as_ref().is_empty() { self } else { self.query(key, value) }
    }

    /// Adds `key=1` if `on`.
    pub fn flag(self, key: &str, on: bool) -> Self {
        if on { self.query(key, "1") } else { self }
    }

    pub fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn json(mut self, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => {
                self.body = full_body(bytes);
                self.content_type = Some("application/json");
            }
            Err(err) => self.failure = Some(ApiError::Broken(format!("the request cannot be written as JSON: {err}"))),
        }
        self
    }

    pub fn body(mut self, body: Body, content_type: &'static str) -> Self {
        self.body = body;
        self.content_type = Some(content_type);
        self
    }

    async fn request(self, upgrade: bool) -> Result<(&'a Client, Request<Body>), ApiError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let version = self.client.version().await?;
        let mut builder = Request::builder().method(self.method).uri(format!("/v{version}{}{}", self.path, self.query));
        builder = builder.header(HOST, "docker").header(USER_AGENT, concat!("rdocker/", env!("CARGO_PKG_VERSION"), " (linux)"));
        if let Some(content_type) = self.content_type {
            builder = builder.header(CONTENT_TYPE, content_type);
        }
        if upgrade {
            builder = builder.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        }
        for (name, value) in self.headers {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| ApiError::Broken(format!("the header {name} has a value that cannot be sent")))?;
            builder = builder.header(name, value);
        }
        let request = builder.body(self.body).map_err(|err| ApiError::Broken(format!("the request cannot be built: {err}")))?;
        Ok((self.client, request))
    }

    /// Sends and returns the answer with its body unread.
    ///
    /// # Errors
    /// The engine's refusal, or a failed connection.
    pub async fn send(self) -> Result<Response<Incoming>, ApiError> {
        let (client, request) = self.request(false).await?;
        accept(client.exchange(request, false).await?).await
    }

    /// Sends and keeps the connection for the next request, as the whole body is read here.
    async fn send_whole(self) -> Result<Bytes, ApiError> {
        let (client, request) = self.request(false).await?;
        let response = accept(client.exchange(request, true).await?).await?;
        read_all(response).await
    }

    /// The answer's body as JSON.
    ///
    /// # Errors
    /// As [`Call::send`], or a body that is not what was expected.
    pub async fn fetch<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let what = self.path.clone();
        let bytes = self.send_whole().await?;
        serde_json::from_slice(&bytes).map_err(|err| ApiError::Broken(format!("the daemon's answer to {what} is not understood: {err}")))
    }

    /// The answer's body as it is.
    ///
    /// # Errors
    /// As [`Call::send`].
    pub async fn text(self) -> Result<Bytes, ApiError> {
        self.send_whole().await
    }

    /// Sends; the answer has nothing of interest.
    ///
    /// # Errors
    /// As [`Call::send`].
    pub async fn done(self) -> Result<(), ApiError> {
        self.send_whole().await.map(drop)
    }

    /// Sends and takes over the connection.
    ///
    /// # Errors
    /// As [`Call::send`], or an engine that does not hand over the connection.
    pub async fn hijack(self) -> Result<Hijacked, ApiError> {
        let (client, request) = self.request(true).await?;
        let response = client.exchange(request, false).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            accept(response).await?;
            return Err(ApiError::Broken("the daemon did not hand over the connection (no 101 answer)".to_owned()));
        }
        let upgraded =
            hyper::upgrade::on(response).await.map_err(|err| ApiError::Broken(format!("taking over the connection failed: {err}")))?;
        Ok(Hijacked { io: TokioIo::new(upgraded) })
    }
}

pub(super) fn ping_request() -> Request<Body> {
    let mut request = Request::new(empty_body());
    *request.method_mut() = Method::HEAD;
    *request.uri_mut() = http::Uri::from_static("/_ping");
    request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
    request
}

fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

fn full_body(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

async fn accept(response: Response<Incoming>) -> Result<Response<Incoming>, ApiError> {
    let status = response.status();
    if status.is_success() || status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let bytes = read_all(response).await?;
    let message = match serde_json::from_slice::<ErrorResponse>(&bytes) {
        Ok(body) if !body.message.is_empty() => body.message,
        _ => match String::from_utf8_lossy(&bytes).trim() {
            "" => format!("request returned {status} without a word of explanation"),
            text => text.to_owned(),
        },
    };
    Err(ApiError::Daemon { status: status.as_u16(), message: message.trim().to_owned() })
}

async fn read_all(response: Response<Incoming>) -> Result<Bytes, ApiError> {
    let collected = response.into_body().collect().await;
    Ok(collected.map_err(|err| ApiError::Broken(format!("the daemon's answer broke off: {err}")))?.to_bytes())
}

fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
}

/// A name as a part of a path; slashes stay, as image names have them.
pub fn path_segment(name: &str) -> String {
    let mut out = String::new();
    for (index, part) in name.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        encode(&mut out, part);
    }
    out.replace("%3A", ":").replace("%40", "@")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_queries_are_escaped() {
        assert_eq!(path_segment("localhost:5000/a b@sha256:12"), "localhost:5000/a%20b@sha256:12");
        let mut out = String::new();
        encode(&mut out, r#"{"a":["b&c"]}"#);
        assert_eq!(out, "%7B%22a%22%3A%5B%22b%26c%22%5D%7D");
    }
}
