//! A disk that remembers every write and every flush, and what it would hold had the power gone after any of them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use crate::fuse::{Disk, Mounted};

use rcontainerd_tests::Random;

/// One thing that the block layer asked for, in the order in which it was done.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Write {
        offset: u64,
        length: u64,
        /// Where its bytes are in the log's file.
        at: u64,
    },
    Flush,
}

struct Log {
    /// What the disk holds now.
    image: File,
    bytes: File,
    size: u64,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    all: Vec<Entry>,
    bytes: u64,
    flushes: usize,
}

impl Disk for Log {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), i32> {
        self.image.read_exact_at(buffer, offset).map_err(|_| libc::EIO)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), i32> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, length) = (entries.bytes, bytes.len() as u64);
        self.bytes.write_all_at(bytes, at).map_err(|_| libc::EIO)?;
        self.image.write_all_at(bytes, offset).map_err(|_| libc::EIO)?;
        entries.all.push(Entry::Write { offset, length, at });
        entries.bytes += length;
        Ok(())
    }

    fn flush(&self) -> Result<(), i32> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.all.push(Entry::Flush);
        entries.flushes += 1;
        Ok(())
    }
}

/// A recording disk as a block device with an ext4 on it.
pub struct Recorder {
    log: Arc<Log>,
    device: PathBuf,
    _mounted: Mounted,
}

/// Memory: what is written here is gone with the test.
const PLACE: &str = "/dev/shm";

impl Recorder {
    /// Makes a disk of so many MiB; `dir` is for its mount point.
    pub fn start(dir: &Path, mebibytes: u64) -> Self {
        let file = || tempfile::tempfile_in(PLACE).expect("make a file in memory");
        let log = Arc::new(Log { image: file(), bytes: file(), size: mebibytes << 20, entries: Mutex::default() });
        log.image.set_len(log.size).expect("size the disk");
        let path = dir.join("disk");
        let mounted = Mounted::new(&path, Arc::clone(&log) as Arc<dyn Disk>);
        let device = PathBuf::from(done(Command::new("losetup").args(["--find", "--show"]).arg(&path)));
        done(Command::new("mkfs.ext4").args(["-q", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]).arg(&device));
        Self { log, device, _mounted: mounted }
    }

    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Flushes that have been done.
    pub fn flushes(&self) -> usize {
        self.log.entries.lock().unwrap_or_else(PoisonError::into_inner).flushes
    }

    /// Gives the device back, and what was recorded.
    pub fn finish(self) -> Recording {
        let Self { log, .. } = &self;
        let log = Arc::clone(log);
        drop(self);
        let log = Arc::into_inner(log).expect("the disk is given back");
        Recording { size: log.size, bytes: log.bytes, entries: log.entries.into_inner().unwrap_or_else(PoisonError::into_inner).all }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        Command::new("losetup").arg("--detach").arg(&self.device).status().ok();
    }
}

/// Every write and flush of a disk's life.
pub struct Recording {
    size: u64,
    bytes: File,
    entries: Vec<Entry>,
}

impl Recording {
    pub fn flushes(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry, Entry::Flush)).count()
    }

    /// A disk that goes through the recording once more.
    pub fn replay(&self, path: &Path) -> Replay<'_> {
        let image = File::options().read(true).write(true).create_new(true).open(path).expect("make an image");
        image.set_len(self.size).expect("size the image");
        Replay { recording: self, image, path: path.to_owned(), next: 0, flushes: 0 }
    }
}

/// What the disk holds after some flush.
pub struct Replay<'a> {
    recording: &'a Recording,
    image: File,
    path: PathBuf,
    next: usize,
    flushes: usize,
}

impl Replay<'_> {
    /// Goes on to just behind that flush (the first is 1; 0 is the empty disk).
    pub fn advance(&mut self, flush: usize) {
        while self.flushes < flush {
            match self.recording.entries[self.next] {
                Entry::Flush => self.flushes += 1,
                write @ Entry::Write { .. } => self.recording.apply(write, &self.image),
            }
            self.next += 1;
        }
    }

    /// A copy of the disk as it is now. With a seed, it has also some of the writes up to the next flush, as the power went among them: a
    /// drive does what it has not been told to flush in any order, and not all of it.
    pub fn copy(&self, to: &Path, torn: Option<u64>) {
        done(Command::new("cp").arg("--sparse=always").arg(&self.path).arg(to));
        let Some(seed) = torn else { return };
        let image = File::options().write(true).open(to).expect("open the copy");
        let mut random = Random::new(seed);
        let unflushed = self.recording.entries[self.next..].iter().take_while(|entry| matches!(entry, Entry::Write { .. }));
        for write in unflushed {
            if random.below(2) == 0 {
                self.recording.apply(*write, &image);
            }
        }
    }
}

impl Recording {
    fn apply(&self, entry: Entry, image: &File) {
        let Entry::Write { offset, length, at } = entry else { return };
        let mut bytes = vec![0; usize::try_from(length).expect("a write is small")];
        self.bytes.read_exact_at(&mut bytes, at).expect("read the log");
        image.write_all_at(&bytes, offset).expect("write the image");
    }
}

/// Runs a program that must succeed; gives what it says.
pub fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|err| panic!("{command:?}: {err}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
