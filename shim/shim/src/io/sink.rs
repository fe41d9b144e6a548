//! `rrun-log://`: output goes to the log file, to a service of the host and to attached clients.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use shim_logger::{Fanout, LogUri, LogWriter, Stream};

use crate::poller::{EventFlags, Poller, Source, Token};

/// A process's log and its attached clients.
#[derive(Debug)]
pub struct Sink {
    id: u64,
    writer: LogWriter,
    fanout: Fanout,
    outputs: Vec<Output>,
    listener: Option<Listener>,
    clients: Vec<(u64, Token, bool)>,
    next_client: u64,
    /// Of the connection to a service that takes nothing just now.
    service: Option<Token>,
    /// The process has been reaped: end of file may be told as soon as all outputs have ended.
    process_ended: bool,
    finished: bool,
    /// Nothing is read yet.
    held: bool,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    fd: OwnedFd,
    /// `None` while held, or held back by a congested client or service.
    token: Option<Token>,
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    token: Token,
    path: PathBuf,
}

const CHUNKS_PER_TURN: usize = 16;

impl Sink {
    /// # Errors
    /// When the log file or the attach socket cannot be made.
    pub fn open(id: u64, uri: &LogUri, held: bool, poller: &mut Poller) -> io::Result<Self> {
        let writer = LogWriter::open(uri)?;
        let listener = match &uri.attach {
            Some(path) => {
                let socket = listen(path)?;
                let token = poller.add(&socket, EventFlags::IN, Source::SinkListener(id))?;
                Some(Listener { socket, token, path: path.clone() })
            }
            None => None,
        };
        Ok(Self {
            id,
            writer,
            fanout: Fanout::default(),
            outputs: Vec::new(),
            listener,
            clients: Vec::new(),
            next_client: 0,
            service: None,
            process_ended: false,
            finished: false,
            held,
        })
    }

    /// Takes over a non-blocking descriptor to read from.
    pub fn add_output(&mut self, stream: Stream, fd: OwnedFd, poller: &mut Poller) -> io::Result<()> {
        self.outputs.push(Output { stream, fd, token: None });
        self.hold_or_resume(poller)
    }

    pub fn release(&mut self, poller: &mut Poller) -> io::Result<()> {
        self.held = false;
        self.hold_or_resume(poller)
    }

    /// Reads what one output has.
    pub fn output_ready(&mut self, stream: Stream, poller: &mut Poller, buffer: &mut [u8]) -> io::Result<()> {
        self.read_output(stream, poller, buffer, false);
        self.settle(poller)
    }

