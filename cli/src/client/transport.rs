//! Opening a connection and speaking HTTP/1.1 on it.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::{Endpoint, Transport};
use super::{ApiError, Body, ssh, tls};

/// A connection of any kind.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub async fn open(endpoint: &Endpoint) -> Result<SendRequest<Body>, ApiError> {
    let stream = connect(endpoint).await?;
    let (sender, connection) = handshake(TokioIo::new(Listening { stream, heard_out: false, unsent: false }))
        .await
        .map_err(|err| ApiError::Broken(format!("error during connect: {}: {err}", endpoint.url)))?;
    tokio::spawn(async move {
        // Whatever ends the connection is seen by the request under way.
        drop(connection.with_upgrades().await);
    });
    Ok(sender)
}

/// A connection whose other end may close before it has read all: an engine that refuses a large body answers at once and reads no
/// further. What cannot be written any more is kept back, and the answer is read; without one, its end tells that there is none.
struct Listening {
    stream: Box<dyn Duplex>,
    /// Whether the other end takes nothing any more.
    heard_out: bool,
    /// Whether the last write could not place all of its bytes.
    unsent: bool,
}

impl AsyncRead for Listening {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_read(cx, buf)) {
            // After the last of the answer: what we sent and nobody read.
            Err(err) if (self.heard_out || self.unsent) && err.kind() == io::ErrorKind::ConnectionReset => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }
}

impl AsyncWrite for Listening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.heard_out {
            return Poll::Pending;
        }
        self.unsent = true;
        match ready!(Pin::new(&mut self.stream).poll_write(cx, data)) {
            Ok(written) => {
                self.unsent = written < data.len();
                Poll::Ready(Ok(written))
            }
            Err(err) if matches!(err.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                self.heard_out = true;
                // Whoever reads is polled again, now that something has changed.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(err) => Poll::Ready(Err(err)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.heard_out { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_flush(cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.heard_out { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_shutdown(cx) }
    }
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::client::Client;

    /// Answers the ping, then the next request before any of its body is read, and closes.
    fn refuse(mut stream: UnixStream, answer: &str) {
        let mut byte = [0];
        for answer in ["HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 0\r\n\r\n", answer] {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read(&mut byte).expect("read a request") == 0 {
                    return;
                }
                head.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).expect("answer");
        }
    }

    fn told_after_an_early_end(answer: &'static str) -> String {
        let directory = std::env::temp_dir().join(format!("rdocker-refusal-{}-{}", std::process::id(), answer.len()));
        drop(std::fs::remove_file(&directory));
        let listener = UnixListener::bind(&directory).expect("listen");
        let server = std::thread::spawn(move || {
            for _ in 0..ROUNDS {
                let (stream, _) = listener.accept().expect("accept");
                refuse(stream, answer);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut said = String::new();
        for _ in 0..ROUNDS {
            let endpoint = Endpoint::parse(&format!("unix://{}", directory.display()), None).expect("an address");
            let client = Client::new(endpoint);
            let body = Full::new(Bytes::from(vec![0; 8 << 20])).map_err(|never| match never {}).boxed();
            let done = runtime.block_on(client.post("/images/load").body(body, "application/x-tar").done());
            let text = done.expect_err("it is refused").to_string();
            assert!(said.is_empty() || said == text, "{said}, then {text}");
            said = text;
        }
        server.join().expect("the server");
        std::fs::remove_file(&directory).expect("remove the socket");
        said
    }

    const ROUNDS: usize = 30;

    #[test]
    fn an_answer_that_comes_before_the_body_is_read_is_told() {
        let answer = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 23\r\nConnection: close\r\n\r\n{\"message\":\"no image\"}\n";
        assert_eq!(told_after_an_early_end(answer), "Error response from daemon: no image");
    }

    #[test]
    fn an_answer_until_the_end_of_the_connection_is_told() {
        let answer = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"message\":\"no image\"}";
        assert_eq!(told_after_an_early_end(answer), "Error response from daemon: no image");
    }

    #[test]
    fn an_end_without_an_answer_is_told() {
        assert!(told_after_an_early_end("").ends_with(" closed the connection before it answered"));
    }
}
