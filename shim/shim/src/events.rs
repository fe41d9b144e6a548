//! Events to the manager: queued, sent in order one at a time, kept while the manager is away.
//!
//! Overflow policy: at most [`MAX_QUEUED`] wait; the oldest is dropped then (a manager that comes back asks for the state anyway).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use prost::{Message, Name};
use proto_containerd::services::events::ttrpc::v1::ForwardRequest;
use proto_containerd::types::Envelope;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use shim_ttrpc::{Decoder, FrameType, KeyValue, Request, encode};

use crate::poller::{EventFlags, Poller, Source, Token};

pub const MAX_QUEUED: usize = 4096;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// An event that the manager does not acknowledge in this time is sent again on a new connection.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Publisher {
    /// The manager's event socket; without one, events go nowhere.
    address: Option<PathBuf>,
    namespace: String,
    queue: VecDeque<Vec<u8>>,
    link: Link,
    retry: Duration,
}

#[derive(Debug)]
enum Link {
    Down { retry_at: Option<Instant> },
    Up(Channel),
}

#[derive(Debug)]
struct Channel {
    socket: UnixStream,
    token: Token,
    decoder: Decoder,
    out: Vec<u8>,
    next_stream: u32,
    /// Since when the first of the queue is on its way.
    in_flight: Option<Instant>,
}

impl Publisher {
    pub fn new(address: Option<PathBuf>, namespace: &str) -> Self {
        Self { address, namespace: namespace.to_owned(), queue: VecDeque::new(), link: Link::Down { retry_at: None }, retry: FIRST_RETRY }
    }

    /// Queues an event and sends it when the manager can be reached.
    pub fn publish<M: Message + Name>(&mut self, topic: &str, event: &M, poller: &mut Poller) {
        if self.address.is_none() {
            return;
        }
        let event = crate::any(event);
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(event),
        };
        if self.queue.len() == MAX_QUEUED {
            // The first may be on its way: the second is the oldest that can go.
            self.queue.remove(1);
        }
        self.queue.push_back(ForwardRequest { envelope: Some(envelope) }.encode_to_vec());
        if !matches!(self.link, Link::Down { retry_at: Some(_) }) {
            self.advance(poller);
        }
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// When [`Self::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.link {
            Link::Down { retry_at } => *retry_at,
            Link::Up(channel) => channel.in_flight.map(|since| since + ACK_TIMEOUT),
        }
    }

    pub fn tick(&mut self, poller: &mut Poller) {
        if self.deadline().is_none_or(|deadline| deadline > Instant::now()) {
            return;
        }
        if matches!(self.link, Link::Up(_)) {
            self.disconnect(poller);
        } else {
            self.advance(poller);
        }
    }

    /// The socket is ready.
    pub fn ready(&mut self, poller: &mut Poller, buffer: &mut [u8]) {
        let Link::Up(channel) = &mut self.link else { return };
        match channel.receive(buffer) {
            Ok(acknowledged) => {
                for _ in 0..acknowledged {
                    self.queue.pop_front();
                }
                self.advance(poller);
            }
            Err(_) => self.disconnect(poller),
        }
    }

    fn advance(&mut self, poller: &mut Poller) {
        if self.queue.is_empty() && matches!(&self.link, Link::Up(channel) if channel.out.is_empty()) {
            return;
        }
        if self.step(poller).is_err() {
            self.disconnect(poller);
        } else {
            self.retry = FIRST_RETRY;
        }
    }

    fn step(&mut self, poller: &mut Poller) -> io::Result<()> {
        if let Link::Down { .. } = self.link {
            let Some(address) = self.address.as_deref() else { return Ok(()) };
            self.link = Link::Up(Channel::connect(address, poller)?);
        }
        let Link::Up(channel) = &mut self.link else { return Ok(()) };
        if let (None, Some(event)) = (channel.in_flight, self.queue.front()) {
            channel.start(event, &self.namespace)?;
        }
        channel.flush(poller)
    }

    fn disconnect(&mut self, poller: &mut Poller) {
        if let Link::Up(channel) = &self.link {
            poller.remove(&channel.socket, channel.token);
        }
        // With nothing to tell there is no hurry: the next event connects anew.
        let retry_at = (!self.queue.is_empty()).then(|| Instant::now() + self.retry);
        self.link = Link::Down { retry_at };
        self.retry = (self.retry * 2).min(LAST_RETRY);
    }
}

impl Channel {
    fn connect(address: &Path, poller: &mut Poller) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // On a unix socket this succeeds or fails at once.
        rustix::net::connect(&socket, &SocketAddrUnix::new(address)?)?;
        let token = poller.add(&socket, EventFlags::IN, Source::Publisher)?;
        Ok(Self { socket: socket.into(), token, decoder: Decoder::default(), out: Vec::new(), next_stream: 1, in_flight: None })
    }

    fn start(&mut self, event: &[u8], namespace: &str) -> io::Result<()> {
        let request = Request {
            service: "containerd.services.events.ttrpc.v1.Events".to_owned(),
            method: "Forward".to_owned(),
            payload: event.to_vec(),
            timeout_nano: 0,
            metadata: vec![KeyValue { key: "containerd-namespace-ttrpc".to_owned(), value: namespace.to_owned() }],
        };
        self.out.extend(encode(self.next_stream, FrameType::Request, &request).map_err(io::Error::other)?);
        self.next_stream = self.next_stream.wrapping_add(2);
        self.in_flight = Some(Instant::now());
        Ok(())
    }

    fn flush(&mut self, poller: &Poller) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        let flags = if self.out.is_empty() { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
        poller.set(self.socket.as_fd(), self.token, flags)
    }

    /// How many events the manager has taken (an answer with an error status has taken it too: sending again would not help).
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.decoder.push(&buffer[..n]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        let mut acknowledged = 0;
        while self.decoder.next_frame().map_err(io::Error::other)?.is_some() {
            acknowledged += usize::from(self.in_flight.take().is_some());
        }
        Ok(acknowledged)
    }
}