    /// The process has ended: everything that it wrote is taken now, clients congested or not (a pipe holds 64 KiB at most).
    pub fn process_ended(&mut self, poller: &mut Poller, buffer: &mut [u8]) -> io::Result<()> {
        self.process_ended = true;
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_output(stream, poller, buffer, true);
        }
        self.settle(poller)
    }

    fn read_output(&mut self, stream: Stream, poller: &mut Poller, buffer: &mut [u8], until_dry: bool) {
        let Some(at) = self.outputs.iter().position(|output| output.stream == stream) else { return };
        let mut chunks = 0;
        while until_dry || (chunks < CHUNKS_PER_TURN && !self.is_congested()) {
            chunks += 1;
            match rustix::io::read(&self.outputs[at].fd, &mut *buffer) {
                Ok(n) if n > 0 => {
                    self.fanout.send(stream, &buffer[..n], Instant::now());
                    self.writer.write(stream, &buffer[..n], SystemTime::now());
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // End of file; EIO is a terminal's.
                _ => {
                    let output = self.outputs.remove(at);
                    if let Some(token) = output.token {
                        poller.remove(&output.fd, token);
                    }
                    return;
                }
            }
        }
    }

    /// A new client knocks.
    pub fn accept(&mut self, poller: &mut Poller) -> io::Result<()> {
        while let Some(listener) = &self.listener {
            match rustix::net::accept_with(&listener.socket, SocketFlags::CLOEXEC) {
                Ok(socket) => self.add_client(socket, poller)?,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(())
    }

    fn add_client(&mut self, socket: OwnedFd, poller: &mut Poller) -> io::Result<()> {
        let client = self.next_client;
        self.next_client += 1;
        if self.fanout.add(client, socket)?
            && let Some(added) = self.fanout.clients().last()
        {
            let token = poller.add(added.fd(), EventFlags::RDHUP, Source::SinkClient(self.id, client))?;
            self.clients.push((client, token, false));
        }
        Ok(())
    }

    pub fn client_ready(&mut self, client: u64, flags: EventFlags, poller: &mut Poller) -> io::Result<()> {
        let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        self.fanout.ready(client, hung_up, Instant::now());
        self.settle(poller)
    }

    /// Time has passed, or the service may take more: clients out of patience go.
    pub fn tick(&mut self, poller: &mut Poller) -> io::Result<()> {
        let now = Instant::now();
        self.fanout.drop_stuck(now);
        self.writer.tick(now);
        self.settle(poller)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.fanout.deadline().into_iter().chain(self.writer.deadline()).min()
    }

    fn is_congested(&self) -> bool {
        self.fanout.is_congested() || self.writer.is_congested()
    }

    /// Whether everything has been written and every client served.
    pub fn is_done(&self) -> bool {
        self.finished && self.fanout.is_empty() && self.writer.is_dry()
    }

    /// No more output is taken, whoever still holds the other end (the container has been deleted).
    pub fn close_outputs(&mut self, poller: &mut Poller) -> io::Result<()> {
        for output in self.outputs.drain(..) {
            if let Some(token) = output.token {
                poller.remove(&output.fd, token);
            }
        }
        self.process_ended = true;
        self.settle(poller)
    }

    /// Brings registrations in line with the state.
    fn settle(&mut self, poller: &mut Poller) -> io::Result<()> {
        if self.process_ended && self.outputs.is_empty() && !self.finished {
            self.finish(poller);
        }
        for closed in self.fanout.take_closed() {
            if let Some(at) = self.clients.iter().position(|&(id, ..)| id == closed.id()) {
                let (_, token, _) = self.clients.swap_remove(at);
                poller.remove(closed.fd(), token);
            }
        }
        for client in self.fanout.clients() {
            let Some((_, token, writing)) = self.clients.iter_mut().find(|(id, ..)| *id == client.id()) else { continue };
            if *writing != client.wants_write() {
                *writing = client.wants_write();
                let flags = if *writing { EventFlags::RDHUP | EventFlags::OUT } else { EventFlags::RDHUP };
                poller.set(client.fd(), *token, flags)?;
            }
        }
        self.watch_service(poller)?;
        self.hold_or_resume(poller)
    }

    fn watch_service(&mut self, poller: &mut Poller) -> io::Result<()> {
        // The one that is watched: it was given out by `connection` until now, or it broke.
        let closed = self.writer.take_closed();
        let watched = closed.as_ref().map(AsFd::as_fd).or_else(|| self.writer.connection());
        if let (Some(token), Some(watched)) = (self.service, watched)
            && (closed.is_some() || self.writer.is_dry())
        {
            poller.remove(watched, token);
            self.service = None;
        }
        if let (None, false, Some(connection)) = (self.service, self.writer.is_dry(), self.writer.connection()) {
            self.service = Some(poller.add(connection, EventFlags::OUT, Source::SinkService(self.id))?);
        }
        Ok(())
    }

    fn hold_or_resume(&mut self, poller: &mut Poller) -> io::Result<()> {
        let hold = self.held || self.is_congested();
        for output in &mut self.outputs {
            match (output.token, hold) {
                // Taken out whole: hang-up would be reported even without interest.
                (Some(token), true) => {
                    poller.remove(&output.fd, token);
                    output.token = None;
                }
                (None, false) => output.token = Some(poller.add(&output.fd, EventFlags::IN, Source::SinkOutput(self.id, output.stream))?),
                _ => {}
            }
        }
        Ok(())
    }

    fn finish(&mut self, poller: &mut Poller) {
        self.finished = true;
        self.writer.finish(SystemTime::now());
        self.fanout.finish();
        if let Some(listener) = self.listener.take() {
            poller.remove(&listener.socket, listener.token);
            // Left over, it would only refuse connections; the bundle's removal takes it then.
            drop(std::fs::remove_file(&listener.path));
        }
    }
}

/// Listens at `path` (0600) of any length: bound through a descriptor of its directory.
///
/// # Errors
/// When the directory is not there or the socket cannot be made.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket needs a directory and a name"));
    };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(err) => return Err(err.into()),
    }
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // Before it is bound: the file is made with the socket's own mode.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    let short = Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&directory).to_string()).join(name);
    rustix::net::bind(&socket, &SocketAddrUnix::new(&short)?)?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}
