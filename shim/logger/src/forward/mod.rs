//! A service of the host that gets a container's output: journald or syslog.
//!
//! Overflow policy, "hold, then drop", as for attached clients: while the service takes nothing, messages are queued, and beyond
//! [`QUEUE_LIMIT`] the container is held back, so that a service which is slow or restarted loses nothing. One that takes nothing for
//! [`PATIENCE`] loses what is queued; the first message that it takes again is preceded by one that tells how many bytes were lost and why.
//! In Docker's non-blocking mode the container is never held back, and what does not fit into the queue is lost in the same way.
//!
//! Does no waiting itself but for the first connection: the owner watches [`Forward::connection`] and the deadline. Nothing wakes up while
//! there is nothing to send.

mod journald;
mod link;
mod syslog;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};

use crate::fanout::{PATIENCE, QUEUE_LIMIT};
use crate::record::Stream;
use link::Link;
pub use syslog::{Address, Format, Syslog};

/// Between two attempts to connect again.
const RETRY: Duration = Duration::from_secs(1);

/// Where to, as the manager has resolved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardTo {
    pub service: Service,
    /// Bytes queued at which messages are dropped (`mode=non-blocking`); `None` holds the container back instead.
    pub drop_beyond: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Service {
    /// By its native protocol, with these fields in each entry.
    Journald {
        socket: PathBuf,
        fields: BTreeMap<String, String>,
    },
    Syslog(Syslog),
}

impl Service {
    fn encode(&self, stream: Stream, piece: &[u8], time: SystemTime) -> Vec<u8> {
        match self {
            Self::Journald { fields, .. } => journald::entry(fields, stream, piece, time),
            Self::Syslog(syslog) => syslog.message(stream, piece, time),
        }
    }

    fn connect(&self) -> io::Result<Link> {
        match self {
            Self::Journald { socket, .. } => link::datagram(socket),
            Self::Syslog(syslog) => syslog.connect(),
        }
    }
}

#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    /// Bytes of the container's output that are lost with it.
    output: u64,
}

#[derive(Debug)]
pub struct Forward {
    to: ForwardTo,
    link: Option<Link>,
    /// Broken, and perhaps still watched by the owner.
    closed: Option<OwnedFd>,
    queue: VecDeque<Message>,
    queued: usize,
    /// How much of the first message a stream has taken.
    sent: usize,
    /// Since when nothing is taken.
    stuck_since: Option<Instant>,
    retry_at: Option<Instant>,
    lost: u64,
    /// What was last heard of the service.
    why: String,
}

impl Forward {
    /// # Errors
    /// When the service cannot be connected to: a container whose output nobody would get is not started.
    pub fn open(to: &ForwardTo) -> io::Result<Self> {
        let link = to.service.connect()?;
        link.wait_until_connected()?;
        Ok(Self {
            to: to.clone(),
            link: Some(link),
            closed: None,
            queue: VecDeque::new(),
            queued: 0,
            sent: 0,
            stuck_since: None,
            retry_at: None,
            lost: 0,
            why: String::new(),
        })
    }

    /// A line, or a piece of a longer one.
    pub fn send(&mut self, stream: Stream, piece: &[u8], time: SystemTime, now: Instant) {
        let full = self.to.drop_beyond.is_some_and(|limit| self.queued + piece.len() > limit);
        if full && !self.queue.is_empty() {
            "the service is too slow".clone_into(&mut self.why);
            self.lost += piece.len() as u64;
        } else {
            if self.lost > 0 && self.queue.is_empty() {
                let note = format!("[log: {} bytes of output lost: {}]\n", self.lost, self.why);
                let output = std::mem::take(&mut self.lost);
                self.push(self.to.service.encode(Stream::Stderr, note.as_bytes(), time), output);
            }
            self.push(self.to.service.encode(stream, piece, time), piece.len() as u64);
        }
        self.tick(now);
    }

    fn push(&mut self, bytes: Vec<u8>, output: u64) {
        self.queued += bytes.len();
        self.queue.push_back(Message { bytes, output });
    }

