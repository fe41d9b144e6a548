//! Writing Docker's JSON-file format: lines, 16 KiB pieces of longer ones, rotation, and what happens on a full disk.
//!
//! Overflow policy: a write that fails is dropped, the container goes on; the next write that succeeds is preceded by a record that tells how
//! many bytes were lost and why.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::record::Stream;
use crate::uri::{Driver, LogUri};

/// Docker's copier cuts longer lines into pieces of this size in bytes.
pub const PIECE: usize = 16 * 1024;

/// The log file of one container. Holds at most one unfinished line (up to [`PIECE`]) per stream.
#[derive(Debug)]
pub struct LogWriter {
    file: Option<RotatingFile>,
    pending: [Line; 2],
}

#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// Time of the first piece, while a line is longer than one.
    first_piece: Option<SystemTime>,
}

impl LogWriter {
    /// Opens the live file for appending, mode 0640 (a second writer of the same path is the caller's error).
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(uri: &LogUri) -> io::Result<Self> {
        let file = match uri.driver {
            Driver::JsonFile => Some(RotatingFile::open(uri)?),
            Driver::None => None,
        };
        Ok(Self { file, pending: Default::default() })
    }

    /// Takes output as it comes; whole lines are in the file when this returns.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8], now: SystemTime) {
        let Some(file) = &mut self.file else { return };
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
                file.record(stream, piece, line.first_piece.take().unwrap_or(now));
                continue;
            }
            line.bytes.extend_from_slice(piece);
            if complete || line.bytes.len() == PIECE {
                let time = *line.first_piece.get_or_insert(now);
                file.record(stream, &line.bytes, time);
                line.bytes = Vec::new();
                if complete {
                    line.first_piece = None;
                }
            }
        }
        file.flush();
    }

    /// The process has ended: unfinished lines are written as they are.
    pub fn finish(&mut self, now: SystemTime) {
        let Some(file) = &mut self.file else { return };
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(&mut self.pending[stream as usize - 1]);
            if !line.bytes.is_empty() {
                file.record(stream, &line.bytes, line.first_piece.unwrap_or(now));
            }
        }
        file.flush();
    }
}

#[derive(Debug)]
struct RotatingFile {
    path: PathBuf,
    file: File,
    /// Bytes in the live file.
    size: u64,
    max_size: u64,
    max_file: u32,
    /// As [`LogUri::attributes`].
    attributes: String,
    /// Encoded records not yet written, and how many bytes of output they stand for.
    batch: Vec<u8>,
    batch_output: u64,
    lost: Option<Lost>,
}

#[derive(Debug)]
struct Lost {
    bytes: u64,
    why: String,
}

impl RotatingFile {
    fn open(uri: &LogUri) -> io::Result<Self> {
        let file = append(&uri.path)?;
        let mut this = Self {
            path: uri.path.clone(),
            size: file.metadata()?.len(),
            file,
            max_size: uri.max_size,
            max_file: uri.max_file,
            attributes: uri.attributes.clone(),
            batch: Vec::new(),
            batch_output: 0,
            lost: None,
        };
        this.drop_torn_tail()?;
        Ok(this)
    }

    /// An earlier writer may have died within a record: what follows must start on a line of its own.
    fn drop_torn_tail(&mut self) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let mut last = [b'\n'];
        if self.size > 0 {
            File::open(&self.path)?.read_at(&mut last, self.size - 1)?;
        }
        if last != *b"\n" {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        Ok(())
    }

    fn record(&mut self, stream: Stream, line: &[u8], time: SystemTime) {
        if self.max_size > 0 && self.size + self.batch.len() as u64 >= self.max_size {
            self.flush();
            if self.size > 0 {
                self.rotate();
            }
        }
        if let Some(lost) = &self.lost {
            let note = format!("[log: {} bytes of output lost: {}]\n", lost.bytes, lost.why);
            if self.batch.is_empty() {
                encode_record(&mut self.batch, Stream::Stderr, note.as_bytes(), &self.attributes, time);
            }
        }
        encode_record(&mut self.batch, stream, line, &self.attributes, time);
        self.batch_output += line.len() as u64;
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let output = std::mem::take(&mut self.batch_output);
        match self.file.write_all(&batch) {
            Ok(()) => {
                self.size += batch.len() as u64;
                self.lost = None;
            }
            Err(err) => self.give_up(output, &err),
        }
    }

