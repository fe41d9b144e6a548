//! Writing tar: ustar, with PAX records for what ustar cannot say (long names, large numbers, fractions of seconds, xattrs). Equal trees
//! give equal bytes: no names of users, no access times, no host's numbers.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use rcontainerd_types::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::unpack::xattr::{self, ProcPath};

const BLOCK: usize = 512;
/// Numbers above these have no place in ustar's octal fields.
const ID_MAX: u32 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;
const CHUNK: usize = 64 << 10;

/// How exactly modification times are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As `docker cp` and `docker export`.
    Seconds,
    /// As layers: what is unpacked again has the very times.
    Nanoseconds,
}

/// A tar under construction.
pub struct TarWriter<W> {
    out: W,
    times: Times,
    latest: Option<Timestamp>,
    /// Where each file with several names was written first.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// One header before it is encoded.
struct Member<'a> {
    path: &'a [u8],
    link: &'a [u8],
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    seconds: i64,
    nanoseconds: u32,
    device: (u32, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W, times: Times) -> Self {
        Self { out, times, latest: None, links: HashMap::new() }
    }

    /// Later times of modification are told as this one, as reproducible builds ask for (`SOURCE_DATE_EPOCH`).
    #[must_use]
    pub fn no_later_than(self, latest: Option<Timestamp>) -> Self {
        Self { latest, ..self }
    }

    /// Writes the object `name` of `dir` as `path`; a directory without what is in it. `None` for what is gone by now, and for
    /// sockets, which no archive can hold.
    ///
    /// # Errors
    /// Those of reading the object and of the output.
    pub fn object(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<Option<Stat>> {
        let failed = |err: Errno| Error::io(format!("read {}", String::from_utf8_lossy(path)), err.into());
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(err) => return Err(failed(err)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.regular(dir, name, path, &stat).map(|written| written.then_some(stat)),
            FileType::Socket | FileType::Unknown => Ok(None),
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new()).map_err(failed)?;
                self.plain(dir, name, path, target.as_bytes(), &stat).map(|()| Some(stat))
            }
            _ => self.plain(dir, name, path, b"", &stat).map(|()| Some(stat)),
        }
    }

    /// A whiteout: `path` is deleted by the layer.
    ///
    /// # Errors
    /// Those of the output.
    pub fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => path.split_at(slash + 1),
            None => (&path[..0], path),
        };
        let path = [parent, b".wh.", name].concat();
        let member = Member {
            path: &path,
            link: b"",
            kind: b'0',
            mode: 0o600,
            uid: 0,
            gid: 0,
            size: 0,
            seconds: 0,
            nanoseconds: 0,
            device: (0, 0),
            xattrs: Vec::new(),
        };
        self.header(&member).map_err(output)
    }

    /// The end-of-archive mark; gives the output back, flushed.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0; 2 * BLOCK]).and_then(|()| self.out.flush()).map_err(output)?;
        Ok(self.out)
    }

    fn plain(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8], link: &[u8], stat: &Stat) -> Result<()> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => b'2',
            FileType::CharacterDevice => b'3',
            FileType::BlockDevice => b'4',
            FileType::Directory => b'5',
            _ => b'6',
        };
        let xattrs = if kind == b'2' { Vec::new() } else { attributes(dir, name)? };
        let path = if kind == b'5' && !path.ends_with(b"/") { [path, b"/"].concat() } else { path.to_vec() };
        self.header(&self.member(&path, link, kind, 0, stat, xattrs)).map_err(output)
    }

    /// What was announced is what is written, whatever a running container does to the file meanwhile: more is left out, less is zeros.
    fn regular(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8], found: &Stat) -> Result<bool> {
        if found.st_nlink > 1 {
            if let Some(first) = self.links.get(&(found.st_dev, found.st_ino)).cloned() {
                self.header(&self.member(path, &first, b'1', 0, found, Vec::new())).map_err(output)?;
                return Ok(true);
            }
            self.links.insert((found.st_dev, found.st_ino), path.to_vec());
        }
        let Some((file, stat)) = open_regular(dir, name)? else { return Ok(false) };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let xattrs = attributes(dir, name)?;
        self.header(&self.member(path, b"", b'0', size, &stat, xattrs)).map_err(output)?;
        self.data(&file, size, path)?;
        Ok(true)
    }

    fn data(&mut self, file: &OwnedFd, size: u64, path: &[u8]) -> Result<()> {
        let mut buffer = vec![0u8; CHUNK];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let got = match rustix::io::read(file, &mut buffer[..want]) {
                Ok(0) => {
                    buffer[..want].fill(0);
                    want
                }
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(err) => return Err(Error::io(format!("read {}", String::from_utf8_lossy(path)), err.into())),
            };
            self.out.write_all(&buffer[..got]).map_err(output)?;
            left -= got as u64;
        }
        self.pad(size).map_err(output)
    }

    fn member<'a>(&self, path: &'a [u8], link: &'a [u8], kind: u8, size: u64, stat: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Member<'a> {
        let device = if matches!(kind, b'3' | b'4') { (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) } else { (0, 0) };
        let (seconds, nanoseconds) = self.modified(stat);
        let mode = stat.st_mode & 0o7777;
        Member { path, link, kind, mode, uid: stat.st_uid, gid: stat.st_gid, size, seconds, nanoseconds, device, xattrs }
    }

    fn modified(&self, stat: &Stat) -> (i64, u32) {
        let found = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        let latest = self.latest.map(|latest| (latest.as_second(), u32::try_from(latest.subsec_nanosecond()).unwrap_or(0)));
        let (seconds, nanoseconds) = latest.map_or(found, |latest| found.min(latest));
        (seconds, if self.times == Times::Nanoseconds { nanoseconds } else { 0 })
    }

    fn header(&mut self, member: &Member<'_>) -> io::Result<()> {
        let records = records(member);
        if !records.is_empty() {
            let name = [b"PaxHeaders.0/", tail(member.path)].concat();
            self.out.write_all(&block(&name, b"", b'x', 0o644, (0, 0), records.len() as u64, 0, (0, 0)))?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let ids = (member.uid.min(ID_MAX), member.gid.min(ID_MAX));
        let (size, seconds) = (member.size.min(SIZE_MAX), u64::try_from(member.seconds).unwrap_or(0).min(SIZE_MAX));
        self.out.write_all(&block(member.path, member.link, member.kind, member.mode, ids, size, seconds, member.device))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.out.write_all(&[0; BLOCK][over..]) }
    }
}

