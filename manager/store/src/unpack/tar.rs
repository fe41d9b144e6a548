//! A streaming tar reader: ustar, GNU and PAX, sparse files of every GNU form included.
//!
//! The header's layout is the `tar` crate's; the rest is ours, because a layer is hostile input: extension headers are bounded, PAX
//! records are read by their length (a binary xattr may hold a newline), and where readers of the field disagree (two PAX headers
//! for one entry, a lone zero block) the archive is refused. Otherwise the reading is that of Go's archive/tar, which made most images.

use std::io::BufRead;
use std::ops::Range;

use rcontainerd_types::{Error, Result};
use tar::Header;

use super::pax::{self, Pax};
use super::sparse::{self, Segment};

pub const BLOCK: usize = 512;
/// Bytes of an extension header (long name, PAX records), as Go's reader bounds them.
const EXTENSION_LIMIT: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Regular,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// Seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mtime {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// One member, its extension headers merged in.
#[derive(Clone, Debug)]
pub struct Entry {
    pub kind: EntryKind,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    /// Bytes of the file, holes included.
    pub size: u64,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data that follows belongs; `None`: from 0 to the end.
    pub sparse: Option<Vec<Segment>>,
}

/// Entries from a stream; the data of one must be read before the next, or is skipped.
pub struct TarReader<R> {
    source: R,
    /// Bytes of the current member's data that are still in the stream.
    data: u64,
    /// Bytes of padding after them.
    padding: u64,
}

/// What extension headers said about the next member.
#[derive(Default)]
struct Pending {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_none()
    }
}

fn malformed(why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("malformed tar: {why}"))
}

/// An I/O error of the stream: what the decompressor found wrong is the archive's fault.
pub fn stream_error(err: std::io::Error) -> Error {
    match err.kind() {
        std::io::ErrorKind::UnexpectedEof => malformed("the archive ends in the middle of an entry").with_source(err),
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput | std::io::ErrorKind::Other => {
            Error::invalid(format!("damaged stream: {err}")).with_source(err)
        }
        _ => Error::io("read archive", err),
    }
}

impl<R: BufRead> TarReader<R> {
    pub fn new(source: R) -> Self {
        Self { source, data: 0, padding: 0 }
    }

