//! Reading a container's log: tail, since, until, follow across rotation, without polling.
//!
//! Files are read oldest first (`path.N` … `path.1`, `path`, each but the live one perhaps compressed), each by its open descriptor, so that
//! a rotation in between changes nothing. At the end of a file the reader looks whether the live path is another file by now; if so the one
//! at hand is complete, and reading goes on in the file that was made after it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

use crate::files::numbered;
use crate::record::{Record, Stream};
use crate::squeeze::compressed;

/// What of a log is wanted.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    pub stdout: bool,
    pub stderr: bool,
    /// Only the last so many records, counted before the other filters (`docker logs --tail`); `None`: all.
    pub tail: Option<u64>,
    /// Only records at or after this time.
    pub since: Option<Timestamp>,
    /// Only records before or at this time.
    pub until: Option<Timestamp>,
    /// Whether to wait for more at the end of the file, until [`Reader::finish`].
    pub follow: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { stdout: true, stderr: true, tail: None, since: None, until: None, follow: false }
    }
}

/// What [`Reader::next`] found.
#[derive(Debug)]
pub enum Next {
    Record(Record),
    /// Following, and nothing new yet: wait until [`Reader::wait_fd`] is readable (or use [`Reader::wait`]), then ask again.
    Pending,
    /// No more will come.
    End,
}

/// A reader over the live file and its rotated predecessors. Never blocks in `next` but for the disk; dropping it ends everything.
///
/// In async code: wrap `wait_fd` in tokio's `AsyncFd` (readable), call `next` until `Pending`, then clear readiness and wait.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    options: ReadOptions,
    current: Option<LogFile>,
    watch: Option<OwnedFd>,
    finished: bool,
    /// Whether the last record of each stream ended without a newline.
    open_line: [bool; 2],
}

/// More rotated files than this are not looked for.
const MAX_ROTATED: u32 = 1000;
const CHUNK: usize = 32 * 1024;
/// A longer line is no record of ours (a 16 KiB piece grows at most sixfold by escapes).
const MAX_LINE: usize = 256 * 1024;

impl Reader {
    /// # Errors
    /// When a file or directory of the log cannot be opened; a log that does not exist yet is empty.
    pub fn open(path: &Path, options: ReadOptions) -> io::Result<Self> {
        // Watch first: what is written between opening and watching would be missed otherwise.
        let watch = if options.follow { Some(watch_directory(path)?) } else { None };
        let files = existing(path)?;
        let current = match options.tail {
            Some(count) => tail_start(files, count)?,
            None => first_since(files, options.since)?,
        };
        Ok(Self { path: path.to_owned(), options, current, watch, finished: false, open_line: [false; 2] })
    }

    /// # Errors
    /// When reading fails. A damaged record is skipped, never an error (a crash may have cut one).
    #[expect(clippy::should_implement_trait, reason = "the answer has three cases, not two")]
    pub fn next(&mut self) -> io::Result<Next> {
        self.drain_watch();
        loop {
            let Some(line) = self.next_line()? else {
                let more = self.options.follow && !self.finished;
                return Ok(if more { Next::Pending } else { Next::End });
            };
            let Some(mut record) = parse(&line) else { continue };
            if self.options.until.is_some_and(|until| record.time > until) {
                self.finished = true;
                self.current = None;
                return Ok(Next::End);
            }
            let open_line = &mut self.open_line[record.stream as usize - 1];
            record.continues = *open_line;
            *open_line = !record.line.ends_with(b"\n");
            if self.wanted(&record) {
                return Ok(Next::Record(record));
            }
        }
    }

    /// The process has ended and the shim has told so: once the end of the file is reached, `next` answers `End`, not `Pending`.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Readable when the log may have grown; `None` unless following.
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Blocks until the log may have grown; `false` on time-out, or at once when not following.
    ///
    /// # Errors
    /// When waiting itself fails.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let Some(watch) = &self.watch else { return Ok(false) };
        let timeout = timeout.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut fds = [PollFd::new(watch, PollFlags::IN)];
        Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, timeout.as_ref()))? > 0)
    }

    fn wanted(&self, record: &Record) -> bool {
        let stream = match record.stream {
            Stream::Stdout => self.options.stdout,
            Stream::Stderr => self.options.stderr,
        };
        stream && self.options.since.is_none_or(|since| record.time >= since)
    }

    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.current.is_none() && !(self.finished && self.options.until.is_some()) {
            self.current = existing(&self.path)?.into_iter().next();
        }
        loop {
            let Some(current) = &mut self.current else { return Ok(None) };
            if let Some(line) = current.next_line()? {
                return Ok(Some(line));
            }
            let inode = current.inode;
            // Looked up before the last read: a file that is not live any more gets no more lines, so that read was its end.
            let Some(following) = file_after(&self.path, inode)? else { return Ok(None) };
            if let Some(line) = current.next_line()? {
                return Ok(Some(line));
            }
            *current = following;
        }
    }

    fn drain_watch(&self) {
        let Some(watch) = &self.watch else { return };
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(watch, &mut buffer);
        // Which event it was does not matter: each only says "look again". The descriptor does not block.
        while events.next().is_ok() {}
    }
}