    /// Time has passed, or the service may take more.
    pub fn tick(&mut self, now: Instant) {
        self.flush(now);
        if self.stuck_since.is_some_and(|since| now.duration_since(since) >= PATIENCE) {
            if self.link.is_some() {
                "the service takes nothing".clone_into(&mut self.why);
            }
            self.lost += self.queue.drain(..).map(|message| message.output).sum::<u64>();
            self.queued = 0;
            // A stream that has taken a part of a message gets no more of it: the rest would be taken for a message.
            if std::mem::take(&mut self.sent) > 0 {
                self.broken("the service takes nothing", now);
            }
        }
    }

    fn flush(&mut self, now: Instant) {
        loop {
            if !self.queue.is_empty() && self.link.is_none() {
                self.connect(now);
            }
            let (Some(message), Some(link)) = (self.queue.front(), &self.link) else { return };
            if link.has_ended() {
                self.broken("the service has closed the connection", now);
                continue;
            }
            match rustix::net::send(&link.socket, &message.bytes[self.sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(taken) if link.is_stream && self.sent + taken < message.bytes.len() => {
                    self.sent += taken;
                    self.stuck_since = None;
                }
                Ok(_) => {
                    self.stuck_since = None;
                    self.pop();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    self.stuck_since.get_or_insert(now);
                    return;
                }
                Err(Errno::MSGSIZE) => {
                    "the message is longer than the service takes".clone_into(&mut self.why);
                    self.lost += self.pop();
                }
                Err(err) => {
                    let why = io::Error::from(err).to_string();
                    self.broken(&why, now);
                }
            }
        }
    }

    fn pop(&mut self) -> u64 {
        self.sent = 0;
        let Some(message) = self.queue.pop_front() else { return 0 };
        self.queued -= message.bytes.len();
        message.output
    }

    fn connect(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = Some(now + RETRY);
        match self.to.service.connect() {
            Ok(link) => self.link = Some(link),
            Err(err) => self.why = err.to_string(),
        }
    }

    /// The message that was under way is sent again as a whole.
    fn broken(&mut self, why: &str, now: Instant) {
        why.clone_into(&mut self.why);
        self.stuck_since.get_or_insert(now);
        self.sent = 0;
        let socket = self.link.take().map(|link| link.socket);
        // The first one may be watched; those that broke since then were never seen by the owner.
        self.closed = self.closed.take().or(socket);
    }

    /// Whether the source should be held back for now.
    pub fn is_congested(&self) -> bool {
        self.to.drop_beyond.is_none() && self.queued >= QUEUE_LIMIT
    }

    pub fn is_dry(&self) -> bool {
        self.queue.is_empty()
    }

    /// When [`Self::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        let since = self.stuck_since.filter(|_| !self.queue.is_empty())?;
        let retry = self.retry_at.filter(|_| self.link.is_none());
        Some(retry.map_or(since + PATIENCE, |at| at.min(since + PATIENCE)))
    }

