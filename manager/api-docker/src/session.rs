//! Connections taken over from HTTP: attach and exec. Output goes out framed, input comes in bare, each direction closes by itself.
//!
//! ```text
//! client ── POST …/attach, Upgrade: tcp ──▶
//!        ◀─ 101 UPGRADED ─────────────────
//!        ── stdin (half-close = EOF) ────▶  ─▶ detach keys? ─▶ process
//!        ◀─ frames, or a terminal's bytes ─ ◀─ until the process has ended
//! ```
//! A client that does not ask for an upgrade gets the same with `200 OK` by [`crate::DockerListener`]; behind any other listener it gets the
//! output as an ordinary 200 body, and its request's body is the input.

use std::pin::Pin;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures_util::{Stream, StreamExt, future};
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rcontainerd_core::io::{InputWriter, Output, OutputKind, ProcessIo};
use rcontainerd_types::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, Instant};

use crate::versions;
use crate::wire::detach::DetachScanner;
use crate::wire::raw_stream::{Framing, Source};
use crate::wire::version::ApiVersion;

/// Bytes read from a client at a time.
const INPUT_CHUNK: usize = 32 * 1024;

/// The first output comes no sooner after the head than this. Docker's SDK for Python reads the head through a buffer and then goes
/// on with the bare socket: what had arrived together with the head is lost to it. dockerd escapes by being slow to begin.
const SETTLE: Duration = Duration::from_millis(5);

/// How the client wants to go on.
pub(crate) enum Transport {
    /// It takes the connection over.
    Upgrade { on: OnUpgrade, protocol: HeaderValue },
    /// Plain HTTP: the request's body is the input.
    Plain(Body),
}

impl Transport {
    /// Takes what is needed out of a request whose body was not read.
    pub(crate) fn of(mut request: Request) -> Self {
        match upgrade(&mut request) {
            Some((on, protocol)) => Self::Upgrade { on, protocol },
            None => Self::Plain(request.into_body()),
        }
    }
}

/// The pending upgrade and its protocol, if the client asked for one.
pub(crate) fn upgrade(request: &mut Request) -> Option<(OnUpgrade, HeaderValue)> {
    let protocol = request.headers().get(header::UPGRADE)?.clone();
    Some((hyper::upgrade::on(request), protocol))
}

/// Resolves to the streams once there are any.
pub(crate) type Starting = Pin<Box<dyn Future<Output = ProcessIo> + Send>>;

/// What to frame, and how.
pub(crate) struct Session {
    /// Awaited only when the client has been told that the connection is its own, as dockerd does.
    pub(crate) io: Starting,
    pub(crate) framing: Framing,
    /// Only terminals have detach keys.
    pub(crate) detach: Option<DetachScanner>,
    pub(crate) version: ApiVersion,
}

impl Session {
    /// Answers the request and goes on with the streams in a task of its own.
    pub(crate) async fn serve(self, transport: Transport) -> Response {
        let kind = versions::stream_type(self.version, self.framing);
        match transport {
            Transport::Upgrade { on, protocol } => {
                tokio::spawn(self.hijacked(on));
                switching(protocol, kind)
            }
            Transport::Plain(body) => self.plain(body, kind).await,
        }
    }

    async fn hijacked(self, on: OnUpgrade) {
        match on.await {
            Ok(connection) => {
                let (reader, writer) = tokio::io::split(TokioIo::new(connection));
                self.pump(reader, writer).await;
            }
            Err(error) => tracing::debug!(%error, "client went away before its connection was upgraded"),
        }
    }

    /// Until the process has ended, the client has detached, or it is gone.
    pub(crate) async fn pump(self, reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) {
        let Self { io, framing, detach, .. } = self;
        let settled = Instant::now() + SETTLE;
        let io = io.await;
        {
            let output = write_output(io.output, framing, &mut writer, settled);
            let input = async {
                match read_input(reader, io.input, detach).await {
                    InputEnd::Detached => {}
                    InputEnd::Closed => future::pending().await,
                }
            };
            tokio::select! {
                () = output => {}
                () = input => {}
            }
        }
        if let Err(error) = writer.shutdown().await {
            tracing::debug!(%error, "client closed its connection first");
        }
    }