    /// The next member, or `None` at the archive's end.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let mut pending = Pending::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return if pending.is_empty() { Ok(None) } else { Err(malformed("an extension header describes no entry")) };
            };
            let size = unsigned(&header, 124..136)?;
            match header.entry_type().as_byte() {
                b'L' => set_once(&mut pending.long_name, until_nul(self.extension(size)?), "two long names for one entry")?,
                b'K' => set_once(&mut pending.long_link, until_nul(self.extension(size)?), "two long link names for one entry")?,
                b'x' => set_once(&mut pending.pax, pax::parse(&self.extension(size)?)?, "two PAX headers for one entry")?,
                // Global headers carry comments of git archive; Docker and containerd ignore them.
                b'g' => drop(self.extension(size)?),
                _ => return self.member(&header, size, pending).map(Some),
            }
        }
    }

    /// A slice of the current member's data, empty at its end; `consume` what was used.
    pub fn fill(&mut self) -> Result<&[u8]> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.data).unwrap_or(usize::MAX);
        let chunk = self.source.fill_buf().map_err(stream_error)?;
        if chunk.is_empty() {
            return Err(malformed("the archive ends in the middle of an entry"));
        }
        Ok(&chunk[..chunk.len().min(left)])
    }

    pub fn consume(&mut self, length: usize) {
        self.source.consume(length);
        self.data -= length as u64;
    }

    /// Reads the current member's data whole, if it has at most `limit` bytes.
    pub fn read_small(&mut self, limit: u64) -> Result<Vec<u8>> {
        if self.data > limit {
            return Err(Error::invalid(format!("{} bytes, at most {limit} are allowed", self.data)));
        }
        let mut bytes = Vec::new();
        loop {
            let chunk = self.fill()?;
            if chunk.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(chunk);
            let length = chunk.len();
            self.consume(length);
        }
    }

    /// Reads to the stream's end, so that a hash over it is complete.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            let length = self.source.fill_buf().map_err(stream_error)?.len();
            if length == 0 {
                return Ok(());
            }
            self.source.consume(length);
        }
    }

    /// Goes to the next header. The last member's padding may be missing, as Go's reader allows.
    fn skip(&mut self) -> Result<()> {
        let mut left = self.data + self.padding;
        while left > 0 {
            let chunk = self.source.fill_buf().map_err(stream_error)?.len();
            if chunk == 0 && left > self.padding {
                return Err(malformed("the archive ends in the middle of an entry"));
            }
            if chunk == 0 {
                break;
            }
            let step = chunk.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.source.consume(step);
            left -= step as u64;
        }
        self.data = 0;
        self.padding = 0;
        Ok(())
    }

    /// One header block; `None` at two zero blocks or the stream's end.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            let mut second = [0u8; BLOCK];
            let end = !self.block(&mut second)? || second.iter().all(|byte| *byte == 0);
            return if end { Ok(None) } else { Err(malformed("an entry follows a zero block")) };
        }
        verify_checksum(&header)?;
        Ok(Some(header))
    }

    /// Fills a block; `false` at the stream's end.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        if self.source.fill_buf().map_err(stream_error)?.is_empty() {
            return Ok(false);
        }
        self.source.read_exact(block).map_err(stream_error)?;
        Ok(true)
    }

    fn begin_data(&mut self, size: u64) -> Result<()> {
        let padded = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| malformed("a size overflows"))?;
        self.data = size;
        self.padding = padded - size;
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        self.begin_data(size)?;
        self.read_small(EXTENSION_LIMIT).map_err(|err| malformed(format!("an extension header has {}", err.message())))
    }

    fn member(&mut self, header: &Header, size: u64, pending: Pending) -> Result<Entry> {
        let pax = pending.pax.unwrap_or_default();
        let path = pending.long_name.or_else(|| pax.path.clone()).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pending.long_link.or_else(|| pax.link.clone());
        let link = link.unwrap_or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default());
        let kind = kind_of(header, &path)?;
        let size = pax.size.unwrap_or(size);
        let size = if kind == EntryKind::Regular { size } else { 0 };
        self.begin_data(size)?;
        let id = |from_pax: Option<u64>, field: Range<usize>| -> Result<u32> {
            let id = from_pax.map_or_else(|| unsigned(header, field), Ok)?;
            // u32::MAX means "leave it" to chown(2): no id.
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| malformed(format!("owner id {id} is out of range")))
        };
        let device =
            |field: Range<usize>| u32::try_from(unsigned(header, field)?).map_err(|_| malformed("a device number is out of range"));
        let mode = u32::try_from(unsigned(header, 100..108)? & 0o7777).unwrap_or(0);
        let mut entry = Entry {
            kind,
            link,
            mode,
            uid: id(pax.uid, 108..116)?,
            gid: id(pax.gid, 116..124)?,
            mtime: pax.mtime.map_or_else(|| header_mtime(header), Ok)?,
            size,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
            path,
        };
        if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            entry.device = (device(329..337)?, device(337..345)?);
        }
        self.merge_sparse(&mut entry, header, &pax)?;
        entry.xattrs = pax.xattrs;
        Ok(entry)
    }

    fn merge_sparse(&mut self, entry: &mut Entry, header: &Header, pax: &Pax) -> Result<()> {
        let map = if header.entry_type().is_gnu_sparse() {
            Some(self.gnu_sparse_map(header)?)
        } else if entry.kind == EntryKind::Regular {
            match pax.sparse.form()? {
                Some(sparse::Form::InData { size }) => Some((size, self.sparse_map_in_data()?)),
                Some(sparse::Form::InHeader { size, segments }) => Some((size, segments)),
                None => None,
            }
        } else {
            None
        };
        if let Some((size, segments)) = map {
            sparse::validate(&segments, size, self.data)?;
            entry.size = size;
            entry.sparse = Some(segments);
            if let Some(name) = &pax.sparse.name {
                entry.path.clone_from(name);
            }
        }
        Ok(())
    }

    /// The old GNU form: four segments in the header, more in extension blocks before the data.
    fn gnu_sparse_map(&mut self, header: &Header) -> Result<(u64, Vec<Segment>)> {
        let gnu = header.as_gnu().ok_or_else(|| malformed("a sparse entry without GNU header"))?;
        let size = gnu.real_size().map_err(malformed)?;
        let mut segments = Vec::new();
        sparse::add_gnu(&mut segments, &gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut extension = tar::GnuExtSparseHeader::new();
            self.source.read_exact(extension.as_mut_bytes()).map_err(stream_error)?;
            sparse::add_gnu(&mut segments, extension.sparse())?;
            more = extension.is_extended();
        }
        Ok((size, segments))
    }

    /// The PAX 1.0 form: the map is the first thing in the data, in whole blocks.
    fn sparse_map_in_data(&mut self) -> Result<Vec<Segment>> {
        let mut parser = sparse::MapParser::default();
        while !parser.done() {
            let mut block = [0u8; BLOCK];
            if self.data < BLOCK as u64 {
                return Err(malformed("a sparse map is cut short"));
            }
            self.source.read_exact(&mut block).map_err(stream_error)?;
            self.data -= BLOCK as u64;
            parser.feed(&block)?;
        }
        Ok(parser.segments)
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T, twice: &str) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed(twice)),
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// The sum of all bytes with the checksum field as blanks; some old writers summed signed bytes.
fn verify_checksum(header: &Header) -> Result<()> {
    let stored = unsigned(header, 148..156)?;
    let bytes = header.as_bytes();
    let outside = || bytes[..148].iter().chain(&bytes[156..]);
    let plain: u64 = outside().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * 32;
    let signed: i64 = outside().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
    if stored == plain || i64::try_from(stored) == Ok(signed) {
        return Ok(());
    }
    Err(malformed("a header's checksum is wrong"))
}