fn output(err: io::Error) -> Error {
    Error::io("write the archive", err)
}

/// The file opened for reading, unless it has become something else since it was looked at.
fn open_regular(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<(OwnedFd, Stat)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let failed = |err: Errno| Error::io(format!("open {}", name.to_string_lossy()), err.into());
    let file = match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(err) => return Err(failed(err)),
    };
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    Ok((FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some((file, stat)))
}

/// The attributes that a layer may carry.
fn attributes(dir: BorrowedFd<'_>, name: &CStr) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let failed = |err: Errno| Error::io(format!("read the attributes of {}", name.to_string_lossy()), err.into());
    let object = match ProcPath::open(dir, name) {
        Ok(object) => object,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(err) => return Err(failed(err)),
    };
    let mut found = Vec::new();
    for attribute in object.list().map_err(failed)? {
        if xattr::is_allowed(attribute.as_bytes())
            && let Some(value) = object.get(&attribute).map_err(failed)?
        {
            found.push((attribute.into_bytes(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// The PAX records that the member needs.
fn records(member: &Member<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    if member.path.len() > 100 {
        record(&mut records, b"path", member.path);
    }
    if member.link.len() > 100 {
        record(&mut records, b"linkpath", member.link);
    }
    for (key, value, max) in
        [("size", member.size, SIZE_MAX), ("uid", member.uid.into(), ID_MAX.into()), ("gid", member.gid.into(), ID_MAX.into())]
    {
        if value > max {
            record(&mut records, key.as_bytes(), value.to_string().as_bytes());
        }
    }
    if member.nanoseconds != 0 || member.seconds < 0 || u64::try_from(member.seconds).is_ok_and(|seconds| seconds > SIZE_MAX) {
        record(&mut records, b"mtime", fraction(member.seconds, member.nanoseconds).as_bytes());
    }
    for (name, value) in &member.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// Seconds with nine digits; a time before the epoch counts its fraction towards it.
fn fraction(seconds: i64, nanoseconds: u32) -> String {
    match (seconds, nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds, nanoseconds) if seconds < 0 => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
        (seconds, nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
    }
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The last bytes of a path that fit into a header beside a prefix.
fn tail(path: &[u8]) -> &[u8] {
    &path[path.len().saturating_sub(80)..]
}

#[expect(clippy::too_many_arguments, reason = "the fields of one header, in their order")]
fn block(path: &[u8], link: &[u8], kind: u8, mode: u32, ids: (u32, u32), size: u64, seconds: u64, device: (u32, u32)) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    put(&mut block[0..100], path);
    octal(&mut block[100..108], mode.into());
    octal(&mut block[108..116], ids.0.into());
    octal(&mut block[116..124], ids.1.into());
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], seconds);
    block[156] = kind;
    put(&mut block[157..257], link);
    put(&mut block[257..265], b"ustar\x0000");
    octal(&mut block[329..337], device.0.into());
    octal(&mut block[337..345], device.1.into());
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().copied().map(u64::from).sum();
    octal(&mut block[148..155], sum);
    block
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// Octal digits, a NUL at the end.
fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    let digits = format!("{number:0width$o}");
    put(field, &digits.as_bytes()[digits.len() - width..]);
}

/// The directory, opened without following a link.
pub(super) fn open_dir(dir: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// The names in a directory, sorted, without itself and its parent.
pub(super) fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}
