//! Connections of clients that want attach and exec without asking for an upgrade: dockerd answers them `HTTP/1.1 200 OK`, and from there on
//! the connection is the stream, bare, in both directions. HTTP knows no such thing, so it is done below it: such a request is handed on
//! with `Upgrade: tcp` added, and the head of the answer is changed back.
//!
//! ```text
//! client ── POST …/attach ──────────▶ [HijackIo: + Upgrade: tcp] ──▶ HTTP
//!        ◀─ 200 OK, stream ───────── [HijackIo: 101 → 200]     ◀── 101 UPGRADED, stream
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::version::split_path;

/// A head longer than this is handed on as it is: HTTP refuses it.
const HEAD_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
const END: &[u8] = b"\r\n\r\n";

/// See the module.
pub struct HijackIo<S> {
    inner: S,
    reading: Reading,
    /// Bytes for HTTP that were read already.
    ready: Vec<u8>,
    writing: Writing,
}

enum Reading {
    /// Collecting the head of the next request.
    Head(Vec<u8>),
    /// So many bytes of body, then the next head.
    Body(u64),
    /// Whatever comes is no business of ours any more.
    Through,
}

enum Writing {
    Through,
    /// Collecting the head of the answer to a request that was changed.
    Head(Vec<u8>),
    /// What of the changed head is still to be sent; whether another head follows it (`100 Continue`).
    Flush(Vec<u8>, bool),
}

impl<S> HijackIo<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, reading: Reading::Head(Vec::new()), ready: Vec::new(), writing: Writing::Through }
    }

    /// Takes what came from the client.
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.reading {
                Reading::Through => {
                    self.ready.extend_from_slice(bytes);
                    return;
                }
                Reading::Body(left) => {
                    let length = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    self.ready.extend_from_slice(&bytes[..length]);
                    bytes = &bytes[length..];
                    *left -= length as u64;
                    if *left == 0 {
                        self.reading = Reading::Head(Vec::new());
                    }
                }
                Reading::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(bytes);
                    let Some(end) = find(head, before.saturating_sub(END.len() - 1)) else {
                        if head.len() > HEAD_MAX {
                            self.ready.append(head);
                            self.reading = Reading::Through;
                        }
                        return;
                    };
                    bytes = &bytes[end - before..];
                    head.truncate(end);
                    let head = std::mem::take(head);
                    self.head(&head);
                }
            }
        }
    }

    fn head(&mut self, head: &[u8]) {
        let next = Next::after(head);
        if next == Next::Hijack {
            self.ready.extend_from_slice(&head[..head.len() - 2]);
            self.ready.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
            self.writing = Writing::Head(Vec::new());
        } else {
            self.ready.extend_from_slice(head);
        }
        self.reading = match next {
            Next::Body(0) => Reading::Head(Vec::new()),
            Next::Body(length) => Reading::Body(length),
            Next::Hijack | Next::Through => Reading::Through,
        };
    }
}

/// What follows a request's head.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Body(u64),
    /// It takes the connection over without saying so.
    Hijack,
    /// An upgrade, or a body of unknown length.
    Through,
}

impl Next {
    fn after(head: &[u8]) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
            return Self::Through;
        }
        let value = |name: &str| request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value);
        if value("upgrade").is_some() {
            return Self::Through;
        }
        let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
        if request.method == Some("POST") && request.version == Some(1) && takes_over(split_path(path).1) {
            return Self::Hijack;
        }
        let length = value("content-length").map(|text| std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()));
        match (value("transfer-encoding"), length) {
            (None, None) => Self::Body(0),
            (None, Some(Some(length))) => Self::Body(length),
            _ => Self::Through,
        }
    }
}

fn takes_over(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts.as_slice(), ["", "containers", _, "attach"] | ["", "exec", _, "start"])
}

/// Where the head ends, looked for from `from` on.
fn find(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(END.len()).position(|window| window == END).map(|at| from + at + END.len())
}

/// The answer's head as a client that has asked for no upgrade expects it.
fn answer(head: &[u8]) -> Vec<u8> {
    if !head.starts_with(b"HTTP/1.1 101") {
        return head.to_vec();
    }
    let mut changed = b"HTTP/1.1 200 OK\r\n".to_vec();
    for line in head.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.trim_ascii().is_empty()) {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if !name.eq_ignore_ascii_case(b"connection") && !name.eq_ignore_ascii_case(b"upgrade") {
            changed.extend_from_slice(line);
            changed.push(b'\n');
        }
    }
    changed.extend_from_slice(b"\r\n");
    changed
}

