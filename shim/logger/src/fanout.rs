//! Live output for attached clients: every client has a queue of bounded size and gets frames
//! `[stream, 0, 0, 0, length u32 BE] payload`.
//!
//! Overflow policy, "hold, then drop": while a client's queue is full, [`Fanout::is_congested`] asks the owner to stop reading the container's
//! output, so that a client which reads, however slowly, loses nothing. A client that takes no byte for [`PATIENCE`] is dropped; the
//! container goes on.
//!
//! Does no waiting itself: the owner watches [`Client::fd`] and the deadline.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::record::Stream;

/// A client that accepts nothing for so long is dropped.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes queued for one client at which the source is held back.
pub const QUEUE_LIMIT: usize = 128 * 1024;
/// More clients than this on one container are refused.
pub const MAX_CLIENTS: usize = 64;

const HEADER: usize = 8;

/// The clients of one container.
#[derive(Debug, Default)]
pub struct Fanout {
    clients: Vec<Client>,
    finished: bool,
}

#[derive(Debug)]
pub struct Client {
    id: u64,
    socket: UnixStream,
    queue: VecDeque<u8>,
    /// Since when nothing could be written.
    stuck_since: Option<Instant>,
    dead: bool,
}

impl Client {
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the owner should watch for writability.
    pub fn wants_write(&self) -> bool {
        !self.queue.is_empty()
    }

    fn send(&mut self, header: [u8; HEADER], payload: &[u8], now: Instant) {
        self.queue.extend(header);
        self.queue.extend(payload);
        self.flush(now);
    }

    fn flush(&mut self, now: Instant) {
        while !self.queue.is_empty() && !self.dead {
            match self.socket.write(self.queue.as_slices().0) {
                Ok(0) => self.dead = true,
                Ok(n) => {
                    self.queue.drain(..n);
                    self.stuck_since = None;
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck_since.get_or_insert(now);
                    return;
                }
                // The client is gone: what was queued is nobody's.
                Err(_) => self.dead = true,
            }
        }
        self.queue = VecDeque::new();
    }
}

impl Fanout {
    /// Adds a client from this moment on. `false`: refused, because there are too many or the output has ended (the socket is closed).
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking.
    pub fn add(&mut self, id: u64, socket: OwnedFd) -> io::Result<bool> {
        if self.finished || self.clients.len() >= MAX_CLIENTS {
            return Ok(false);
        }
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        self.clients.push(Client { id, socket, queue: VecDeque::new(), stuck_since: None, dead: false });
        Ok(true)
    }

    pub fn send(&mut self, stream: Stream, payload: &[u8], now: Instant) {
        let Ok(length) = u32::try_from(payload.len()) else { return };
        let [a, b, c, d] = length.to_be_bytes();
        for client in &mut self.clients {
            client.send([stream as u8, 0, 0, 0, a, b, c, d], payload, now);
        }
    }

    /// The client's socket is writable, or the client has hung up.
    pub fn ready(&mut self, id: u64, hung_up: bool, now: Instant) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.dead |= hung_up;
            client.flush(now);
        }
    }

    /// Whether the source should be held back for now.
    pub fn is_congested(&self) -> bool {
        self.clients.iter().any(|client| client.queue.len() >= QUEUE_LIMIT)
    }

    /// When [`Self::drop_stuck`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.clients.iter().filter_map(|client| client.stuck_since).min().map(|since| since + PATIENCE)
    }

    /// Drops clients out of patience.
    pub fn drop_stuck(&mut self, now: Instant) {
        for client in &mut self.clients {
            client.dead |= client.stuck_since.is_some_and(|since| now.duration_since(since) >= PATIENCE);
        }
    }

    /// All output has been sent: each client gets end of file once its queue is empty.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Takes out the clients that are to be closed (gone, dropped, or finished and flushed).
    pub fn take_closed(&mut self) -> Vec<Client> {
        let finished = self.finished;
        self.clients.extract_if(.., |client| client.dead || (finished && client.queue.is_empty())).collect()
    }

    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pair(fanout: &mut Fanout, id: u64) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        assert!(fanout.add(id, ours.into()).expect("add"));
        theirs
    }

    #[test]
    fn frames_reach_every_client_and_end_with_eof() {
        let mut fanout = Fanout::default();
        let mut clients = [pair(&mut fanout, 1), pair(&mut fanout, 2)];
        fanout.send(Stream::Stderr, b"hi", Instant::now());
        fanout.finish();
        drop(fanout.take_closed());
        for client in &mut clients {
            let mut got = Vec::new();
            client.read_to_end(&mut got).expect("read");
            assert_eq!(got, [2, 0, 0, 0, 0, 0, 0, 2, b'h', b'i']);
        }
        assert!(fanout.is_empty());
    }

    #[test]
    fn a_client_that_does_not_read_congests_and_is_dropped_after_patience() {
        let mut fanout = Fanout::default();
        let start = Instant::now();
        let mut stuck = pair(&mut fanout, 1);
        let mut sent = 0;
        while !fanout.is_congested() {
            fanout.send(Stream::Stdout, &[0; 16384], start);
            sent += 1;
            assert!(sent < 1000, "never congested");
        }
        assert!(fanout.clients()[0].queue.len() < QUEUE_LIMIT + 2 * 16384, "the queue is bounded");
        fanout.drop_stuck(start + PATIENCE / 2);
        assert!(fanout.take_closed().is_empty(), "still patient");
        // One byte taken is progress enough.
        stuck.read_exact(&mut [0; 65536]).expect("read");
        fanout.ready(1, false, start + PATIENCE / 2);
        fanout.drop_stuck(start + PATIENCE);
        assert!(fanout.take_closed().is_empty(), "progress was made");
        fanout.drop_stuck(start + PATIENCE * 2);
        assert_eq!(fanout.take_closed().len(), 1);
        assert!(!fanout.is_congested());
    }

    #[test]
    fn a_client_that_hung_up_is_closed_and_the_number_is_limited() {
        let mut fanout = Fanout::default();
        let mut others: Vec<_> = (0..MAX_CLIENTS as u64).map(|id| pair(&mut fanout, id)).collect();
        let (extra, _far) = UnixStream::pair().expect("socketpair");
        assert!(!fanout.add(999, extra.into()).expect("add"));
        drop(others.remove(0));
        fanout.send(Stream::Stdout, b"x", Instant::now());
        assert_eq!(fanout.take_closed().iter().map(Client::id).collect::<Vec<_>>(), [0]);
    }
}