/// Inotify on the log's directory: writes to the live file, and rotation's renames and creations.
fn watch_directory(path: &Path) -> io::Result<OwnedFd> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, directory, what)?;
    Ok(watch)
}

#[derive(Debug)]
struct LogFile {
    file: Bytes,
    inode: u64,
    /// Of the file that this one is the compressed form of.
    formerly: Option<u64>,
    buffer: Vec<u8>,
    /// How much of `buffer` has been given out.
    taken: usize,
}

#[derive(Debug)]
enum Bytes {
    Plain(File),
    Squeezed(Box<GzDecoder<File>>),
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Squeezed(decoder) => decoder.read(buffer),
        }
    }
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let Some((file, inode)) = open(path)? else { return Ok(None) };
        Ok(Some(Self { file: Bytes::Plain(file), inode, formerly: None, buffer: Vec::new(), taken: 0 }))
    }

    /// A rotated file, in whichever form it is: it becomes the compressed one while both are there.
    fn open_rotated(path: &Path) -> io::Result<Option<Self>> {
        // Again, for one that was compressed between the two looks.
        for path in [path, &compressed(path), path] {
            let Some((file, inode)) = open(path)? else { continue };
            if path.extension().is_none_or(|extension| extension != "gz") {
                return Ok(Some(Self { file: Bytes::Plain(file), inode, formerly: None, buffer: Vec::new(), taken: 0 }));
            }
            let decoder = GzDecoder::new(file);
            let name = decoder.header().and_then(|header| header.filename());
            let formerly = name.and_then(|name| std::str::from_utf8(name).ok()?.parse().ok());
            return Ok(Some(Self { file: Bytes::Squeezed(Box::new(decoder)), inode, formerly, buffer: Vec::new(), taken: 0 }));
        }
        Ok(None)
    }

    /// Whether it is the same as `other`, which was met before: moved meanwhile, and perhaps compressed. Numbers of inodes are used again, but
    /// a plain file was there already when the one before it was compressed and gave its number back.
    fn is(&self, other: &Self) -> bool {
        self.inode == other.inode || (matches!(other.file, Bytes::Plain(_)) && self.formerly == Some(other.inode))
    }

    /// When it was last written; a compressed one has its file's time.
    fn written(&self) -> io::Result<SystemTime> {
        match &self.file {
            Bytes::Plain(file) => file,
            Bytes::Squeezed(decoder) => decoder.get_ref(),
        }
        .metadata()?
        .modified()
    }

    /// Leaves the last `count` lines to be read; gives how many the file was short of. A cut last line counts for none.
    fn skip_to_last(&mut self, count: u64) -> io::Result<u64> {
        let decoder = match &mut self.file {
            Bytes::Plain(file) => return seek_back(file, count),
            Bytes::Squeezed(decoder) => decoder,
        };
        let lines = count_lines(decoder)?;
        let mut file = decoder.get_ref().try_clone()?;
        file.rewind()?;
        **decoder = GzDecoder::new(file);
        for _ in count..lines {
            self.next_line()?;
        }
        Ok(count.saturating_sub(lines))
    }

    /// The next whole line; a line whose newline is not there yet stays for later.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = self.taken;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let end = searched + end + 1;
                let line = self.buffer[self.taken..end].to_vec();
                self.taken = end;
                return Ok(Some(line));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            if self.buffer.len() > MAX_LINE {
                self.buffer.clear();
            }
            searched = self.buffer.len();
            let read = self.file.by_ref().take(CHUNK as u64).read_to_end(&mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
        }
    }
}

/// The file with its inode; `None`: there is none.
fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some((file, inode)))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

