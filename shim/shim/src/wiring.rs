//! Connects a process's standard streams with where they go.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use shim_logger::{LogUri, Stream};
use shim_ttrpc::Status;

use crate::io::relay::Relay;
use crate::io::set_nonblocking;
use crate::io::sink::Sink;
use crate::io::target::Target;
use crate::server::Server;
use crate::task::{ProcessIo, StdioSpec};

/// The child's ends, to be given to the runtime's command.
#[derive(Debug, Default)]
pub struct ChildEnds {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl ChildEnds {
    pub fn apply(self, command: &mut Command) {
        for (end, set) in [
            (self.stdin, Command::stdin as fn(&mut Command, Stdio) -> &mut Command),
            (self.stdout, Command::stdout),
            (self.stderr, Command::stderr),
        ] {
            if let Some(end) = end {
                set(command, end.into());
            }
        }
    }
}

impl Server {
    /// Pipes for a process without a terminal. `owner` of the pipes: the container's root. On failure nothing stays. `held`: nothing is read
    /// until [`Self::release`], since what the runtime prints when it fails is not the container's.
    ///
    /// # Errors
    /// One line naming the stream.
    pub fn wire_pipes(&mut self, stdio: &StdioSpec, owner: (u32, u32), held: bool) -> Result<(ChildEnds, ProcessIo), Status> {
        let mut io = ProcessIo { held, ..ProcessIo::default() };
        match self.wire_pipes_into(stdio, owner, &mut io) {
            Ok(ends) => Ok((ends, io)),
            Err(status) => {
                self.unwire(&io);
                Err(status)
            }
        }
    }

    fn wire_pipes_into(&mut self, stdio: &StdioSpec, owner: (u32, u32), io: &mut ProcessIo) -> Result<ChildEnds, Status> {
        let mut ends = ChildEnds::default();
        if let Target::Fifo(path) = Target::parse(&stdio.stdin)? {
            let (read, write) = pipe(owner).map_err(failed("stdin"))?;
            set_nonblocking(&write).map_err(failed("stdin"))?;
            io.stdin = Some(self.stdin_relay(&path, write).map_err(failed("stdin"))?);
            ends.stdin = Some(read);
        }
        let stdout = Target::parse(&stdio.stdout)?;
        let stderr = Target::parse(&stdio.stderr)?;
        // One logging program, and one log, serve both streams.
        if let Target::Binary { program, args } = &stdout {
            let (ends_out, ends_err) = self.wire_binary(&stdio.container_id, program, args, owner).map_err(failed("logging binary"))?;
            (ends.stdout, ends.stderr) = (Some(ends_out), Some(ends_err));
            return Ok(ends);
        }
        for (stream, target) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            if target == Target::Null {
                continue;
            }
            let (read, write) = pipe(owner).map_err(failed(stream.name()))?;
            set_nonblocking(&read).map_err(failed(stream.name()))?;
            self.wire_output(stream, &target, read, io)?;
            *(if stream == Stream::Stdout { &mut ends.stdout } else { &mut ends.stderr }) = Some(write);
        }
        Ok(ends)
    }

    /// The terminal's master, on which input and output both go.
    ///
    /// # Errors
    /// One line naming the stream.
    pub fn wire_console(&mut self, stdio: &StdioSpec, master: &OwnedFd) -> Result<ProcessIo, Status> {
        let mut io = ProcessIo::default();
        let wired = self.wire_console_into(stdio, master, &mut io);
        if wired.is_err() {
            self.unwire(&io);
        }
        wired.map(|()| io)
    }

    fn wire_console_into(&mut self, stdio: &StdioSpec, master: &OwnedFd, io: &mut ProcessIo) -> Result<(), Status> {
        // Duplicates: epoll takes each descriptor once.
        if let Target::Fifo(path) = Target::parse(&stdio.stdin)? {
            let to = master.try_clone().map_err(failed("stdin"))?;
            io.stdin = Some(self.stdin_relay(&path, to).map_err(failed("stdin"))?);
        }
        let from = master.try_clone().map_err(failed("terminal"))?;
        match Target::parse(&stdio.stdout)? {
            Target::Binary { program, args } => {
                let (to, _) = self.wire_binary(&stdio.container_id, &program, &args, (0, 0)).map_err(failed("logging binary"))?;
                set_nonblocking(&to).map_err(failed("logging binary"))?;
                io.outputs.push(self.relay(from, to, None));
                Ok(())
            }
            // Someone must read the master, or a loud process would stop.
            Target::Null => self.wire_output(Stream::Stdout, &Target::File("/dev/null".into()), from, io),
            target => self.wire_output(Stream::Stdout, &target, from, io),
        }
    }