    async fn plain(self, body: Body, kind: &'static str) -> Response {
        let Self { io, framing, detach, .. } = self;
        let io = io.await;
        let reader = tokio_util::io::StreamReader::new(body.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other)));
        let input = tokio::spawn(async move { read_input(reader, io.input, detach).await });
        let output = io.output.map(move |piece| Ok::<_, std::convert::Infallible>(encode(framing, piece)));
        let done = async move {
            match input.await {
                Ok(InputEnd::Detached) => {}
                Ok(InputEnd::Closed) | Err(_) => future::pending().await,
            }
        };
        let mut response = Response::new(Body::from_stream(output.take_until(done)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// Streams that have only something to say: an exec that could not start, told where its output was expected.
pub(crate) fn refusal(framing: Framing, error: &Error) -> ProcessIo {
    let kind = if framing == Framing::Raw { OutputKind::Console } else { OutputKind::Stdout };
    let piece = Output { kind, data: Bytes::from(format!("{}\r\n", error.message())) };
    ProcessIo { tty: framing == Framing::Raw, output: futures_util::stream::iter([Ok(piece)]).boxed(), input: None }
}

fn switching(protocol: HeaderValue, kind: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"UPGRADED"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocol);
    response
}

fn encode(framing: Framing, piece: Result<Output, Error>) -> Bytes {
    match piece {
        Ok(Output { kind: OutputKind::Stderr, data }) => framing.encode(Source::Stderr, data),
        Ok(Output { data, .. }) => framing.encode(Source::Stdout, data),
        Err(error) => framing.encode(Source::SystemError, Bytes::from(error.message().to_owned())),
    }
}

async fn write_output(
    mut output: impl Stream<Item = Result<Output, Error>> + Unpin,
    framing: Framing,
    writer: &mut (impl AsyncWrite + Unpin),
    settled: Instant,
) {
    while let Some(piece) = output.next().await {
        tokio::time::sleep_until(settled).await;
        let last = piece.is_err();
        let sent = writer.write_all(&encode(framing, piece)).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "attached client is gone");
            return;
        }
        if last {
            return;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputEnd {
    /// The detach keys were typed, or a client hung up on a terminal.
    Detached,
    /// The client has no more input; it may still be reading.
    Closed,
}

async fn read_input(mut reader: impl AsyncRead + Unpin, mut input: Option<InputWriter>, mut detach: Option<DetachScanner>) -> InputEnd {
    let mut chunk = vec![0; INPUT_CHUNK];
    loop {
        let read = match reader.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => &chunk[..read],
        };
        let Some(scanner) = detach.as_mut() else {
            forward(&mut input, read).await;
            continue;
        };
        let scanned = scanner.scan(read);
        forward(&mut input, &scanned.forward).await;
        if scanned.detach {
            return InputEnd::Detached;
        }
    }
    if let Some(scanner) = detach.as_mut() {
        forward(&mut input, &scanner.finish()).await;
        // A terminal has no end of file: a client that leaves one hangs up, the process reads on.
        return if input.is_some() { InputEnd::Detached } else { InputEnd::Closed };
    }
    if let Some(input) = input
        && let Err(error) = input.close().await
    {
        tracing::debug!(%error, "stdin was closed by the process first");
    }
    InputEnd::Closed
}

/// Writes to the process; input that nobody reads any more is dropped, so that the client is not held up.
async fn forward(input: &mut Option<InputWriter>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let Some(writer) = input.as_mut() else { return };
    if let Err(error) = writer.write(data).await {
        tracing::debug!(%error, "the process takes no more input");
        *input = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(kind: OutputKind, data: &'static [u8]) -> Result<Output, Error> {
        Ok(Output { kind, data: Bytes::from_static(data) })
    }

    fn session(pieces: Vec<Result<Output, Error>>, framing: Framing) -> Session {
        let output = futures_util::stream::iter(pieces).boxed();
        of(output, framing)
    }

    fn of(output: rcontainerd_core::io::OutputStream, framing: Framing) -> Session {
        let io = ProcessIo { tty: framing == Framing::Raw, output, input: None };
        Session { io: Box::pin(future::ready(io)), framing, detach: None, version: ApiVersion::MAX }
    }

    async fn pumped(session: Session) -> Vec<u8> {
        let (client, server) = tokio::io::duplex(64);
        let (reader, writer) = tokio::io::split(server);
        let pump = tokio::spawn(session.pump(reader, writer));
        let (mut read, _write) = tokio::io::split(client);
        let mut seen = Vec::new();
        read.read_to_end(&mut seen).await.expect("readable");
        pump.await.expect("the pump ends with the output");
        seen
    }

    #[tokio::test]
    async fn output_is_framed_and_the_connection_ends_with_it() {
        let pieces = vec![piece(OutputKind::Stdout, b"out"), piece(OutputKind::Stderr, b"err")];
        assert_eq!(pumped(session(pieces, Framing::Multiplexed)).await, b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err");
        assert_eq!(pumped(session(vec![piece(OutputKind::Console, b"tty")], Framing::Raw)).await, b"tty");
    }

    #[tokio::test]
    async fn an_error_in_the_stream_is_told_and_ends_it() {
        let pieces = vec![Err(Error::internal("lost")), piece(OutputKind::Stdout, b"never")];
        assert_eq!(pumped(session(pieces, Framing::Multiplexed)).await, b"\x03\0\0\0\0\0\0\x04lost");
    }

    #[tokio::test]
    async fn detach_keys_end_the_session_of_a_quiet_terminal() {
        let mut quiet = of(futures_util::stream::pending().boxed(), Framing::Raw);
        quiet.detach = Some(DetachScanner::parse("").expect("default"));
        let (mut client, server) = tokio::io::duplex(64);
        let (reader, writer) = tokio::io::split(server);
        let pump = tokio::spawn(quiet.pump(reader, writer));
        client.write_all(b"\x10\x11").await.expect("writable");
        pump.await.expect("detached");
    }

    #[tokio::test]
    async fn a_half_closed_client_still_gets_output() {
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        let output = futures_util::stream::once(async move {
            held.await.expect("released");
            piece(OutputKind::Console, b"late")
        });
        let late = of(output.boxed(), Framing::Raw);
        let (client, server) = tokio::io::duplex(64);
        let (reader, writer) = tokio::io::split(server);
        let pump = tokio::spawn(late.pump(reader, writer));
        let (mut read, mut write) = tokio::io::split(client);
        write.shutdown().await.expect("half-closed");
        release.send(()).expect("somebody waits");
        let mut seen = Vec::new();
        read.read_to_end(&mut seen).await.expect("readable");
        pump.await.expect("ends");
        assert_eq!(seen, b"late");
    }

    /// A server on a socket, whose one page is a session that prints `hello` once its client has closed its side.
    async fn hello_server(dir: &std::path::Path) -> tokio::net::UnixStream {
        let page = |request: Request| async {
            let piece = piece(OutputKind::Stdout, b"hello");
            session(vec![piece], Framing::Multiplexed).serve(Transport::of(request)).await
        };
        let path = dir.join("s");
        let listener = tokio::net::UnixListener::bind(&path).expect("bound");
        tokio::spawn(axum::serve(listener, axum::Router::new().route("/x", axum::routing::post(page))).into_future());
        tokio::net::UnixStream::connect(&path).await.expect("connected")
    }

    #[tokio::test]
    async fn upgrades_are_answered_as_dockerd_does_and_the_bytes_follow() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut client = hello_server(dir.path()).await;
        client
            .write_all(b"POST /x HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")
            .await
            .expect("sent");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("ends");
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(text.starts_with("http/1.1 101 upgraded\r\n"), "{text}");
        for header in ["content-type: application/vnd.docker.multiplexed-stream", "connection: upgrade", "upgrade: tcp"] {
            assert!(text.contains(&format!("{header}\r\n")), "{header} is missing in {text}");
        }
        assert!(answer.ends_with(b"\r\n\r\n\x01\0\0\0\0\0\0\x05hello"), "{text}");
    }

    #[tokio::test]
    async fn without_upgrade_the_output_is_an_ordinary_body() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut client = hello_server(dir.path()).await;
        client.write_all(b"POST /x HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await.expect("sent");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("ends");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\x01\0\0\0\0\0\0\x05hello"), "{text}");
    }

    #[tokio::test]
    async fn behind_the_listener_a_client_without_upgrade_has_the_bare_connection() {
        let dir = tempfile::tempdir().expect("a directory");
        let page = |request: Request| async {
            let piece = piece(OutputKind::Stdout, b"hello");
            session(vec![piece], Framing::Multiplexed).serve(Transport::of(request)).await
        };
        let path = dir.path().join("s");
        let listener = crate::DockerListener::new(tokio::net::UnixListener::bind(&path).expect("bound"));
        let pages = axum::Router::new().route("/containers/{id}/attach", axum::routing::post(page));
        tokio::spawn(axum::serve(listener, pages).into_future());
        let mut client = tokio::net::UnixStream::connect(&path).await.expect("connected");
        client.write_all(b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\n\r\n").await.expect("sent");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("ends");
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(text.starts_with("http/1.1 200 ok\r\n") && !text.contains("transfer-encoding") && !text.contains("upgrade"), "{text}");
        assert!(answer.ends_with(b"\r\n\r\n\x01\0\0\0\0\0\0\x05hello"), "{text}");
    }

    /// The head must be all that a client reads first: see [`SETTLE`].
    #[tokio::test]
    async fn the_first_output_does_not_come_with_the_head() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut client = hello_server(dir.path()).await;
        client
            .write_all(b"POST /x HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")
            .await
            .expect("sent");
        let mut head = [0; 4096];
        let length = client.read(&mut head).await.expect("readable");
        assert!(head[..length].ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&head[..length]));
    }

    #[tokio::test]
    async fn a_refusal_is_told_where_output_was_expected() {
        let io = refusal(Framing::Multiplexed, &Error::invalid("no such program"));
        let session = Session { io: Box::pin(future::ready(io)), framing: Framing::Multiplexed, detach: None, version: ApiVersion::MAX };
        assert_eq!(pumped(session).await, b"\x01\0\0\0\0\0\0\x11no such program\r\n");
    }
}