    /// To be watched for writability while [`Self::is_dry`] is not so; another one whenever [`Self::take_closed`] gave the last one out.
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(|link| link.socket.as_fd())
    }

    /// A connection that broke, to be closed once it is not watched any more.
    pub fn take_closed(&mut self) -> Option<OwnedFd> {
        self.closed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    fn journald(socket: &Path, drop_beyond: Option<usize>) -> ForwardTo {
        ForwardTo { service: Service::Journald { socket: socket.to_owned(), fields: BTreeMap::new() }, drop_beyond }
    }

    fn syslog(address: Address) -> ForwardTo {
        let syslog = Syslog { address, format: Format::Rfc5424, facility: 3, tag: "t".to_owned(), hostname: "h".to_owned() };
        ForwardTo { service: Service::Syslog(syslog), drop_beyond: None }
    }

    fn messages(server: &UnixDatagram) -> Vec<String> {
        server.set_nonblocking(true).expect("set");
        let mut found = Vec::new();
        let mut buffer = [0; 32 * 1024];
        while let Ok(length) = server.recv(&mut buffer) {
            let text = std::str::from_utf8(&buffer[..length]).expect("text");
            found.push(text.lines().next().expect("a line").to_owned());
        }
        found
    }

    #[test]
    fn a_service_that_is_not_there_is_told_by_name() {
        let dir = tempfile::tempdir().expect("temp dir");
        let err = Forward::open(&journald(&dir.path().join("none"), None)).expect_err("nobody listens");
        assert!(err.to_string().contains("/none: No such file"), "{err}");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let err = Forward::open(&syslog(Address::Tcp(vec![free]))).expect_err("nobody listens");
        assert!(err.to_string().contains("refused"), "{err}");
    }

    #[test]
    fn a_slow_service_holds_the_source_and_loses_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s");
        let server = UnixDatagram::bind(&path).expect("bind");
        let mut forward = Forward::open(&journald(&path, None)).expect("open");
        let now = Instant::now();
        let mut sent = 0;
        while !forward.is_congested() {
            forward.send(Stream::Stdout, format!("{sent:0>1000}\n").as_bytes(), UNIX_EPOCH, now);
            sent += 1;
            assert!(sent < 10_000, "never congested");
        }
        assert!(!forward.is_dry() && forward.deadline() == Some(now + PATIENCE));
        let mut found = Vec::new();
        while !forward.is_dry() {
            found.extend(messages(&server));
            forward.tick(now);
        }
        found.extend(messages(&server));
        assert_eq!(found, (0..sent).map(|n| format!("MESSAGE={n:0>1000}")).collect::<Vec<_>>());
        assert!(forward.deadline().is_none(), "it would wake up for nothing");
    }

    #[test]
    fn a_service_that_takes_nothing_loses_and_is_told() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s");
        let server = UnixDatagram::bind(&path).expect("bind");
        let mut forward = Forward::open(&journald(&path, None)).expect("open");
        let now = Instant::now();
        while forward.is_dry() {
            forward.send(Stream::Stdout, b"12345\n", UNIX_EPOCH, now);
        }
        forward.tick(now + PATIENCE);
        assert!(forward.is_dry() && !forward.is_congested());
        messages(&server);
        forward.send(Stream::Stdout, b"again\n", UNIX_EPOCH, now + PATIENCE);
        assert_eq!(messages(&server), ["MESSAGE=[log: 6 bytes of output lost: the service takes nothing]", "MESSAGE=again"]);
    }

    #[test]
    fn without_blocking_what_does_not_fit_is_lost_and_told() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s");
        let server = UnixDatagram::bind(&path).expect("bind");
        let mut forward = Forward::open(&journald(&path, Some(2000))).expect("open");
        let now = Instant::now();
        for _ in 0..3000 {
            forward.send(Stream::Stdout, &[b'x'; 1000], UNIX_EPOCH, now);
            assert!(!forward.is_congested() && forward.queued < 4000);
        }
        while !forward.is_dry() {
            messages(&server);
            forward.tick(now);
        }
        messages(&server);
        forward.send(Stream::Stdout, b"again\n", UNIX_EPOCH, now);
        let found = messages(&server);
        assert!(found[0].contains("bytes of output lost: the service is too slow") && found[1] == "MESSAGE=again", "{found:?}");
    }

    #[test]
    fn a_service_that_is_restarted_gets_what_came_meanwhile() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s");
        let server = UnixDatagram::bind(&path).expect("bind");
        let mut forward = Forward::open(&journald(&path, None)).expect("open");
        let now = Instant::now();
        drop(server);
        std::fs::remove_file(&path).expect("remove");
        forward.send(Stream::Stdout, b"1\n", UNIX_EPOCH, now);
        forward.send(Stream::Stdout, b"2\n", UNIX_EPOCH, now);
        assert!(forward.take_closed().is_some() && forward.deadline() == Some(now + RETRY));
        let server = UnixDatagram::bind(&path).expect("bind");
        forward.tick(now + RETRY);
        assert_eq!(messages(&server), ["MESSAGE=1", "MESSAGE=2"]);
    }

    #[test]
    fn a_stream_that_was_closed_is_made_anew_before_anything_is_sent() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s");
        let server = UnixListener::bind(&path).expect("bind");
        let mut forward = Forward::open(&syslog(Address::Unix(path))).expect("open");
        drop(server.accept().expect("accept"));
        forward.send(Stream::Stderr, b"line\n", UNIX_EPOCH, Instant::now());
        let (mut connection, _) = server.accept().expect("accept");
        drop(forward);
        let mut text = String::new();
        io::Read::read_to_string(&mut connection, &mut text).expect("read");
        assert!(text.starts_with("<27>1 1970-01-01T0") && text.contains(" h t ") && text.ends_with(" t - line\n"), "{text}");
    }
}
