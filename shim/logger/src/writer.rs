//! Writing a container's output: lines, 16 KiB pieces of longer ones; into files, to a service of the host, or both.
//!
//! Overflow policy of the files: a write that fails is dropped, the container goes on; the next write that succeeds is preceded by a record
//! that tells how many bytes were lost and why. That of services is [`crate::forward`]'s.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Instant, SystemTime};

use crate::files::RotatingFile;
use crate::forward::Forward;
use crate::record::Stream;
use crate::uri::{Driver, LogUri};

/// Docker's copier cuts longer lines into pieces of this size in bytes.
pub const PIECE: usize = 16 * 1024;

/// The log of one container. Holds at most one unfinished line (up to [`PIECE`]) per stream, and what a service has not taken yet.
#[derive(Debug)]
pub struct LogWriter {
    out: Out,
    pending: [Line; 2],
}

#[derive(Debug)]
struct Out {
    files: Option<RotatingFile>,
    forward: Option<Box<Forward>>,
}

#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// Time of the first piece, while a line is longer than one.
    first_piece: Option<SystemTime>,
}

impl Out {
    fn record(&mut self, stream: Stream, piece: &[u8], time: SystemTime) {
        if let Some(files) = &mut self.files {
            files.record(stream, piece, time);
        }
        if let Some(forward) = &mut self.forward {
            forward.send(stream, piece, time, Instant::now());
        }
    }

    fn flush(&mut self) {
        if let Some(files) = &mut self.files {
            files.flush();
        }
    }
}

impl LogWriter {
    /// Opens the live file for appending, mode 0640 (a second writer of the same path is the caller's error), and connects to the service.
    ///
    /// # Errors
    /// When the file cannot be opened, or the service does not answer.
    pub fn open(uri: &LogUri) -> io::Result<Self> {
        let forward = uri.forward.as_ref().map(Forward::open).transpose()?.map(Box::new);
        let files = match uri.driver {
            Driver::JsonFile => Some(RotatingFile::open(uri)?),
            Driver::None => None,
        };
        Ok(Self { out: Out { files, forward }, pending: Default::default() })
    }

