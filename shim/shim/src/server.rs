//! The loop: one thread, one epoll. Everything that can be waited for is a [`Source`]; handlers never block.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use proto_containerd::task::v3::StateRequest;
use rrun_sys::process::Ended;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use shim_ttrpc::Status;

use crate::connection::{Connection, ReplyTo};
use crate::events::Publisher;
use crate::io::relay::{Progress, Relay};
use crate::io::sink::Sink;
use crate::jobs::Job;
use crate::journal::Journal;
use crate::poller::{EventFlags, Poller, Source};
use crate::sandbox::Sandbox;
use crate::task::Container;

/// One read; also Docker's piece size, so that a full read of a long line is one record.
const BUFFER: usize = 16 * 1024;
/// How long events and unread output may delay the end after `Shutdown`.
const FAREWELL: Duration = Duration::from_secs(10);

/// What the shim was started with.
#[derive(Debug)]
pub struct Setup {
    pub namespace: String,
    /// Directory of the manager's socket.
    pub state: PathBuf,
    /// Our own socket.
    pub socket: PathBuf,
    /// Its directory: console sockets are made there, since their paths must be short.
    pub sockets: PathBuf,
}

pub struct Server {
    pub setup: Setup,
    pub poller: Poller,
    pub journal: Journal,
    pub publisher: Publisher,
    pub containers: BTreeMap<String, Container>,
    pub relays: BTreeMap<u64, Relay>,
    pub sinks: BTreeMap<u64, Sink>,
    pub jobs: BTreeMap<i32, Job>,
    /// Children that ended while a job was under way whose child they may be.
    pub unclaimed: BTreeMap<i32, (Ended, SystemTime)>,
    /// Who asked for a container's state that is just changing.
    pub askers: Vec<(ReplyTo, StateRequest)>,
    /// What the containers share, when a caller has made one.
    pub sandbox: Option<Sandbox>,
    pub stopping: Option<Instant>,
    listener: OwnedFd,
    signals: OwnedFd,
    connections: BTreeMap<u64, Connection>,
    next_number: u64,
    pub buffer: Vec<u8>,
}

impl Server {
    /// # Errors
    /// When epoll cannot be set up.
    pub fn new(setup: Setup, listener: OwnedFd, signals: OwnedFd, publisher: Publisher, journal: Journal) -> Result<Self> {
        let mut poller = Poller::new().context("epoll")?;
        poller.add(&listener, EventFlags::IN, Source::Listener).context("watch the socket")?;
        poller.add(&signals, EventFlags::IN, Source::Signals).context("watch signals")?;
        Ok(Self {
            setup,
            poller,
            journal,
            publisher,
            containers: BTreeMap::new(),
            relays: BTreeMap::new(),
            sinks: BTreeMap::new(),
            jobs: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            askers: Vec::new(),
            sandbox: None,
            stopping: None,
            listener,
            signals,
            connections: BTreeMap::new(),
            next_number: 1,
            buffer: vec![0; BUFFER],
        })
    }

    /// Serves until `Shutdown`.
    ///
    /// # Errors
    /// When epoll itself fails.
    pub fn run(&mut self) -> Result<()> {
        while !self.may_end() {
            let deadline = self.deadline();
            for (source, flags) in self.poller.wait(deadline).context("epoll_wait")? {
                if let Err(err) = self.handle(source, flags) {
                    self.journal.write(&format!("{source:?}: {err}"));
                }
            }
            self.tick();
        }
        Ok(())
    }

    /// A number for a connection, relay, sink or container.
    pub fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub fn reply(&mut self, to: ReplyTo, result: Result<Vec<u8>, Status>) {
        let Some(connection) = self.connections.get_mut(&to.connection) else { return };
        let good = connection.send(to.stream, result) && watch_output(&self.poller, connection).is_ok();
        if !good {
            self.drop_connection(to.connection);
        }
    }

    fn may_end(&self) -> bool {
        self.stopping.is_some_and(|since| {
            let flushed = self.connections.values().all(|connection| !connection.wants_write());
            // A signal's sender may still wait for the runtime that sent it.
            let told = flushed && self.publisher.is_idle() && self.relays.is_empty() && self.jobs.is_empty();
            // Attached clients have their own limit of patience.
            self.sinks.values().all(Sink::is_done) && (told || since.elapsed() >= FAREWELL)
        })
    }