fn count_lines(from: &mut impl Read) -> io::Result<u64> {
    let (mut lines, mut buffer) = (0, vec![0; CHUNK]);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(lines),
            read => lines += buffer[..read].iter().filter(|&&byte| byte == b'\n').count() as u64,
        }
    }
}

/// The files of a log, oldest first. A rotation may be under way: it moves the files up one by one, from the highest number on, and the live
/// one last. Whoever goes through the numbers from below then meets at most one gap, and a file twice at most, next to itself; unless the
/// live file became another one meanwhile.
fn existing(path: &Path) -> io::Result<Vec<LogFile>> {
    loop {
        let live = LogFile::open(path)?;
        let before = live.as_ref().map(|file| file.inode);
        let mut files: Vec<LogFile> = live.into_iter().collect();
        let mut gap = false;
        for n in 1..=MAX_ROTATED {
            match LogFile::open_rotated(&numbered(path, n))? {
                Some(file) if files.last().is_none_or(|last| !file.is(last)) => files.push(file),
                Some(_) => {}
                None if gap => break,
                None => gap = true,
            }
        }
        if live_inode(path)? == before {
            files.reverse();
            return Ok(files);
        }
    }
}

fn live_inode(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.ino())),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// The file made after the one of `inode`; `None` while that one is live. The oldest there is, when `inode` has been rotated away.
fn file_after(path: &Path, inode: u64) -> io::Result<Option<LogFile>> {
    if live_inode(path)?.is_none_or(|live| live == inode) {
        return Ok(None);
    }
    let mut files = existing(path)?;
    // One that we hold open has its number for itself; what was compressed may tell a number that was used before.
    let itself = files.iter().position(|file| file.inode == inode);
    let from = itself.or_else(|| files.iter().rposition(|file| file.formerly == Some(inode))).map_or(0, |at| at + 1);
    Ok(if from < files.len() { Some(files.swap_remove(from)) } else { None })
}

/// The kernel stamps files by a clock that may be some milliseconds behind.
const STAMP_SLACK: Duration = Duration::from_secs(1);

/// The first file that can hold a record of that time or later (one that was last written before it holds none), at a place before all of
/// these.
fn first_since(files: Vec<LogFile>, since: Option<Timestamp>) -> io::Result<Option<LogFile>> {
    let Some(since) = since else { return Ok(files.into_iter().next()) };
    let mut last = None;
    for mut file in files {
        let written = Timestamp::try_from(file.written()? + STAMP_SLACK).map_err(io::Error::other)?;
        if written >= since {
            if let Bytes::Plain(file) = &mut file.file {
                let place = place_before(file, since)?;
                file.seek(SeekFrom::Start(place))?;
            }
            return Ok(Some(file));
        }
        last = Some(file);
    }
    Ok(last)
}

/// Records are in the order of their times but for these: a line in pieces has the time of its first piece, and clocks are put right.
const ORDER_SLACK: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

/// A start of a record before which all are older than `since`, found by halving: the order of the records is the index.
fn place_before(file: &mut File, since: Timestamp) -> io::Result<u64> {
    let Ok(since) = since.checked_sub(ORDER_SLACK) else { return Ok(0) };
    let (mut place, mut end) = (0, file.metadata()?.len());
    while end - place > CHUNK as u64 {
        let middle = place + (end - place) / 2;
        match record_from(file, middle, end)? {
            Some((start, time)) if time < since => place = start,
            _ => end = middle,
        }
    }
    Ok(place)
}

/// The first record that begins behind `from` and before `end`; damaged ones are passed over.
fn record_from(file: &mut File, from: u64, end: u64) -> io::Result<Option<(u64, Timestamp)>> {
    file.seek(SeekFrom::Start(from))?;
    let mut reader = io::BufReader::new(file.take(end - from + MAX_LINE as u64));
    let mut line = Vec::new();
    let mut start = from + reader.read_until(b'\n', &mut line)? as u64;
    while start < end {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)? as u64;
        if length == 0 {
            break;
        }
        if let Some(record) = parse(&line) {
            return Ok(Some((start, record.time)));
        }
        start += length;
    }
    Ok(None)
}

/// Positions the right file so that `count` lines are left.
fn tail_start(files: Vec<LogFile>, count: u64) -> io::Result<Option<LogFile>> {
    let mut left = count;
    let mut oldest_needed = None;
    for mut file in files.into_iter().rev() {
        left = file.skip_to_last(left)?;
        let enough = left == 0;
        oldest_needed = Some(file);
        if enough {
            break;
        }
    }
    Ok(oldest_needed)
}

