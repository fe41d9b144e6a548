//! The manager's ends of stdio: FIFOs of exec'd processes and of stdin, and the attach stream of a main process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use rcontainerd_types::{Error, ErrorKind, Result};
use rustix::fs::{FileType, Mode, OFlags};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::client::short_socket_path;
use crate::types::Stdio;

/// A main process's output from now on, as the shim's attach socket gives it (`LogUri::attach`). Connect between `create` and `start` to
/// miss nothing.
#[derive(Debug)]
pub struct AttachStream {
    socket: UnixStream,
    buffer: BytesMut,
}

/// One piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFrame {
    pub stderr: bool,
    pub data: Bytes,
}

const HEADER: usize = 8;
/// The shim sends at most one read's worth.
const MAX_FRAME: usize = 1 << 20;

impl AttachStream {
    /// # Errors
    /// When nobody listens at `socket`: the process has ended.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let failed = |err| Error::io(format!("attach at {}", socket.display()), err);
        let (_directory, short) = short_socket_path(socket).map_err(failed)?;
        let socket = UnixStream::connect(short).await.map_err(failed)?;
        Ok(Self { socket, buffer: BytesMut::new() })
    }

    /// `None` at the end: the process has exited and all its output has been delivered. Cancel-safe.
    ///
    /// # Errors
    /// `ResourceExhausted` when the shim dropped this client for not reading (or died) within a frame.
    pub async fn next(&mut self) -> Result<Option<OutputFrame>> {
        loop {
            if let Some(frame) = self.cut()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(32 * 1024);
            let read = self.socket.read_buf(&mut self.buffer).await.map_err(|err| Error::io("read a container's output", err))?;
            match (read, self.buffer.is_empty()) {
                (0, true) => return Ok(None),
                (0, false) => {
                    return Err(Error::new(
                        ErrorKind::ResourceExhausted,
                        "the container's output was cut off: this client read too slowly",
                    ));
                }
                _ => {}
            }
        }
    }

    fn cut(&mut self) -> Result<Option<OutputFrame>> {
        let Some(&[stream, _, _, _, a, b, c, d]) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > MAX_FRAME || !matches!(stream, 1 | 2) {
            return Err(Error::new(ErrorKind::DataLoss, "the shim's output stream makes no sense"));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(OutputFrame { stderr: stream == 2, data: self.buffer.split_to(length).freeze() }))
    }
}

/// FIFOs made for one process. Keep it until `Task::start` has returned (until then it holds each FIFO open, so that no side sees an end of
/// file too early), then drop it or call [`Self::release`]. Files are removed when it is dropped; open ends go on.
#[derive(Debug)]
pub struct Fifos {
    stdio: Stdio,
    paths: Vec<PathBuf>,
    hold: Vec<OwnedFd>,
    remove: bool,
}

/// The manager's ends.
#[derive(Debug)]
pub struct ProcessPipes {
    pub stdin: Option<pipe::Sender>,
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
}

impl Fifos {
    /// Makes FIFOs (0600) named `<prefix>-stdin` and so on in `dir`, for the streams asked for.
    ///
    /// # Errors
    /// When a FIFO cannot be made; none stays then.
    pub fn create(dir: &Path, prefix: &str, stdin: bool, stdout: bool, stderr: bool) -> Result<Self> {
        let mut fifos = Self { stdio: Stdio::default(), paths: Vec::new(), hold: Vec::new(), remove: true };
        let mut make = |wanted: bool, name: &str| {
            let path = dir.join(format!("{prefix}-{name}"));
            if !wanted {
                return Ok(String::new());
            }
            fifos.make(&path).map_err(|err| Error::io(format!("make the FIFO {}", path.display()), err))?;
            Ok(path.display().to_string())
        };
        let stdio = Stdio { stdin: make(stdin, "stdin")?, stdout: make(stdout, "stdout")?, stderr: make(stderr, "stderr")? };
        fifos.stdio = stdio;
        Ok(fifos)
    }

    fn make(&mut self, path: &Path) -> io::Result<()> {
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        self.paths.push(path.to_owned());
        self.hold.push(rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
        Ok(())
    }

    /// What goes into `CreateTask` or `ExecProcess`.
    pub fn stdio(&self) -> &Stdio {
        &self.stdio
    }

    /// Opens the manager's ends without blocking; call before `Task::exec`/`create`.
    ///
    /// # Errors
    /// When an end cannot be opened.
    pub fn open(&self) -> Result<ProcessPipes> {
        let receiver = |path: &str| {
            if path.is_empty() {
                return Ok(None);
            }
            pipe::OpenOptions::new().open_receiver(path).map(Some).map_err(|err| Error::io(format!("open the FIFO {path}"), err))
        };
        let stdin = if self.stdio.stdin.is_empty() { None } else { Some(Self::open_stdin(Path::new(&self.stdio.stdin))?) };
        Ok(ProcessPipes { stdin, stdout: receiver(&self.stdio.stdout)?, stderr: receiver(&self.stdio.stderr)? })
    }

    /// The process has started: the FIFOs are its and the pipes' alone now. The files stay until this is dropped.
    pub fn release(&mut self) {
        self.hold.clear();
    }

    /// The files stay on disk for good (stdin of a main process, to which later managers attach); whoever removes the directory removes them.
    pub fn keep(mut self) -> Stdio {
        self.remove = false;
        self.stdio.clone()
    }

    /// The writing end of a stdin FIFO of a running container (attach after a restart of the manager).
    ///
    /// # Errors
    /// When nobody holds it open any more.
    pub fn open_stdin(path: &Path) -> Result<pipe::Sender> {
        pipe::OpenOptions::new().open_sender(path).map_err(|err| Error::io(format!("open the FIFO {}", path.display()), err))
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        if self.remove {
            for path in &self.paths {
                // Gone already when its directory was removed.
                drop(std::fs::remove_file(path));
            }
        }
    }
}