    fn deadline(&self) -> Option<Instant> {
        let sinks = self.sinks.values().filter_map(Sink::deadline);
        let farewell = self.stopping.map(|since| since + FAREWELL).filter(|&end| end > Instant::now());
        sinks.chain(self.publisher.deadline()).chain(farewell).chain(self.sandbox_deadline()).min()
    }

    fn handle(&mut self, source: Source, flags: EventFlags) -> io::Result<()> {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => self.signals(),
            Source::Connection(number) => {
                self.serve(number, flags);
                Ok(())
            }
            Source::Relay(number) => {
                self.turn_relay(number, false);
                Ok(())
            }
            Source::SinkOutput(number, stream) => {
                let result = self.sinks.get_mut(&number).map(|sink| sink.output_ready(stream, &mut self.poller, &mut self.buffer));
                self.sweep_sink(number);
                result.unwrap_or(Ok(()))
            }
            Source::SinkListener(number) => self.sinks.get_mut(&number).map_or(Ok(()), |sink| sink.accept(&mut self.poller)),
            Source::SinkClient(number, client) => {
                let result = self.sinks.get_mut(&number).map(|sink| sink.client_ready(client, flags, &mut self.poller));
                self.sweep_sink(number);
                result.unwrap_or(Ok(()))
            }
            Source::SinkService(number) => {
                let result = self.sinks.get_mut(&number).map(|sink| sink.tick(&mut self.poller));
                self.sweep_sink(number);
                result.unwrap_or(Ok(()))
            }
            Source::Publisher => {
                self.publisher.ready(&mut self.poller, &mut self.buffer);
                Ok(())
            }
            Source::Oom(number) => {
                self.oom(number);
                Ok(())
            }
        }
    }

    fn tick(&mut self) {
        self.publisher.tick(&mut self.poller);
        let now = Instant::now();
        if self.sandbox_deadline().is_some_and(|deadline| deadline <= now) {
            self.kill_sandbox();
        }
        for sink in self.sinks.values_mut().filter(|sink| sink.deadline().is_some_and(|deadline| deadline <= now)) {
            if let Err(err) = sink.tick(&mut self.poller) {
                self.journal.write(&format!("log: {err}"));
            }
        }
        self.sinks.retain(|_, sink| !sink.is_done());
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    let number = self.number();
                    let token = self.poller.add(&socket, EventFlags::IN, Source::Connection(number))?;
                    self.connections.insert(number, Connection::new(socket, token));
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }

    fn serve(&mut self, number: u64, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if flags.contains(EventFlags::OUT) && !(connection.flush() && watch_output(&self.poller, connection).is_ok()) {
            return self.drop_connection(number);
        }
        let Some(requests) = connection.receive(&mut self.buffer) else { return self.drop_connection(number) };
        for (stream, request) in requests {
            self.dispatch(ReplyTo { connection: number, stream }, &request);
        }
    }

    fn drop_connection(&mut self, number: u64) {
        if let Some(connection) = self.connections.remove(&number) {
            self.poller.remove(connection.fd(), connection.token);
        }
    }

    fn signals(&mut self) -> io::Result<()> {
        while rrun_sys::process::next_signal(&self.signals)?.is_some() {}
        while let Some((pid, ended)) = rrun_sys::process::reap_any()? {
            self.child_ended(pid, ended);
        }
        Ok(())
    }

    /// Copies what there is; a relay that has ended is closed, so that its destination sees end of file.
    pub fn turn_relay(&mut self, number: u64, until_dry: bool) {
        let Some(relay) = self.relays.get_mut(&number) else { return };
        match relay.turn(&mut self.poller, &mut self.buffer, until_dry) {
            Ok(Progress::Open) => {}
            // A destination that is gone (EPIPE) ends the copying like an end of the source.
            Ok(Progress::Ended) | Err(_) => self.close_relay(number),
        }
    }

    pub fn close_relay(&mut self, number: u64) {
        if let Some(mut relay) = self.relays.remove(&number) {
            relay.unwatch(&mut self.poller);
        }
    }

    pub fn sweep_sink(&mut self, number: u64) {
        if self.sinks.get(&number).is_some_and(Sink::is_done) {
            self.sinks.remove(&number);
        }
    }
}

fn watch_output(poller: &Poller, connection: &Connection) -> io::Result<()> {
    let flags = if connection.wants_write() { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
    poller.set(connection.fd(), connection.token, flags)
}