/// Moves back from the end by `count` lines; gives how many lines the file was short of. A cut last line counts for none.
fn seek_back(file: &mut File, count: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut newlines_to_see = count + 1;
    let mut buffer = vec![0; CHUNK];
    while end > 0 {
        let size = end.min(CHUNK as u64);
        let start = end - size;
        file.seek(SeekFrom::Start(start))?;
        let chunk = &mut buffer[..usize::try_from(size).unwrap_or(CHUNK)];
        file.read_exact(chunk)?;
        for (at, _) in chunk.iter().enumerate().rev().filter(|&(_, &byte)| byte == b'\n') {
            newlines_to_see -= 1;
            if newlines_to_see == 0 {
                file.seek(SeekFrom::Start(start + at as u64 + 1))?;
                return Ok(0);
            }
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    // The first line has no newline before it.
    Ok(newlines_to_see - 1)
}

#[derive(serde::Deserialize)]
struct Entry {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: Timestamp,
}

fn parse(line: &[u8]) -> Option<Record> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let stream = if entry.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
    Some(Record { stream, time: entry.time, line: entry.log.into_bytes(), attributes: entry.attrs, continues: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri::LogUri;
    use crate::writer::{LogWriter, PIECE};
    use std::time::UNIX_EPOCH;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("shim-logger-read-{name}-{}", std::process::id()));
            drop(std::fs::remove_dir_all(&dir));
            std::fs::create_dir_all(&dir).expect("temp dir");
            Self(dir)
        }

        fn log(&self) -> PathBuf {
            self.0.join("x-json.log")
        }

        fn writer(&self, max_size: u64) -> LogWriter {
            LogWriter::open(&LogUri { max_size, ..LogUri::json_file(self.log(), None) }).expect("writer")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn second(n: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(n)
    }

    fn write_lines(log: &mut LogWriter, range: std::ops::Range<u64>) {
        for n in range {
            let stream = if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
            log.write(stream, format!("{n}\n").as_bytes(), second(n));
        }
    }

    fn all(reader: &mut Reader) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        loop {
            match reader.next().expect("read") {
                Next::Record(record) => lines.push(String::from_utf8(record.line).expect("utf-8").trim_end().to_owned()),
                Next::Pending => return (lines, true),
                Next::End => return (lines, false),
            }
        }
    }

    fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
        range.map(|n| n.to_string()).collect()
    }

    #[test]
    fn a_time_is_found_by_halving_and_nothing_of_it_is_left_out() {
        let scratch = Scratch::new("halving");
        let mut log = scratch.writer(0);
        // Lines of all lengths, some in pieces, a damaged one, many of one second, and a clock that was put back by half a minute.
        let clock = |n: u64| if n < 12_000 { n / 3 } else { n / 3 - 30 };
        for n in 0..20_000_u64 {
            let filling = "x".repeat(usize::try_from(if n % 4000 == 7 { 40_000 } else { n % 90 }).expect("small"));
            log.write(Stream::Stdout, format!("{n} {filling}\n").as_bytes(), second(1_000_000 + clock(n)));
            if n % 1000 == 500 {
                std::io::Write::write_all(&mut File::options().append(true).open(scratch.log()).expect("log"), b"{\"log\":\"half\n")
                    .expect("damage");
            }
        }
        drop(log);
        let whole = File::open(scratch.log()).expect("log").metadata().expect("metadata").len();
        for since in [0, 500_000, 1_000_000, 1_000_001, 1_003_333, 1_003_975, 1_004_000, 1_006_635, 1_006_636, 2_000_000] {
            let since = Timestamp::from_second(since).expect("a time");
            let mut file = File::open(scratch.log()).expect("log");
            let place = place_before(&mut file, since).expect("place");
            assert!(place == 0 || since.as_second() > 1_000_060, "{since}");
            assert!(place + 64 * 1024 > whole || since.as_second() < 1_006_700, "{since}: {place} of {whole}");
            let read = |since| {
                let mut reader = Reader::open(&scratch.log(), ReadOptions { since, ..ReadOptions::default() }).expect("reader");
                let mut records = Vec::new();
                while let Next::Record(record) = reader.next().expect("read") {
                    records.push((record.time, record.line));
                }
                records
            };
            let wanted: Vec<_> = read(None).into_iter().filter(|(time, _)| *time >= since).collect();
            assert!(read(Some(since)) == wanted, "{since}: {} instead of {}", read(Some(since)).len(), wanted.len());
        }
    }

    #[test]
    fn filters_by_tail_stream_and_time_across_rotated_files() {
        let scratch = Scratch::new("filter");
        write_lines(&mut scratch.writer(1200), 0..60);
        assert!(numbered(&scratch.log(), 2).exists(), "the test must cover rotated files");
        let read = |options| all(&mut Reader::open(&scratch.log(), options).expect("open")).0;
        let everything = read(ReadOptions::default());
        assert_eq!(everything, numbers(60 - everything.len() as u64..60));
        for tail in [0, 1, 5, 30, 50] {
            assert_eq!(read(ReadOptions { tail: Some(tail), ..ReadOptions::default() }), numbers(60 - tail..60), "tail {tail}");
        }
        assert_eq!(read(ReadOptions { tail: Some(10_000), ..ReadOptions::default() }), everything);
        assert_eq!(read(ReadOptions { tail: Some(4), stderr: false, ..ReadOptions::default() }), ["56", "58"]);
        let time = |second| Some(Timestamp::from_second(second).expect("time"));
        assert_eq!(read(ReadOptions { since: time(50), until: time(52), ..ReadOptions::default() }), numbers(50..53));
    }

    #[test]
    fn files_that_were_written_before_since_are_not_read() {
        let scratch = Scratch::new("since");
        write_lines(&mut scratch.writer(1200), 0..60);
        let old = numbered(&scratch.log(), 1);
        let read = || {
            let since = Some(Timestamp::from_second(1).expect("time"));
            all(&mut Reader::open(&scratch.log(), ReadOptions { since, ..ReadOptions::default() }).expect("open")).0
        };
        let all_files = read();
        File::options().write(true).open(&old).expect("open").set_modified(UNIX_EPOCH - Duration::from_secs(5)).expect("age");
        File::options()
            .write(true)
            .open(numbered(&scratch.log(), 2))
            .expect("open")
            .set_modified(UNIX_EPOCH - Duration::from_secs(5))
            .expect("age");
        let live = std::fs::read_to_string(scratch.log()).expect("live file").lines().count();
        assert!(live < all_files.len());
        assert_eq!(read(), all_files[all_files.len() - live..]);
    }

    #[test]
    fn follow_sees_every_line_through_many_rotations() {
        let scratch = Scratch::new("follow");
        let path = scratch.log();
        let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).expect("open before the log exists");
        assert_eq!(all(&mut reader), (vec![], true));
        let writer = std::thread::spawn({
            let uri = LogUri { max_size: 50_000, max_file: 1000, ..LogUri::json_file(&path, None) };
            move || write_lines(&mut LogWriter::open(&uri).expect("writer"), 0..20_000)
        });
        let mut seen = Vec::new();
        while seen.len() < 20_000 {
            assert!(reader.wait(Some(Duration::from_secs(20))).expect("wait"), "no news after {} lines", seen.len());
            seen.extend(all(&mut reader).0);
        }
        writer.join().expect("writer");
        assert_eq!(seen, numbers(0..20_000));
        reader.finish();
        assert_eq!(all(&mut reader), (vec![], false));
    }

    #[test]
    fn files_above_the_gap_of_a_rotation_under_way_are_read() {
        let scratch = Scratch::new("gap");
        write_lines(&mut scratch.writer(1200), 0..60);
        let path = scratch.log();
        let everything = all(&mut Reader::open(&path, ReadOptions::default()).expect("open")).0;
        assert!(numbered(&path, 2).exists(), "the test must cover rotated files");
        // As far as a rotation has come when 2 is 3 and 1 is not 2 yet.
        std::fs::rename(numbered(&path, 2), numbered(&path, 3)).expect("rename");
        let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).expect("open");
        assert_eq!(all(&mut reader).0, everything);
    }

    #[test]
    fn an_idle_follower_is_not_woken() {
        let scratch = Scratch::new("idle");
        write_lines(&mut scratch.writer(0), 0..3);
        let mut reader = Reader::open(&scratch.log(), ReadOptions { follow: true, ..ReadOptions::default() }).expect("open");
        assert_eq!(all(&mut reader), (numbers(0..3), true));
        assert!(!reader.wait(Some(Duration::from_millis(50))).expect("wait"));
    }

    #[test]
    fn pieces_of_a_long_line_are_marked_and_damaged_records_skipped() {
        let scratch = Scratch::new("pieces");
        std::fs::write(scratch.log(), b"{\"log\":\"torn").expect("torn");
        let mut log = scratch.writer(0);
        log.write(Stream::Stdout, &vec![b'x'; PIECE + 1], second(1));
        log.write(Stream::Stderr, b"between\n", second(1));
        log.write(Stream::Stdout, b"\n", second(2));
        let mut reader = Reader::open(&scratch.log(), ReadOptions::default()).expect("open");
        let mut seen = Vec::new();
        while let Next::Record(record) = reader.next().expect("read") {
            seen.push((record.line.len(), record.continues));
        }
        assert_eq!(seen, [(PIECE, false), (8, false), (2, true)]);
    }

    /// A line for each second, in files of some ten lines, of which all but two are compressed.
    fn squeezed(scratch: &Scratch, lines: u64) {
        let uri = LogUri { max_size: 800, max_file: 100, compress: true, ..LogUri::json_file(scratch.log(), None) };
        let mut log = LogWriter::open(&uri).expect("writer");
        write_lines(&mut log, 0..lines);
        assert!(compressed(&numbered(&scratch.log(), 5)).exists(), "nothing was compressed");
    }

    fn counted(reader: &mut Reader) -> Vec<u64> {
        let mut found = Vec::new();
        while let Next::Record(record) = reader.next().expect("next") {
            found.push(std::str::from_utf8(&record.line).expect("text").trim().parse().expect("a number"));
        }
        found
    }

    #[test]
    fn compressed_files_are_read_as_the_others() {
        let scratch = Scratch::new("squeezed");
        squeezed(&scratch, 200);
        let read = |options: ReadOptions| counted(&mut Reader::open(&scratch.log(), options).expect("open"));
        assert_eq!(read(ReadOptions::default()), (0..200).collect::<Vec<_>>());
        for count in [0, 1, 7, 50, 133, 199, 200, 1000] {
            let expected: Vec<u64> = (200 - count.min(200)..200).collect();
            assert_eq!(read(ReadOptions { tail: Some(count), ..ReadOptions::default() }), expected, "tail {count}");
        }
        let since = Some(Timestamp::from_second(60).expect("time"));
        assert_eq!(read(ReadOptions { since, ..ReadOptions::default() }), (60..200).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_is_compressed_under_its_reader_is_not_read_twice() {
        let scratch = Scratch::new("under");
        let uri = LogUri { max_size: 800, max_file: 100, compress: true, ..LogUri::json_file(scratch.log(), None) };
        let mut log = LogWriter::open(&uri).expect("writer");
        write_lines(&mut log, 0..3);
        let mut reader = Reader::open(&scratch.log(), ReadOptions { follow: true, ..ReadOptions::default() }).expect("open");
        let mut found = counted(&mut reader);
        // Each turn rotates about once, and compresses what the reader has open.
        for turn in 0..30 {
            write_lines(&mut log, 3 + turn * 9..3 + (turn + 1) * 9);
            found.extend(counted(&mut reader));
        }
        assert!(compressed(&numbered(&scratch.log(), 3)).exists(), "nothing was compressed");
        assert_eq!(found, (0..273).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_whose_number_was_used_again_is_read() {
        let scratch = Scratch::new("again");
        let record = |n: u64| {
            let mut out = Vec::new();
            crate::encode::encode_record(&mut out, Stream::Stdout, format!("{n}\n").as_bytes(), "", second(n));
            out
        };
        let squeeze = |n: u32, formerly: u64, content: &[u8]| {
            let file = File::create(compressed(&numbered(&scratch.log(), n))).expect("create");
            let inode = file.metadata().expect("stat").ino();
            let mut gzip = flate2::GzBuilder::new().filename(formerly.to_string()).write(file, flate2::Compression::fast());
            io::Write::write_all(&mut gzip, content).expect("compress");
            gzip.finish().expect("compress");
            inode
        };
        std::fs::write(scratch.log(), record(2)).expect("write");
        // What .1.gz has for a number was that of the file that became .2.gz.
        let newer = squeeze(1, 1, &record(1));
        squeeze(2, newer, &record(0));
        let mut reader = Reader::open(&scratch.log(), ReadOptions::default()).expect("open");
        assert_eq!(counted(&mut reader), [0, 1, 2]);
    }
}