fn kind_of(header: &Header, path: &[u8]) -> Result<EntryKind> {
    Ok(match header.entry_type().as_byte() {
        0 | b'0' if path.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' | b'S' => EntryKind::Regular,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => return Err(malformed(format!("entry {:?} has the unknown type {:?}", String::from_utf8_lossy(path), char::from(other)))),
    })
}

fn header_mtime(header: &Header) -> Result<Mtime> {
    Ok(Mtime { seconds: numeric(&header.as_bytes()[136..148])?, nanoseconds: 0 })
}

fn unsigned(header: &Header, field: Range<usize>) -> Result<u64> {
    u64::try_from(numeric(&header.as_bytes()[field])?).map_err(|_| malformed("a number is negative"))
}

/// A numeric field: octal digits among blanks and NULs (none at all is 0, as Go reads it), or GNU's base 256.
fn numeric(field: &[u8]) -> Result<i64> {
    let out_of_range = || malformed("a number is out of range");
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i64::from(field[0]) - 0x100 } else { i64::from(field[0] & 0x3f) };
        return field[1..]
            .iter()
            .try_fold(first, |sum, byte| sum.checked_mul(256).and_then(|sum| sum.checked_add(i64::from(*byte))).ok_or_else(out_of_range));
    }
    let start = field.iter().position(|byte| !matches!(byte, b' ' | 0)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0i64, |sum, byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8).and_then(|sum| sum.checked_add(i64::from(byte - b'0'))).ok_or_else(out_of_range),
        _ => Err(malformed("a numeric field is no number")),
    })
}
