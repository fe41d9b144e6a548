//! Copies one descriptor to another with back-pressure: what the destination does not take stays here (at most one chunk), and nothing is
//! read meanwhile.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::poller::{EventFlags, Poller, Source, Token};

#[derive(Debug)]
pub struct Relay {
    id: u64,
    from: OwnedFd,
    to: OwnedFd,
    /// Held open for the other side's sake: our own end of a FIFO, so that a peer which comes and goes is no end of file.
    pub keep: Option<OwnedFd>,
    pending: Vec<u8>,
    watched: Watched,
    /// Ends as soon as the source is dry, without waiting for its end.
    closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Nothing,
    From(Token),
    To(Token),
}

/// Chunks per turn, so that one loud process does not starve the others.
const CHUNKS_PER_TURN: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Open,
    /// The source has ended and all is delivered, or the destination is gone.
    Ended,
}

impl Relay {
    /// Both descriptors must be non-blocking, or regular files.
    pub fn new(id: u64, from: OwnedFd, to: OwnedFd, keep: Option<OwnedFd>) -> Self {
        Self { id, from, to, keep, pending: Vec::new(), watched: Watched::Nothing, closing: false }
    }

    /// Copies what can be copied now and registers for the rest. `until_dry`: without regard for fairness, since the process has ended.
    pub fn turn(&mut self, poller: &mut Poller, buffer: &mut [u8], until_dry: bool) -> io::Result<Progress> {
        let mut chunks = 0;
        loop {
            if !self.flush_pending()? {
                return self.watch_to(poller);
            }
            if chunks == CHUNKS_PER_TURN && !until_dry {
                return self.watch_from(poller);
            }
            chunks += 1;
            match rustix::io::read(&self.from, &mut *buffer) {
                // EIO: the last slave end of a terminal has been closed.
                Ok(0) | Err(Errno::IO) => return Ok(Progress::Ended),
                Ok(n) => self.deliver(&buffer[..n])?,
                Err(Errno::AGAIN) if self.closing => return Ok(Progress::Ended),
                Err(Errno::AGAIN) => return self.watch_from(poller),
                Err(Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }

    /// The process is gone: what it wrote is still delivered, what a daemon of its may write later is not.
    pub fn close_when_dry(&mut self) {
        self.closing = true;
    }

    fn deliver(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.to, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::AGAIN) => {
                    self.pending = bytes.to_vec();
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(())
    }

    /// Whether nothing is left.
    fn flush_pending(&mut self) -> io::Result<bool> {
        let pending = std::mem::take(&mut self.pending);
        self.deliver(&pending)?;
        Ok(self.pending.is_empty())
    }

    fn watch_from(&mut self, poller: &mut Poller) -> io::Result<Progress> {
        if !matches!(self.watched, Watched::From(_)) {
            self.unwatch(poller);
            self.watched = Watched::From(poller.add(&self.from, EventFlags::IN, Source::Relay(self.id))?);
        }
        Ok(Progress::Open)
    }

    fn watch_to(&mut self, poller: &mut Poller) -> io::Result<Progress> {
        if !matches!(self.watched, Watched::To(_)) {
            self.unwatch(poller);
            self.watched = Watched::To(poller.add(&self.to, EventFlags::OUT, Source::Relay(self.id))?);
        }
        Ok(Progress::Open)
    }

    /// Before it is dropped.
    pub fn unwatch(&mut self, poller: &mut Poller) {
        match std::mem::replace(&mut self.watched, Watched::Nothing) {
            Watched::From(token) => poller.remove(&self.from, token),
            Watched::To(token) => poller.remove(&self.to, token),
            Watched::Nothing => {}
        }
    }
}
