//! Where the engine is: `unix://`, `tcp://`, `ssh://`, with or without TLS.

use std::path::PathBuf;

use super::ApiError;

pub const DEFAULT_HOST: &str = "unix:///run/rcontainerd/docker.sock";

/// Files and rules for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Whether the server's certificate must be valid.
    pub verify: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    Unix(PathBuf),
    Tcp { address: String, host: String, tls: Option<TlsFiles> },
    Ssh { user: Option<String>, host: String, port: Option<u16>, path: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As people write it, such as `unix:///run/rcontainerd/docker.sock`.
    pub url: String,
    pub transport: Transport,
}

impl Endpoint {
    /// Reads a host as `-H`, `DOCKER_HOST` and contexts give it.
    ///
    /// # Errors
    /// An unknown scheme or a malformed address, in docker's words.
    pub fn parse(text: &str, tls: Option<TlsFiles>) -> Result<Self, String> {
        let text = text.trim();
        let text = if text.is_empty() { DEFAULT_HOST } else { text };
        let transport = match text.split_once("://") {
            Some(("unix", path)) => Transport::Unix(PathBuf::from(path)),
            Some(("tcp" | "http" | "https", rest)) => tcp(rest, tls, text)?,
            Some(("ssh", rest)) => ssh(rest, text)?,
            Some(_) => return Err(format!("invalid bind address format: {text}")),
            None => tcp(text, tls, text)?,
        };
        let url = if text.contains("://") { text.to_owned() } else { format!("tcp://{text}") };
        Ok(Self { url, transport })
    }

    /// The text for a request that broke.
    pub(super) fn request_failed(&self, err: &hyper::Error) -> ApiError {
        if err.is_canceled() || err.is_incomplete_message() || err.is_closed() || is_reset(err) {
            return match self.transport {
                Transport::Ssh { .. } => ApiError::Connect(format!(
                    "the connection to {} was closed: does the remote host run the engine and its client?",
                    self.url
                )),
                _ => ApiError::Broken(format!("the daemon at {} closed the connection before it answered", self.url)),
            };
        }
        ApiError::Broken(format!("error during connect: {}: {err}", self.url))
    }

    pub(super) fn cannot_connect(&self) -> ApiError {
        ApiError::Connect(format!("Cannot connect to the Docker daemon at {}. Is the rcontainerd daemon running?", self.url))
    }
}

/// Whether the other end was gone with something of ours unread.
fn is_reset(err: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let source = std::error::Error::source(err).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| matches!(source.kind(), BrokenPipe | ConnectionReset))
}

fn tcp(rest: &str, tls: Option<TlsFiles>, whole: &str) -> Result<Transport, String> {
    let authority = rest.split('/').next().unwrap_or_default();
    let bad = || format!("invalid bind address format: {whole}");
    if rest.split_once('/').is_some_and(|(_, path)| !path.is_empty()) {
        return Err(bad());
    }
    let default_port = if tls.is_some() { 2376 } else { 2375 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.starts_with('[')) => {
            (host, if port.is_empty() { default_port } else { port.parse::<u16>().map_err(|_| bad())? })
        }
        _ => (authority, default_port),
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Transport::Tcp { address: format!("{host}:{port}"), host: bare, tls })
}

fn ssh(rest: &str, whole: &str) -> Result<Transport, String> {
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(format!("/{path}")).filter(|path| path.len() > 1)),
        None => (rest, None),
    };
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user.to_owned()), place),
        None => (None, authority),
    };
    if user.as_deref().is_some_and(|user| user.contains(':')) {
        return Err(format!("invalid ssh address {whole:?}: plain-text password is not supported"));
    }
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().map_err(|_| format!("invalid ssh address {whole:?}: the port is not a number"))?)),
        None => (place, None),
    };
    let unsafe_word = |word: &str| word.starts_with('-');
    if host.is_empty() || unsafe_word(host) || user.as_deref().is_some_and(unsafe_word) {
        return Err(format!("invalid ssh address {whole:?}: no host specified"));
    }
    Ok(Transport::Ssh { user, host: host.to_owned(), port, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let transport = |text| Endpoint::parse(text, None).map(|e| e.transport);
        assert_eq!(transport("unix:///a/b"), Ok(Transport::Unix("/a/b".into())));
        assert_eq!(transport(""), Ok(Transport::Unix("/run/rcontainerd/docker.sock".into())));
        let tcp = |address: &str, host: &str| Ok(Transport::Tcp { address: address.into(), host: host.into(), tls: None });
        assert_eq!(transport("tcp://h:1"), tcp("h:1", "h"));
        assert_eq!(transport("h:1"), tcp("h:1", "h"));
        assert_eq!(transport("tcp://h"), tcp("h:2375", "h"));
        assert_eq!(transport("tcp://[::1]:9"), tcp("[::1]:9", "::1"));
        assert_eq!(
            transport("ssh://me@h:22/x"),
            Ok(Transport::Ssh { user: Some("me".into()), host: "h".into(), port: Some(22), path: Some("/x".into()) })
        );
        assert_eq!(transport("foo://x"), Err("invalid bind address format: foo://x".into()));
        for bad in ["tcp://h:x", "ssh://-oProxyCommand=x", "ssh://", "ssh://u:p@h", "ssh://-x@h"] {
            assert!(transport(bad).is_err(), "{bad}");
        }
    }
}