    fn wire_output(&mut self, stream: Stream, target: &Target, from: OwnedFd, io: &mut ProcessIo) -> Result<(), Status> {
        let name = stream.name();
        match target {
            Target::Log(uri) => self.sink_output(uri, stream, from, io).map_err(|err| failed(&uri.path.display().to_string())(err)),
            Target::Fifo(path) => {
                // Read-write: neither opening nor writing depends on a reader being there.
                let to = open(path, OFlags::RDWR | OFlags::NONBLOCK).map_err(failed(name))?;
                self.relay_output(from, to, io);
                Ok(())
            }
            Target::File(path) => {
                let to = open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE).map_err(failed(name))?;
                self.relay_output(from, to, io);
                Ok(())
            }
            Target::Null => Ok(()),
            Target::Binary { .. } => {
                Err(Status::new(shim_ttrpc::Code::InvalidArgument, "a logging binary takes stdout and stderr together"))
            }
        }
    }

    fn sink_output(&mut self, uri: &LogUri, stream: Stream, from: OwnedFd, io: &mut ProcessIo) -> io::Result<()> {
        let number = match io.sink {
            Some(number) => number,
            None => {
                let number = self.number();
                let sink = Sink::open(number, uri, io.held, &mut self.poller)?;
                self.sinks.insert(number, sink);
                *io.sink.insert(number)
            }
        };
        self.sinks.get_mut(&number).map_or(Ok(()), |sink| sink.add_output(stream, from, &mut self.poller))
    }

    /// From a FIFO that people write, whose writers may come and go: we hold a writing end, until `CloseIO`.
    fn stdin_relay(&mut self, path: &Path, to: OwnedFd) -> io::Result<u64> {
        let from = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let keep = open(path, OFlags::WRONLY | OFlags::NONBLOCK)?;
        let number = self.relay(from, to, Some(keep));
        Ok(number)
    }

    fn relay(&mut self, from: OwnedFd, to: OwnedFd, keep: Option<OwnedFd>) -> u64 {
        let number = self.number();
        self.relays.insert(number, Relay::new(number, from, to, keep));
        self.turn_relay(number, false);
        number
    }

    fn relay_output(&mut self, from: OwnedFd, to: OwnedFd, io: &mut ProcessIo) {
        if !io.held {
            return io.outputs.push(self.relay(from, to, None));
        }
        let number = self.number();
        self.relays.insert(number, Relay::new(number, from, to, None));
        io.outputs.push(number);
    }

    /// The process is there: what comes now is its own.
    pub fn release(&mut self, io: &ProcessIo) {
        for &number in &io.outputs {
            self.turn_relay(number, false);
        }
        let result = io.sink.and_then(|number| self.sinks.get_mut(&number)).map(|sink| sink.release(&mut self.poller));
        self.note(result);
    }

    /// The process never was: what the runtime printed instead is in its answer.
    pub fn discard(&mut self, io: &ProcessIo) {
        for number in io.stdin.iter().chain(&io.outputs) {
            self.close_relay(*number);
        }
        self.unwire(&ProcessIo { sink: io.sink, ..ProcessIo::default() });
    }

    /// Everything that the ended process wrote is delivered, as far as the receivers take it.
    pub fn drain(&mut self, io: &ProcessIo) {
        for &number in &io.outputs {
            self.turn_relay(number, true);
        }
        if let Some(number) = io.stdin {
            self.close_relay(number);
        }
        if let Some(number) = io.sink {
            let result = self.sinks.get_mut(&number).map(|sink| sink.process_ended(&mut self.poller, &mut self.buffer));
            self.note(result);
            self.sweep_sink(number);
        }
    }

    /// Ends all copying for a process; output that its reader has not taken yet still goes out.
    pub fn unwire(&mut self, io: &ProcessIo) {
        if let Some(number) = io.stdin {
            self.close_relay(number);
        }
        for &number in &io.outputs {
            if let Some(relay) = self.relays.get_mut(&number) {
                relay.close_when_dry();
            }
            self.turn_relay(number, true);
        }
        if let Some(number) = io.sink {
            let result = self.sinks.get_mut(&number).map(|sink| sink.close_outputs(&mut self.poller));
            self.note(result);
            self.sweep_sink(number);
        }
    }

    fn note(&self, result: Option<io::Result<()>>) {
        if let Some(Err(err)) = result {
            self.journal.write(&format!("log: {err}"));
        }
    }
}

fn failed(what: &str) -> impl Fn(io::Error) -> Status {
    let what = what.to_owned();
    move |err| Status::unknown(format!("set up {what}: {err}"))
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o640))
        .map_err(|err| io::Error::new(io::Error::from(err).kind(), format!("open {}: {err}", path.display())))
}

/// The child's end stays blocking; the owner may reopen it through /proc/self/fd.
pub fn pipe((uid, gid): (u32, u32)) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    if uid != 0 || gid != 0 {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(&read, Some(uid), Some(gid))?;
    }
    Ok((read, write))
}
