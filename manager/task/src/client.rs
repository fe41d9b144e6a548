//! A ttrpc client on tokio: many calls at once over one connection.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use rcontainerd_types::{Error, ErrorKind, Result};
use shim_ttrpc::{Code, Decoder, FrameType, Request, Response, Status, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

/// One connection to a shim. Dropping the last clone closes it.
#[derive(Debug)]
pub struct Client {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    shared: Arc<Shared>,
    next_stream: AtomicU32,
    reader: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    closed: AtomicBool,
    /// Wakes whoever waits for the end of the connection.
    ended: tokio::sync::Notify,
    waiting: Mutex<HashMap<u32, oneshot::Sender<Response>>>,
}

/// Why a call has no answer.
#[derive(Debug)]
pub enum CallError {
    /// The shim answered with an error.
    Status(Status),
    /// The connection is gone; whether the call was carried out is not known.
    Disconnected,
    /// Nobody serves the task any more. A shim lives until its task is deleted, and one that is killed takes its task along: so the task has
    /// ended.
    Gone,
    /// This process cannot connect (no descriptors left, say): nothing is known of the shim.
    Unreachable(std::io::Error),
    TimedOut(Duration),
}

impl Client {
    /// # Errors
    /// When nobody listens at `path`.
    pub async fn connect(path: &Path) -> std::io::Result<Self> {
        let (reader, writer) = UnixStream::connect(path).await?.into_split();
        let shared = Arc::new(Shared::default());
        let reader = tokio::spawn(read_answers(reader, Arc::clone(&shared)));
        Ok(Self { writer: tokio::sync::Mutex::new(writer), shared, next_stream: AtomicU32::new(1), reader })
    }

    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Resolves when the other side has closed the connection. Cancel-safe.
    pub async fn closed(&self) {
        let ended = self.shared.ended.notified();
        tokio::pin!(ended);
        // Enlisted before the look, so that an end in between is not missed.
        ended.as_mut().enable();
        if !self.is_closed() {
            ended.await;
        }
    }

    /// Without a `timeout`, waits for as long as the shim lives.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<A: Message + Default>(
        &self,
        service: &str,
        method: &str,
        message: &impl Message,
        timeout: Option<Duration>,
    ) -> Result<A, CallError> {
        let stream = self.next_stream.fetch_add(2, Ordering::Relaxed);
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: message.encode_to_vec(),
            timeout_nano: timeout.map_or(0, |timeout| i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX)),
            metadata: Vec::new(),
        };
        let frame = encode(stream, FrameType::Request, &request)
            .map_err(|err| CallError::Status(Status::new(Code::ResourceExhausted, err.to_string())))?;
        let answer = self.exchange(stream, frame);
        let response = match timeout {
            Some(timeout) => tokio::time::timeout(timeout, answer).await.map_err(|_| CallError::TimedOut(timeout))?,
            None => answer.await,
        }?;
        let payload = response.into_result().map_err(CallError::Status)?;
        A::decode(payload.as_slice()).map_err(|err| CallError::Status(Status::unknown(format!("{method}: undecodable answer: {err}"))))
    }

    async fn exchange(&self, stream: u32, frame: Vec<u8>) -> Result<Response, CallError> {
        let answer = Forget { shared: &self.shared, stream, answer: self.shared.expect(stream).ok_or(CallError::Disconnected)? };
        {
            let mut writer = self.writer.lock().await;
            writer.write_all(&frame).await.map_err(|_| CallError::Disconnected)?;
        }
        let mut answer = answer;
        (&mut answer.answer).await.map_err(|_| CallError::Disconnected)
    }
}

/// A call that is given up (time-out, cancelled caller) leaves no entry behind.
struct Forget<'a> {
    shared: &'a Shared,
    stream: u32,
    answer: oneshot::Receiver<Response>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.stream);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u32, oneshot::Sender<Response>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` once the connection is closed.
    fn expect(&self, stream: u32) -> Option<oneshot::Receiver<Response>> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        waiting.insert(stream, sender);
        Some(receiver)
    }

    fn close(&self) {
        let mut waiting = self.waiting();
        self.closed.store(true, Ordering::Release);
        waiting.clear();
        self.ended.notify_waiters();
    }
}

async fn read_answers(mut socket: OwnedReadHalf, shared: Arc<Shared>) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 4096];
    while let Ok(n) = socket.read(&mut buffer).await {
        if n == 0 {
            break;
        }
        decoder.push(&buffer[..n]);
        if deliver(&mut decoder, &shared).is_err() {
            break;
        }
    }
    shared.close();
}

fn deliver(decoder: &mut Decoder, shared: &Shared) -> Result<(), ()> {
    while let Some(frame) = decoder.next_frame().map_err(drop)? {
        let response = Response::decode(frame.payload.as_slice()).map_err(drop)?;
        if let Some(sender) = shared.waiting().remove(&frame.stream) {
            // The caller may have given up in this moment.
            drop(sender.send(response));
        }
    }
    Ok(())
}

impl CallError {
    /// Of a connect to a shim's socket: a socket that is not there, or that nobody listens at, is one whose shim has ended.
    pub fn of_connect(err: std::io::Error) -> Self {
        match err.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Self::Gone,
            _ => Self::Unreachable(err),
        }
    }

    /// As the manager's error; `what` names the call and the task.
    pub fn into_error(self, what: &str) -> Error {
        match self {
            Self::Status(status) => Error::new(kind_of(status.code), status.message),
            Self::Disconnected => Error::new(ErrorKind::Unavailable, format!("{what}: the connection to the shim broke")),
            Self::Gone => Error::not_found(format!("{what}: it has ended, and its shim with it")),
            Self::Unreachable(err) => Error::new(ErrorKind::Unavailable, format!("{what}: connect to the shim: {err}")),
            Self::TimedOut(after) => Error::new(ErrorKind::Unavailable, format!("{what}: the shim did not answer within {after:?}")),
        }
    }
}

fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidArgument,
        Code::FailedPrecondition | Code::Aborted => ErrorKind::Conflict,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::Unavailable | Code::DeadlineExceeded => ErrorKind::Unavailable,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::DataLoss => ErrorKind::DataLoss,
        Code::Ok | Code::Unknown | Code::Internal => ErrorKind::Internal,
    }
}

/// A path of any length as one that fits a socket address: through a descriptor of its directory, which must live as long as the path is
/// used.
///
/// # Errors
/// When the directory cannot be opened.
pub fn short_socket_path(path: &Path) -> std::io::Result<(std::os::fd::OwnedFd, PathBuf)> {
    use rustix::fs::{Mode, OFlags};
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(std::io::ErrorKind::InvalidInput.into()) };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let short = Path::new("/proc/self/fd").join(number.to_string()).join(name);
    Ok((directory, short))
}
