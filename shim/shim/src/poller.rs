//! epoll, level-triggered, with what each descriptor is to us kept beside it.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use shim_logger::Stream;

pub use rustix::event::epoll::EventFlags;

/// Who is to be told when a descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Listener,
    Signals,
    Connection(u64),
    Relay(u64),
    SinkOutput(u64, Stream),
    SinkListener(u64),
    SinkClient(u64, u64),
    SinkService(u64),
    Publisher,
    Oom(u64),
}

#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    sources: BTreeMap<u64, Source>,
    next_token: u64,
}

/// A registration, to be given back to [`Poller::remove`] before its descriptor is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(u64);

impl Poller {
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, sources: BTreeMap::new(), next_token: 0 })
    }

    pub fn add(&mut self, fd: impl AsFd, flags: EventFlags, source: Source) -> io::Result<Token> {
        let token = self.next_token;
        self.next_token += 1;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?;
        self.sources.insert(token, source);
        Ok(Token(token))
    }

    pub fn set(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token.0), flags)?)
    }

    pub fn remove(&mut self, fd: impl AsFd, token: Token) {
        self.sources.remove(&token.0);
        // It fails only when the descriptor is not registered, which is what is wanted.
        epoll::delete(&self.epoll, fd).ok();
    }

    /// Waits for events until `deadline`; an empty answer means that it has come (or a signal did).
    pub fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<(Source, EventFlags)>> {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let timeout = timeout.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut buffer = [MaybeUninit::uninit(); 32];
        match epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) {
            Ok((events, _)) => Ok(events
                .iter()
                .filter_map(|event| {
                    // Copied out: the kernel's struct is packed.
                    let (data, flags) = (event.data, event.flags);
                    self.sources.get(&data.u64()).map(|&source| (source, flags))
                })
                .collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(err) => Err(err.into()),
        }
    }
}
