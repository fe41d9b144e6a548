//! Failures in Docker's words, so that what people search for finds the same answers.

use rcontainerd_types::{Error, ErrorKind, Reference};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

/// Longest part of an unexpected answer that is quoted, in bytes.
const QUOTE_MAX: usize = 200;

#[derive(Deserialize)]
struct Body {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The request never got an answer. With a proxy (`host:port`), it is the proxy that was not reached.
pub(crate) fn transport_by(proxy: Option<&str>, method: &Method, url: &Url, err: &reqwest::Error) -> Error {
    let cause = root_cause(err);
    // What the registry's certificate lacks is not the proxy's fault.
    let is_its_own = err.is_connect() && !["ertificate", "BadSignature", "UnknownIssuer"].iter().any(|tls| cause.contains(tls));
    match proxy.filter(|_| is_its_own) {
        Some(proxy) => Error::new(ErrorKind::Unavailable, format!("{}: proxyconnect tcp: {proxy}: {cause}", request(method, url))),
        None => transport(method, url, err),
    }
}

/// As [`transport_by`], without a proxy.
pub(crate) fn transport(method: &Method, url: &Url, err: &reqwest::Error) -> Error {
    let cause = root_cause(err);
    let host = url.host_str().unwrap_or_default();
    let authority = match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let told = if cause.contains("onnection refused") {
        format!("dial tcp {authority}: connect: connection refused")
    } else if err.is_connect() && cause.contains("lookup address") {
        format!("lookup {host}: no such host")
    } else if err.is_timeout() {
        format!("no answer from {authority} in time")
    } else if cause.contains("UnknownIssuer") || cause.contains("BadSignature") {
        format!(
            "tls: certificate signed by unknown authority (if you trust it, put its CA into /etc/docker/certs.d/{}/ca.crt)",
            domain(url)
        )
    } else if cause.contains("invalid peer certificate") {
        format!("tls: {cause}")
    } else {
        cause
    };
    Error::new(ErrorKind::Unavailable, format!("{}: {told}", request(method, url)))
}

/// `Get "https://host/v2/"`, as Go's client puts it.
pub(crate) fn request(method: &Method, url: &Url) -> String {
    let name = method.as_str();
    let (first, rest) = name.split_at(1);
    format!("{first}{} \"{}\"", rest.to_lowercase(), without_query(url))
}

/// Signed storage URLs carry secrets in their query.
fn without_query(url: &Url) -> Url {
    let mut shown = url.clone();
    shown.set_query(None);
    shown
}

fn domain(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        _ => String::new(),
    }
}

fn root_cause(err: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = err;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The answer was no.
pub(crate) fn refused(reference: &Reference, method: &Method, url: &Url, status: StatusCode, body: &[u8]) -> Error {
    let parsed = serde_json::from_slice::<Body>(body).ok().and_then(|body| body.errors.into_iter().next());
    match parsed {
        Some(entry) => coded(reference, method, url, status, &entry),
        None => uncoded(reference, method, url, status, body),
    }
}

fn coded(reference: &Reference, method: &Method, url: &Url, status: StatusCode, entry: &Entry) -> Error {
    let told = format!("{}: {}", entry.code.to_lowercase().replace('_', " "), one_line(&entry.message));
    match entry.code.as_str() {
        "MANIFEST_UNKNOWN" => Error::not_found(format!("manifest for {} not found: {told}", reference.familiar())),
        "NAME_UNKNOWN" => Error::not_found(format!("repository {} not found: {told}", reference.familiar_name())),
        "DENIED" => denied(reference, &told),
        "UNAUTHORIZED" if status == StatusCode::FORBIDDEN => denied(reference, &told),
        "UNAUTHORIZED" => Error::new(ErrorKind::Unauthenticated, format!("{}: {told}", request(method, url))),
        "TOOMANYREQUESTS" => Error::new(ErrorKind::ResourceExhausted, told),
        _ => Error::new(kind_of(status), format!("{}: {told}", request(method, url))),
    }
}

fn denied(reference: &Reference, told: &str) -> Error {
    let name = reference.familiar_name();
    Error::not_found(format!("pull access denied for {name}, repository does not exist or may require 'docker login': {told}"))
}

fn uncoded(reference: &Reference, method: &Method, url: &Url, status: StatusCode, body: &[u8]) -> Error {
    if status == StatusCode::NOT_FOUND && url.path().contains("/manifests/") {
        return Error::not_found(format!("manifest for {} not found: manifest unknown: manifest unknown", reference.familiar()));
    }
    let quote = one_line(&String::from_utf8_lossy(&body[..body.len().min(QUOTE_MAX)]));
    let told = if quote.is_empty() { String::new() } else { format!(": {quote:?}") };
    Error::new(kind_of(status), format!("{}: unexpected status from registry: {status}{told}", request(method, url)))
}

fn kind_of(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::UNAUTHORIZED => ErrorKind::Unauthenticated,
        StatusCode::FORBIDDEN => ErrorKind::PermissionDenied,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Unavailable,
    }
}

/// What a registry says is shown to people: one line, no control characters.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, path: &str, body: &str) -> (ErrorKind, String) {
        let url = Url::parse(&format!("http://localhost:5000/v2/{path}?secret=1")).expect("url");
        let status = StatusCode::from_u16(status).expect("status");
        let err = refused(&"localhost:5000/app:1".parse().expect("reference"), &Method::GET, &url, status, body.as_bytes());
        (err.kind(), err.message().to_owned())
    }

    #[test]
    fn docker_words() {
        let body = |code: &str, message: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"{message}","detail":{{}}}}]}}"#);
        assert_eq!(
            told(404, "app/manifests/1", &body("MANIFEST_UNKNOWN", "manifest unknown")),
            (ErrorKind::NotFound, "manifest for localhost:5000/app:1 not found: manifest unknown: manifest unknown".into())
        );
        assert_eq!(told(404, "app/manifests/1", "").1, "manifest for localhost:5000/app:1 not found: manifest unknown: manifest unknown");
        let denied = told(403, "app/manifests/1", &body("DENIED", "requested access to the resource is denied")).1;
        assert_eq!(
            denied,
            "pull access denied for localhost:5000/app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
        );
    }

    #[test]
    fn a_registry_cannot_write_on_the_terminal_and_queries_stay_secret() {
        let (kind, text) = told(418, "app/blobs/x", "\u{1b}[31mred\nline two");
        assert_eq!(kind, ErrorKind::Unavailable);
        assert!(!text.contains('\u{1b}') && !text.contains('\n') && !text.contains("secret"), "{text}");
    }
}