impl<S: AsyncRead + Unpin> AsyncRead for HijackIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                let length = this.ready.len().min(buffer.remaining());
                buffer.put_slice(&this.ready[..length]);
                this.ready.drain(..length);
                return Poll::Ready(Ok(()));
            }
            if matches!(this.reading, Reading::Through) {
                return Pin::new(&mut this.inner).poll_read(cx, buffer);
            }
            let mut chunk = [0; 8 << 10];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // Whatever there is of a head goes to HTTP, which says what is wrong with it.
                if let Reading::Head(head) = &mut this.reading {
                    this.ready.append(head);
                }
                this.reading = Reading::Through;
                continue;
            }
            this.take(read.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> HijackIo<S> {
    /// Sends what of a changed head is still here.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Writing::Flush(head, more) = &mut self.writing {
            if head.is_empty() {
                self.writing = if *more { Writing::Head(Vec::new()) } else { Writing::Through };
                break;
            }
            let sent = ready!(Pin::new(&mut self.inner).poll_write(cx, head))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            head.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HijackIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_head(cx))?;
        let Writing::Head(head) = &mut this.writing else {
            return Pin::new(&mut this.inner).poll_write(cx, bytes);
        };
        head.extend_from_slice(bytes);
        if let Some(end) = find(head, 0) {
            let mut changed = answer(&head[..end]);
            changed.extend_from_slice(&head[end..]);
            this.writing = Writing::Flush(changed, head.starts_with(b"HTTP/1.1 100"));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_head(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_head(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn handed_on(pieces: &[&[u8]]) -> String {
        let mut io = HijackIo::new(());
        pieces.iter().for_each(|piece| io.take(piece));
        String::from_utf8_lossy(&io.ready).into_owned()
    }

    #[test]
    fn only_attach_and_exec_without_upgrade_are_changed() {
        let attach = "POST /v1.41/containers/x/attach?stdin=1 HTTP/1.1\r\nHost: d\r\n\r\n";
        let changed = handed_on(&[attach.as_bytes(), b"stdin"]);
        assert!(changed.ends_with("Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nstdin"), "{changed}");
        for same in [
            "GET /info HTTP/1.1\r\nHost: d\r\n\r\n",
            "POST /containers/x/attach HTTP/1.1\r\nUpgrade: tcp\r\n\r\nxy",
            "POST /containers/x/start HTTP/1.1\r\n\r\n",
            "POST /images/load HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
            "nonsense\r\n\r\nmore",
        ] {
            assert_eq!(handed_on(&[same.as_bytes()]), same);
        }
    }

    #[test]
    fn a_request_after_another_s_body_is_found_however_it_is_cut() {
        let both =
            "POST /containers/create HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}POST /exec/x/start HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        for cut in 1..both.len() {
            let changed = handed_on(&[&both.as_bytes()[..cut], &both.as_bytes()[cut..]]);
            assert!(changed.ends_with("Content-Length: 2\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n{}"), "{cut}: {changed}");
        }
    }

    #[tokio::test]
    async fn the_answer_s_head_is_changed_back() {
        let (mut client, server) = tokio::io::duplex(16);
        let mut io = HijackIo::new(server);
        io.writing = Writing::Head(Vec::new());
        let served = tokio::spawn(async move {
            for piece in [
                "HTTP/1.1 100 Continue\r\n\r\n",
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: x\r\nConn",
                "ection: Upgrade\r\nupgrade: tcp\r\n\r\nout",
                "put",
            ] {
                io.write_all(piece.as_bytes()).await.expect("write");
                io.flush().await.expect("flush");
            }
            io.shutdown().await.expect("shutdown");
        });
        let mut seen = String::new();
        client.read_to_string(&mut seen).await.expect("read");
        served.await.expect("served");
        assert_eq!(seen, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: x\r\n\r\noutput");
    }

    #[tokio::test]
    async fn a_refusal_stays_what_it_is() {
        assert_eq!(answer(b"HTTP/1.1 404 Not Found\r\n\r\n"), b"HTTP/1.1 404 Not Found\r\n\r\n");
    }
}
