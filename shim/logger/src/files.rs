//! The files of a log: one that grows, rotated ones with numbers, and what happens on a full disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::encode::encode_record;
use crate::record::Stream;
use crate::squeeze::{self, Squeeze};
use crate::uri::LogUri;

/// Bytes of the last rotated file that are compressed for each byte that is written: it is done long before the live file is full.
const SQUEEZED_PER_BYTE: usize = 4;

#[derive(Debug)]
pub struct RotatingFile {
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
    /// Whether rotated files are compressed, and the one at which that is under way.
    compress: bool,
    squeeze: Option<Squeeze>,
}

#[derive(Debug)]
struct Lost {
    bytes: u64,
    why: String,
}

impl RotatingFile {
    pub fn open(uri: &LogUri) -> io::Result<Self> {
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
            compress: uri.compress,
            squeeze: None,
        };
        this.drop_torn_tail()?;
        // What an earlier writer did not come to.
        this.begin_squeeze();
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

    pub fn record(&mut self, stream: Stream, line: &[u8], time: SystemTime) {
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

    pub fn flush(&mut self) {
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
        self.squeeze_on(batch.len() * SQUEEZED_PER_BYTE);
    }

    fn begin_squeeze(&mut self) {
        if self.compress && self.max_file > 1 {
            // Without room for it the file stays as it is: nothing is lost but room.
            self.squeeze = Squeeze::begin(&numbered(&self.path, 1)).ok().flatten();
        }
    }

    fn squeeze_on(&mut self, budget: usize) {
        if let Some(squeeze) = &mut self.squeeze
            && squeeze.step(budget).unwrap_or(true)
        {
            self.squeeze = None;
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
        self.squeeze_on(usize::MAX);
        if let Some(last) = self.max_file.checked_sub(1).filter(|last| *last > 0) {
            remove_both(&numbered(&self.path, last));
        }
        for n in (1..self.max_file.saturating_sub(1)).rev() {
            let (from, to) = (numbered(&self.path, n), numbered(&self.path, n + 1));
            rename_if_there(&from, &to);
            rename_if_there(&squeeze::compressed(&from), &squeeze::compressed(&to));
        }
        let moved = if self.max_file > 1 { std::fs::rename(&self.path, numbered(&self.path, 1)) } else { std::fs::remove_file(&self.path) };
        if moved.is_ok()
            && let Ok(file) = append(&self.path)
        {
            self.file = file;
            self.size = 0;
            self.begin_squeeze();
        }
    }
}

fn rename_if_there(from: &Path, to: &Path) {
    // A gap in the row of rotated files is no error: the next rotation fills it.
    drop(std::fs::rename(from, to));
}

/// The oldest file, in whichever form it is; most often there is none yet.
fn remove_both(path: &Path) {
    drop(std::fs::remove_file(path));
    drop(std::fs::remove_file(squeeze::compressed(path)));
}

/// `<path>.<n>`.
pub fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn write(log: &mut RotatingFile, line: &str, second: u64) {
        log.record(Stream::Stdout, line.as_bytes(), UNIX_EPOCH + Duration::from_secs(second));
        log.flush();
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().expect("a name")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_disk_is_told_once_it_has_room_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("x-json.log");
        let mut log = RotatingFile::open(&LogUri::json_file(&path, None)).expect("open");
        let real = std::mem::replace(&mut log.file, OpenOptions::new().write(true).open("/dev/full").expect("/dev/full"));
        write(&mut log, "lost\n", 1);
        log.file = real;
        write(&mut log, "kept\n", 2);
        write(&mut log, "more\n", 3);
        let text = std::fs::read_to_string(&path).expect("log");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("5 bytes of output lost: No space left on device"), "{text}");
        assert!(lines[1].contains("kept") && lines[2].contains("more") && lines.len() == 3, "{text}");
    }

    #[test]
    fn rotated_files_are_compressed_while_the_next_is_written() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("x-json.log");
        let uri = LogUri { max_size: 1000, max_file: 3, compress: true, ..LogUri::json_file(&path, None) };
        let mut log = RotatingFile::open(&uri).expect("open");
        let mut second = 0;
        let mut until = |log: &mut RotatingFile, there: &str| {
            while !dir.path().join(there).exists() {
                second += 1;
                assert!(second < 1000, "{there} never came");
                write(log, &format!("line {second}\n"), second);
            }
        };
        until(&mut log, "x-json.log.1");
        // Not all at once: the container would wait for it.
        assert_eq!(names(dir.path()), ["x-json.log", "x-json.log.1", "x-json.log.1.gz.part"]);
        until(&mut log, "x-json.log.1.gz");
        assert_eq!(names(dir.path()), ["x-json.log", "x-json.log.1.gz"]);
        until(&mut log, "x-json.log.2.gz");
        assert!(log.size < uri.max_size / 2, "it takes {} bytes of the next file", log.size);
        until(&mut log, "x-json.log.1.gz");
        assert_eq!(names(dir.path()), ["x-json.log", "x-json.log.1.gz", "x-json.log.2.gz"]);
    }

    #[test]
    fn a_compression_that_was_cut_off_begins_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("x-json.log");
        let uri = LogUri { max_size: 1000, max_file: 2, compress: true, ..LogUri::json_file(&path, None) };
        std::fs::write(numbered(&path, 1), "old\n").expect("write");
        std::fs::write(dir.path().join("x-json.log.1.gz.part"), "half").expect("write");
        let mut log = RotatingFile::open(&uri).expect("open");
        write(&mut log, "line\n", 1);
        assert_eq!(names(dir.path()), ["x-json.log", "x-json.log.1.gz"]);
        let mut text = String::new();
        let file = File::open(squeeze::compressed(&numbered(&path, 1))).expect("open");
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).expect("gzip");
        assert_eq!(text, "old\n");
    }
}
