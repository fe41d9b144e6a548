//! What a client still sends when it is answered. Most clients read the answer only after their body is sent, and a connection that is closed
//! before breaks their sending: the refusal of a large archive would never be seen. So the rest is read and thrown away behind the answer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;

/// What a client may send after its answer before the connection is closed all the same.
const BYTES_MAX: u64 = 256 << 20;
const TIME_MAX: Duration = Duration::from_secs(30);

/// The body for the handler, and what tells that the answer is made. Must be called within a tokio runtime.
///
/// `asks`: the client sends nothing before it is told to go on (`Expect: 100-continue`), so a body that nobody has asked for has no rest.
pub(crate) fn watch(body: Body, asks: bool) -> (Body, Answered) {
    let shared = Arc::new(Mutex::new(Rest::Handled));
    if body.is_end_stream() {
        return (body, Answered(shared));
    }
    let watched = Watched { body: Some(body), expected: !asks, shared: Arc::clone(&shared), runtime: Handle::current() };
    (Body::new(watched), Answered(shared))
}

/// What became of a body that was not read to its end.
enum Rest {
    /// The handler has it, or it was read.
    Handled,
    /// The handler is done with it, and the answer is not made yet.
    Left(Body),
    /// The answer is made: what is left goes at once.
    Thrown,
}

pub(crate) struct Answered(Arc<Mutex<Rest>>);

impl Answered {
    /// Says whether something of the body was left.
    pub(crate) fn answered(self) -> bool {
        let rest = std::mem::replace(&mut *lock(&self.0), Rest::Thrown);
        let Rest::Left(body) = rest else { return false };
        tokio::spawn(throw_away(body, BYTES_MAX, TIME_MAX));
        true
    }
}

struct Watched {
    body: Option<Body>,
    /// Whether there is something to come.
    expected: bool,
    shared: Arc<Mutex<Rest>>,
    runtime: Handle,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.expected = true;
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| self.expected && !body.is_end_stream()) else { return };
        let mut rest = lock(&self.shared);
        match *rest {
            Rest::Thrown => drop(self.runtime.spawn(throw_away(body, BYTES_MAX, TIME_MAX))),
            _ => *rest = Rest::Left(body),
        }
    }
}

fn lock(rest: &Mutex<Rest>) -> std::sync::MutexGuard<'_, Rest> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn throw_away(mut body: Body, bytes: u64, time: Duration) {
    let mut left = bytes;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    if tokio::time::timeout(time, all).await.is_err() {
        tracing::debug!("a client that was answered sends on: its connection is closed");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::Router;
    use axum::extract::Request;
    use axum::response::IntoResponse;
    use axum::routing::post;
    use futures_util::stream;
    use http::StatusCode;

    use super::*;
    use crate::listener::DockerListener;
    use crate::server::tests::serve;

    /// Answers before it reads, after a little, and while it reads on elsewhere.
    fn pages() -> Router {
        let refuse = async |_: Request| (StatusCode::BAD_REQUEST, "refused\n").into_response();
        let taste = async |request: Request| {
            let mut body = request.into_body();
            drop(body.frame().await);
            (StatusCode::BAD_REQUEST, "tasted\n").into_response()
        };
        let later = async |request: Request| {
            let body = request.into_body();
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                drop(body);
            });
            (StatusCode::BAD_REQUEST, "later\n").into_response()
        };
        Router::new().route("/refuse", post(refuse)).route("/taste", post(taste)).route("/later", post(later))
    }

    fn server(dir: &tempfile::TempDir) -> std::path::PathBuf {
        let path = dir.path().join("sock");
        let listener = DockerListener::new(tokio::net::UnixListener::bind(&path).expect("listen"));
        tokio::spawn(async move { axum::serve(listener, serve(pages())).await });
        path
    }

    /// Sends all before it reads anything, as simple clients do.
    fn send_then_read(path: &std::path::Path, page: &str, word: &str, chunked: bool) -> String {
        const PIECE: usize = 1 << 16;
        const PIECES: usize = 512;
        let mut socket = UnixStream::connect(path).expect("connect");
        let length = if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {}", PIECE * PIECES) };
        write!(socket, "POST {page} HTTP/1.1\r\nHost: d\r\n{length}\r\n\r\n").expect("head");
        for piece in 0..PIECES {
            let sent = if chunked { write!(socket, "{PIECE:x}\r\n") } else { Ok(()) }
                .and_then(|()| socket.write_all(&[b'x'; PIECE]))
                .and_then(|()| if chunked { socket.write_all(b"\r\n") } else { Ok(()) });
            sent.unwrap_or_else(|err| panic!("{page}: piece {piece}: {err}"));
        }
        if chunked {
            socket.write_all(b"0\r\n\r\n").expect("end");
        }
        // A connection whose body was read to its end stays open.
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&answer).contains(word) {
            let n = socket.read(&mut piece).expect("an answer");
            assert!(n > 0, "{page}: the connection ends before its answer");
            answer.extend_from_slice(&piece[..n]);
        }
        String::from_utf8(answer).expect("text")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_sends_all_before_it_reads_sees_why_it_was_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let path = server(&dir);
        for (page, word) in [("/refuse", "refused"), ("/taste", "tasted"), ("/later", "later"), ("/nowhere", "page not found")] {
            for chunked in [false, true] {
                let path = path.clone();
                let answer = tokio::task::spawn_blocking(move || send_then_read(&path, page, word, chunked)).await.expect("client");
                assert!(answer.starts_with("HTTP/1.1 40") && answer.contains(word), "{page}: {answer}");
                let closes = answer.to_ascii_lowercase().contains("connection: close");
                assert!(closes || page == "/later", "{page}: {answer}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_asks_first_is_refused_and_sends_nothing() {
        let dir = tempfile::tempdir().expect("directory");
        let path = server(&dir);
        let answer = tokio::task::spawn_blocking(move || {
            let mut socket = UnixStream::connect(path).expect("connect");
            write!(socket, "POST /refuse HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n").expect("head");
            let mut answer = String::new();
            socket.read_to_string(&mut answer).expect("the server closes");
            answer
        });
        let answer = answer.await.expect("client");
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("refused"), "{answer}");
    }

    #[tokio::test]
    async fn a_body_without_end_is_not_read_for_ever() {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let endless = stream::repeat_with(move || {
            counter.fetch_add(1000, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(Bytes::from_static(&[0; 1000]))
        });
        throw_away(Body::from_stream(endless), 10_000, Duration::from_secs(600)).await;
        assert_eq!(sent.load(Ordering::Relaxed), 11_000);
        let silent = Body::from_stream(stream::pending::<Result<Bytes, std::convert::Infallible>>());
        throw_away(silent, 10_000, Duration::from_millis(10)).await;
    }
}
