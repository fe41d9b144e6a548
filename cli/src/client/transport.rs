//! Opening a connection and speaking HTTP/1.1 on it.

use std::io;
use std::path::Path;

use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::{Endpoint, Transport};
use super::{ApiError, Body, ssh, tls};

/// A connection of any kind.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub async fn open(endpoint: &Endpoint) -> Result<SendRequest<Body>, ApiError> {
    let stream = connect(endpoint).await?;
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|err| ApiError::Broken(format!("error during connect: {}: {err}", endpoint.url)))?;
    tokio::spawn(async move {
        // Whatever ends the connection is seen by the request under way.
        drop(connection.with_upgrades().await);
    });
    Ok(sender)
}

/// The bare connection to the engine.
///
/// # Errors
/// A text that says what could not be reached and what to do.
pub async fn connect(endpoint: &Endpoint) -> Result<Box<dyn Duplex>, ApiError> {
    match &endpoint.transport {
        Transport::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(|err| unix_error(endpoint, path, &err))?)),
        Transport::Tcp { address, host, tls } => {
            let stream = TcpStream::connect(address).await.map_err(|_| endpoint.cannot_connect())?;
            // Without it, keystrokes of a shell wait for each other.
            stream.set_nodelay(true).map_err(|err| ApiError::Connect(format!("{}: {err}", endpoint.url)))?;
            match tls {
                None => Ok(Box::new(stream)),
                Some(files) => tls::wrap(endpoint, host, files, stream).await,
            }
        }
        Transport::Ssh { user, host, port, path } => ssh::connect(user.as_deref(), host, *port, path.as_deref()),
    }
}

fn unix_error(endpoint: &Endpoint, path: &Path, err: &io::Error) -> ApiError {
    match err.kind() {
        io::ErrorKind::PermissionDenied => ApiError::Connect(permission_denied(endpoint, path)),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => endpoint.cannot_connect(),
        _ => ApiError::Connect(format!("error during connect: {}: {err}", endpoint.url)),
    }
}

fn permission_denied(endpoint: &Endpoint, path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let group = std::fs::metadata(path).ok().filter(|meta| meta.gid() != 0).and_then(|meta| group_name(meta.gid()));
    let remedy = match group {
        Some(group) => format!("join the group {group:?} (sudo usermod -aG {group} $USER, then log in again) or use sudo"),
        None => "use sudo, or have the administrator set a group for the socket".to_owned(),
    };
    format!(
        "permission denied while trying to connect to the Docker daemon socket at {}: connect: permission denied\nRemedy: {remedy}",
        endpoint.url
    )
}

fn group_name(gid: u32) -> Option<String> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.get(2).and_then(|text| text.parse().ok()) == Some(gid)).map(|fields| fields[0].to_owned())
}