    /// Takes output as it comes; whole lines are in the file when this returns.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8], now: SystemTime) {
        if self.out.files.is_none() && self.out.forward.is_none() {
            return;
        }
        let line = &mut self.pending[stream as usize - 1];
        while !bytes.is_empty() {
            let room = PIECE - line.bytes.len();
            let window = &bytes[..bytes.len().min(room)];
            let (piece, complete) = match window.iter().position(|&byte| byte == b'\n') {
                Some(end) => (&window[..=end], true),
                None => (window, false),
            };
            bytes = &bytes[piece.len()..];
            if complete && line.bytes.is_empty() {
                self.out.record(stream, piece, line.first_piece.take().unwrap_or(now));
                continue;
            }
            line.bytes.extend_from_slice(piece);
            if complete || line.bytes.len() == PIECE {
                let time = *line.first_piece.get_or_insert(now);
                self.out.record(stream, &line.bytes, time);
                line.bytes = Vec::new();
                if complete {
                    line.first_piece = None;
                }
            }
        }
        self.out.flush();
    }

    /// The process has ended: unfinished lines are written as they are. What a service has not taken yet still goes there, until
    /// [`Self::is_dry`].
    pub fn finish(&mut self, now: SystemTime) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(&mut self.pending[stream as usize - 1]);
            if !line.bytes.is_empty() {
                self.out.record(stream, &line.bytes, line.first_piece.unwrap_or(now));
            }
        }
        self.out.flush();
    }

    /// Whether the source should be held back for now: the service is slower than the container.
    pub fn is_congested(&self) -> bool {
        self.out.forward.as_ref().is_some_and(|forward| forward.is_congested())
    }

    /// Whether nothing waits to be taken.
    pub fn is_dry(&self) -> bool {
        self.out.forward.as_ref().is_none_or(|forward| forward.is_dry())
    }

    /// When [`Self::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.out.forward.as_ref().and_then(|forward| forward.deadline())
    }

    /// The deadline has come, or [`Self::connection`] can be written to.
    pub fn tick(&mut self, now: Instant) {
        if let Some(forward) = &mut self.out.forward {
            forward.tick(now);
        }
    }

    /// To the service: to be watched for writability while [`Self::is_dry`] is not so; another one whenever [`Self::take_closed`] gave the
    /// last one out.
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.out.forward.as_ref().and_then(|forward| forward.connection())
    }

    /// A connection that broke, to be closed once it is not watched any more.
    pub fn take_closed(&mut self) -> Option<OwnedFd> {
        self.out.forward.as_mut().and_then(|forward| forward.take_closed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::numbered;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, UNIX_EPOCH};

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("shim-logger-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(&dir).expect("temp dir");
        dir
    }

    fn writer(dir: &Path, max_size: u64, max_file: u32) -> (LogWriter, PathBuf) {
        let path = dir.join("x-json.log");
        let uri = LogUri { max_size, max_file, ..LogUri::json_file(&path, None) };
        (LogWriter::open(&uri).expect("open"), path)
    }

    #[test]
    fn lines_are_docker_records() {
        let dir = scratch("lines");
        let (mut log, path) = writer(&dir, 0, 1);
        log.write(Stream::Stdout, b"a<b>&\"\\\t\r\n\xffz\n", at(1, 0));
        log.write(Stream::Stderr, "par".as_bytes(), at(2, 0));
        log.write(Stream::Stderr, "tial\u{2028}é\nrest".as_bytes(), at(3, 0));
        log.finish(at(4, 0));
        let text = std::fs::read_to_string(&path).expect("log");
        let expected = [
            r#"{"log":"a\u003cb\u003e\u0026\"\\\u0009\r\n","stream":"stdout","time":"1970-01-01T00:00:01Z"}"#,
            r#"{"log":"\ufffdz\n","stream":"stdout","time":"1970-01-01T00:00:01Z"}"#,
            r#"{"log":"partial\u2028é\n","stream":"stderr","time":"1970-01-01T00:00:03Z"}"#,
            r#"{"log":"rest","stream":"stderr","time":"1970-01-01T00:00:04Z"}"#,
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        std::fs::remove_dir_all(dir).expect("clean");
    }

    #[test]
    fn attributes_stand_in_each_record() {
        let dir = scratch("attributes");
        let path = dir.join("x-json.log");
        let uri = LogUri { attributes: r#"{"a":"b"}"#.to_owned(), ..LogUri::json_file(&path, None) };
        LogWriter::open(&uri).expect("open").write(Stream::Stdout, b"x\n", at(1, 0));
        let text = std::fs::read_to_string(&path).expect("log");
        assert_eq!(text, "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"b\"},\"time\":\"1970-01-01T00:00:01Z\"}\n");
        std::fs::remove_dir_all(dir).expect("clean");
    }

    #[test]
    fn long_lines_are_cut_at_16_kib_with_one_time() {
        let dir = scratch("pieces");
        let (mut log, path) = writer(&dir, 0, 1);
        let mut line = vec![b'x'; 2 * PIECE + 5];
        line.push(b'\n');
        for (n, chunk) in line.chunks(1000).enumerate() {
            log.write(Stream::Stdout, chunk, at(n as u64, 0));
        }
        let text = std::fs::read_to_string(&path).expect("log");
        let records: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
        let lengths: Vec<usize> = records.iter().map(|record| record["log"].as_str().expect("log").len()).collect();
        assert_eq!(lengths, [PIECE, PIECE, 6]);
        assert!(records.iter().all(|record| record["time"] == records[0]["time"]));
        std::fs::remove_dir_all(dir).expect("clean");
    }

    #[test]
    fn rotation_keeps_max_file_files_and_loses_no_line_among_them() {
        let dir = scratch("rotate");
        let (mut log, path) = writer(&dir, 1000, 3);
        for n in 0..200 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes(), at(n, 0));
        }
        let names: std::collections::BTreeSet<_> =
            std::fs::read_dir(&dir).expect("dir").map(|entry| entry.expect("entry").file_name()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        let text: String = [numbered(&path, 2), numbered(&path, 1), path.clone()]
            .iter()
            .map(|path| std::fs::read_to_string(path).expect("rotated file"))
            .collect();
        let kept = text.lines().count();
        assert!(text.lines().last().expect("lines").contains("line 199"));
        assert!(text.lines().next().expect("lines").contains(&format!("line {}", 200 - kept)), "a gap");
        std::fs::remove_dir_all(dir).expect("clean");
    }

    #[test]
    fn a_torn_record_of_a_dead_writer_does_not_swallow_the_next() {
        let dir = scratch("torn");
        std::fs::write(dir.join("x-json.log"), b"{\"log\":\"hal").expect("torn");
        let (mut log, path) = writer(&dir, 0, 1);
        log.write(Stream::Stdout, b"next\n", at(1, 0));
        let text = std::fs::read_to_string(&path).expect("log");
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("{\"log\":\"next\\n\"")), "{text}");
        std::fs::remove_dir_all(dir).expect("clean");
    }
}
