//! Compressed stream in, hashed tar out: a thread of its own decompresses and hashes while the caller writes files.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use rcontainerd_types::digest::Algorithm;
use rcontainerd_types::{Digest, Error, ErrorKind, Result};

const INPUT_BUFFER: usize = 256 * 1024;
/// Bytes of one piece between the threads, and how many may wait: 2 MiB in flight.
const PIECE: usize = 256 * 1024;
const PIECES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// As many bytes as it takes to tell.
pub const SNIFFED: usize = 10;
/// Bytes that the dictionary of an xz stream may make us hold: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;

impl Compression {
    /// By the first [`SNIFFED`] bytes (fewer of a shorter stream), as every reader of the field decides: media types lie.
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            // With what begins a block or ends the stream: a tar's first file may be called BZh….
            [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] if rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17\x72\x45\x38\x50\x90") => {
                Self::Bzip2
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// Refuses layers that are no tar or that we cannot read, by media type; the compression itself is sniffed.
pub fn check_media_type(media_type: &str) -> Result<()> {
    let readable = media_type.is_empty()
        || media_type.contains("rootfs.diff.tar")
        || media_type.contains("layer.v1.tar")
        || media_type.contains("layer.nondistributable.v1.tar");
    if !readable || media_type.contains("encrypted") {
        return Err(Error::unsupported(format!(
            "layer has media type {media_type:?}: only tar layers (plain, gzip, zstd, xz, bzip2) can be unpacked"
        )));
    }
    Ok(())
}

/// The stream's plain bytes. Several compressed streams one after the other are one; anything else behind them is damage.
///
/// # Errors
/// When the first bytes cannot be read.
pub fn open<'a>(mut stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let start = first_bytes(&mut stream)?;
    let compression = Compression::sniff(&start);
    let input = BufReader::with_capacity(INPUT_BUFFER, io::Cursor::new(start).chain(stream));
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(|err| Error::io("open zstd stream", err))?),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Compression::Xz => {
            let decoder = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                .map_err(|err| Error::io("open xz stream", err.into()))?;
            Box::new(Bounded(liblzma::bufread::XzDecoder::new_stream(input, decoder)))
        }
    })
}

/// A source may give one byte at a time.
fn first_bytes(stream: &mut impl Read) -> Result<Vec<u8>> {
    let mut start = Vec::with_capacity(SNIFFED);
    stream.take(SNIFFED as u64).read_to_end(&mut start).map_err(|err| Error::io("read the stream's first bytes", err))?;
    Ok(start)
}

/// Says in plain words that an xz stream wants too much memory.
struct Bounded<R>(R);

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|err| match err.get_ref().and_then(|cause| cause.downcast_ref::<liblzma::stream::Error>()) {
            Some(liblzma::stream::Error::MemLimit) => {
                let told = format!("its xz dictionary needs more than {} MiB of memory: compress it with xz -9 or less", XZ_MEMORY >> 20);
                io::Error::new(io::ErrorKind::InvalidData, told)
            }
            _ => err,
        })
    }
}

/// What went through.
pub struct Hashed {
    pub diff_id: Digest,
    /// Bytes.
    pub size: u64,
}

/// Starts the decompressing thread; read the pieces to their end, then join it for the DiffID.
pub fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    stream: impl Read + Send + 'scope,
    algorithm: Algorithm,
    limit: u64,
) -> (Pieces, ScopedJoinHandle<'scope, Result<Hashed>>) {
    let (sender, receiver) = sync_channel(PIECES);
    let (recycle, recycled) = sync_channel(PIECES + 2);
    let worker = scope.spawn(move || pump(stream, algorithm, limit, &sender, &recycled));
    (Pieces { receiver, recycle, current: Vec::new(), used: 0 }, worker)
}

fn pump(stream: impl Read, algorithm: Algorithm, limit: u64, sender: &SyncSender<Piece>, recycled: &Receiver<Vec<u8>>) -> Result<Hashed> {
    let mut plain = match open(stream) {
        Ok(plain) => plain,
        Err(err) => {
            // The receiver learns the reason from the join.
            drop(sender.send(Err(io::Error::other(err.message().to_owned()))));
            return Err(err);
        }
    };
    let mut hasher = algorithm.hasher();
    let mut size = 0u64;
    loop {
        let mut piece = recycled.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
        piece.clear();
        if let Err(err) = plain.by_ref().take(PIECE as u64).read_to_end(&mut piece) {
            let told = io::Error::new(err.kind(), err.to_string());
            drop(sender.send(Err(err)));
            return Err(super::tar::stream_error(told));
        }
        if piece.is_empty() {
            return Ok(Hashed { diff_id: hasher.finish(), size });
        }
        size += piece.len() as u64;
        if size > limit {
            let message = format!("the layer unpacks to more than the limit of {limit} bytes");
            drop(sender.send(Err(io::Error::other(message.clone()))));
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        hasher.update(&piece);
        if sender.send(Ok(piece)).is_err() {
            return Err(Error::new(ErrorKind::Cancelled, "the unpacker gave up"));
        }
    }
}

type Piece = io::Result<Vec<u8>>;

/// The plain stream as the other thread hands it over.
pub struct Pieces {
    receiver: Receiver<Piece>,
    recycle: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    used: usize,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.current.len() {
            // The sender hangs up after the last piece.
            let next = self.receiver.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
            let spent = std::mem::replace(&mut self.current, next);
            self.used = 0;
            if spent.capacity() > 0 {
                // Full or gone: then the buffer is simply freed.
                drop(self.recycle.try_send(spent));
            }
        }
        Ok(&self.current[self.used..])
    }

    fn consume(&mut self, length: usize) {
        self.used += length;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let length = chunk.len().min(buffer.len());
        buffer[..length].copy_from_slice(&chunk[..length]);
        self.consume(length);
        Ok(length)
    }
}
