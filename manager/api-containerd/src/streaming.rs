//! Named streams: a client opens one, another call of it names it. Each is taken once.
//!
//! Bytes go as `Data` messages against a window that the receiver grants by `WindowUpdate`s.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::BoxStream;
use prost::{Message, Name};
use prost_types::Any;
use proto_containerd::services::streaming::v1::StreamInit;
use proto_containerd::services::streaming::v1::streaming_server::Streaming as StreamingService;
use proto_containerd::types::transfer::{Data, WindowUpdate};
use rcontainerd_types::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::Service;
use crate::convert::{Answer, namespace, status};

/// Messages on their way to a client.
const IN_FLIGHT: usize = 16;
/// Bytes that a sender may be ahead of us.
const WINDOW: i32 = 1 << 20;
/// Largest piece of bytes in one message.
const PIECE: usize = 32 << 10;
/// Streams that one namespace may have open and not taken.
const WAITING_MAX: usize = 1024;

/// The server's end of a stream.
pub(crate) struct Channel {
    incoming: Streaming<Any>,
    outgoing: mpsc::Sender<Result<Any, Status>>,
}

/// Streams that wait to be taken, by namespace and name.
#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<(String, String), Channel>>>);

impl Streams {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Channel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// `NotFound` for a stream that is not open, or was taken.
    pub(crate) fn take(&self, namespace: &str, name: &str) -> Result<Channel> {
        let found = self.lock().remove(&(namespace.to_owned(), name.to_owned()));
        found.ok_or_else(|| Error::not_found(format!("stream {name:?} is not open")))
    }

    fn put(&self, namespace: &str, name: &str, channel: Channel) -> Result<()> {
        let mut streams = self.lock();
        // Clients that went away without using theirs.
        streams.retain(|_, channel| !channel.outgoing.is_closed());
        if streams.keys().filter(|(of, _)| of == namespace).count() >= WAITING_MAX {
            return Err(Error::new(ErrorKind::ResourceExhausted, format!("more than {WAITING_MAX} streams wait for use")));
        }
        match streams.entry((namespace.to_owned(), name.to_owned())) {
            std::collections::hash_map::Entry::Occupied(_) => Err(Error::already_exists(format!("stream {name:?} already exists"))),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(channel);
                Ok(())
            }
        }
    }
}

#[tonic::async_trait]
impl StreamingService for Service {
    type StreamStream = BoxStream<'static, Result<Any, Status>>;

    async fn stream(&self, request: Request<Streaming<Any>>) -> Answer<Self::StreamStream> {
        let namespace = namespace(&request)?;
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.ok_or_else(|| Status::invalid_argument("a stream starts with its name"))?;
        let StreamInit { id } = decode(&first).map_err(status)?;
        if id.is_empty() {
            return Err(Status::invalid_argument("a stream needs a name"));
        }
        let (outgoing, answers) = mpsc::channel(IN_FLIGHT);
        let ready = Any { type_url: "google.protobuf.Empty".to_owned(), value: Vec::new() };
        outgoing.try_send(Ok(ready)).map_err(|_| Status::internal("a new stream is full"))?;
        self.streams.put(&namespace, &id, Channel { incoming, outgoing }).map_err(status)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// The message in an `Any` of its type.
pub(crate) fn decode<M: Message + Name + Default>(any: &Any) -> Result<M> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name != M::full_name() {
        return Err(Error::invalid(format!("message of type {name:?}: expected {}", M::full_name())));
    }
    M::decode(any.value.as_slice()).map_err(|err| Error::invalid(format!("{name}: {err}")))
}

impl Channel {
    /// # Errors
    /// `Cancelled` when the client is gone.
    pub(crate) async fn send<M: Message + Name>(&self, message: &M) -> Result<()> {
        let any = Any { type_url: M::full_name(), value: message.encode_to_vec() };
        let gone = |_| Error::new(ErrorKind::Cancelled, "the client has closed the stream");
        self.outgoing.send(Ok(any)).await.map_err(gone)
    }

    /// `None` at the end.
    ///
    /// # Errors
    /// `InvalidArgument` for a message of another type; `Cancelled` when the connection breaks.
    pub(crate) async fn receive<M: Message + Name + Default>(&mut self) -> Result<Option<M>> {
        let broken = |status: Status| Error::new(ErrorKind::Cancelled, format!("the stream broke: {}", status.message()));
        self.incoming.message().await.map_err(broken)?.map(|any| decode(&any)).transpose()
    }

    /// The bytes that the client sends; to be read on a blocking thread.
    pub(crate) fn reader(self) -> ByteReader {
        ByteReader { channel: self, runtime: Handle::current(), piece: Vec::new(), at: 0, granted: 0 }
    }

    /// Takes bytes for the client; to be written on a blocking thread.
    pub(crate) fn writer(self) -> ByteWriter {
        ByteWriter { channel: self, runtime: Handle::current(), window: 0 }
    }
}

pub(crate) struct ByteReader {
    channel: Channel,
    runtime: Handle,
    piece: Vec<u8>,
    /// How much of the piece has been read.
    at: usize,
    /// Bytes that the client may still send.
    granted: i32,
}

impl ByteReader {
    /// Whether there is another piece.
    fn next(&mut self) -> Result<bool> {
        if self.granted < WINDOW / 2 {
            self.runtime.block_on(self.channel.send(&WindowUpdate { update: WINDOW }))?;
            self.granted = self.granted.saturating_add(WINDOW);
        }
        let Some(Data { data }) = self.runtime.block_on(self.channel.receive())? else { return Ok(false) };
        self.granted = self.granted.saturating_sub(i32::try_from(data.len()).unwrap_or(i32::MAX));
        (self.piece, self.at) = (data, 0);
        Ok(true)
    }
}

impl Read for ByteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if !self.next().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
        let length = buffer.len().min(self.piece.len() - self.at);
        buffer[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

pub(crate) struct ByteWriter {
    channel: Channel,
    runtime: Handle,
    /// Bytes that the client takes before it grants more.
    window: usize,
}

impl Write for ByteWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.window == 0 && !bytes.is_empty() {
            let granted = self.runtime.block_on(self.channel.receive::<WindowUpdate>()).map_err(io::Error::other)?;
            let granted = granted.ok_or_else(|| io::Error::new(io::ErrorKind::BrokenPipe, "the client takes no more"))?;
            self.window += usize::try_from(granted.update).unwrap_or(0);
        }
        let length = bytes.len().min(self.window).min(PIECE);
        let data = Data { data: bytes[..length].to_vec() };
        self.runtime.block_on(self.channel.send(&data)).map_err(io::Error::other)?;
        self.window -= length;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