    fn give_up(&mut self, output: u64, err: &io::Error) {
        let lost = self.lost.get_or_insert_with(|| Lost { bytes: 0, why: String::new() });
        lost.bytes += output;
        lost.why = err.to_string();
        // Part of the batch may have been written: whole records only.
        if let Err(err) = self.file.set_len(self.size) {
            lost.why = format!("{}; truncate: {err}", lost.why);
        }
    }

    /// `path` → `path.1` → `path.2` …; the oldest goes. When any step fails the live file just grows on, and the loss of rotation shows in
    /// its size, not in lost lines.
    fn rotate(&mut self) {
        for n in (1..self.max_file.saturating_sub(1)).rev() {
            rename_if_there(&numbered(&self.path, n), &numbered(&self.path, n + 1));
        }
        let moved = if self.max_file > 1 { std::fs::rename(&self.path, numbered(&self.path, 1)) } else { std::fs::remove_file(&self.path) };
        if moved.is_ok()
            && let Ok(file) = append(&self.path)
        {
            self.file = file;
            self.size = 0;
        }
    }
}

fn rename_if_there(from: &Path, to: &Path) {
    // A gap in the row of rotated files is no error: the next rotation fills it.
    drop(std::fs::rename(from, to));
}

/// `<path>.<n>`.
pub(crate) fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn encode_record(out: &mut Vec<u8>, stream: Stream, line: &[u8], attributes: &str, time: SystemTime) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, line);
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    if !attributes.is_empty() {
        out.extend_from_slice(b"\",\"attrs\":");
        out.extend_from_slice(attributes.as_bytes());
        out.extend_from_slice(b",\"time\":\"");
    } else {
        out.extend_from_slice(b"\",\"time\":\"");
    }
    out.extend_from_slice(&rfc3339_nano(time));
    out.extend_from_slice(b"\"}\n");
}

/// JSON string escapes as Docker's encoder writes them; bytes that are no UTF-8 become U+FFFD.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        escape_str(out, chunk.valid());
        for _ in 0..chunk.invalid().len() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn escape_str(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let line_separator = byte == 0xe2 && matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9]));
        if !(line_separator || byte < 0x20 || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')) {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0xe2 => {
                out.extend_from_slice(if bytes[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                from = at + 3;
            }
            _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `2006-01-02T15:04:05.999999999Z`: UTC, trailing zeros of the fraction left out, as Go's `RFC3339Nano`.
fn rfc3339_nano(time: SystemTime) -> Vec<u8> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if since.subsec_nanos() > 0 {
        let fraction = format!(".{:09}", since.subsec_nanos());
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text.into_bytes()
}

/// Gregorian date of a day counted from 1970-01-01, by eras of 400 years that begin on a first of March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
    fn the_time_is_gos_rfc3339_nano() {
        for (time, text) in [
            (at(0, 0), "1970-01-01T00:00:00Z"),
            (at(951_782_400, 500_000_000), "2000-02-29T00:00:00.5Z"),
            (at(1_795_233_906, 123_456_789), "2026-11-21T04:05:06.123456789Z"),
            (at(4_102_444_799, 10), "2099-12-31T23:59:59.00000001Z"),
        ] {
            assert_eq!(String::from_utf8(rfc3339_nano(time)).expect("ascii"), text);
        }
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

    #[test]
    fn a_full_disk_is_told_once_it_has_room_again() {
        let dir = scratch("full");
        let (mut log, path) = writer(&dir, 0, 1);
        let file = log.file.as_mut().expect("json-file");
        let real = std::mem::replace(&mut file.file, OpenOptions::new().write(true).open("/dev/full").expect("/dev/full"));
        log.write(Stream::Stdout, b"lost\n", at(1, 0));
        log.file.as_mut().expect("json-file").file = real;
        log.write(Stream::Stdout, b"kept\n", at(2, 0));
        log.write(Stream::Stdout, b"more\n", at(3, 0));
        let text = std::fs::read_to_string(&path).expect("log");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("5 bytes of output lost: No space left on device"), "{text}");
        assert!(lines[1].contains("kept") && lines[2].contains("more") && lines.len() == 3, "{text}");
        std::fs::remove_dir_all(dir).expect("clean");
    }
}
