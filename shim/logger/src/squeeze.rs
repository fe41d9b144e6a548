//! Compressing a rotated file a little at a time, beside the writing of the next one: no thread, no program, and no wake-up of its own.
//!
//! `path.1` → `path.1.gz.part` → synced → `path.1.gz`, and only then `path.1` goes: whatever ends the writer, the lines are in one of them.
//! The inode of the file that it was stands in gzip's field for the name, by which a reader that still has that one open finds its place.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

const CHUNK: usize = 16 * 1024;

#[derive(Debug)]
pub struct Squeeze {
    source: PathBuf,
    from: File,
    part: PathBuf,
    to: GzEncoder<File>,
    /// When the last line was written: kept, since readers go by it.
    written: SystemTime,
}

impl Squeeze {
    /// `None`: there is no such file.
    ///
    /// # Errors
    /// When it or the one beside it cannot be opened.
    pub fn begin(source: &Path) -> io::Result<Option<Self>> {
        let from = match File::open(source) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err),
        };
        let meta = from.metadata()?;
        let mut part = compressed(source).into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let to = File::options().write(true).create(true).truncate(true).mode(0o640).open(&part)?;
        let to = GzBuilder::new().filename(meta.ino().to_string()).write(to, Compression::fast());
        Ok(Some(Self { source: source.to_owned(), from, part, to, written: meta.modified()? }))
    }

    /// Goes on by `budget` bytes of the source; says whether it is done.
    ///
    /// # Errors
    /// When reading or writing fails (a full disk): the file stays as it was.
    pub fn step(&mut self, mut budget: usize) -> io::Result<bool> {
        let result = self.copy(&mut budget).and_then(|ended| if ended { self.end().map(|()| true) } else { Ok(false) });
        if result.is_err() {
            // Best effort: the next one begins by cutting it to nothing.
            drop(std::fs::remove_file(&self.part));
        }
        result
    }

    fn copy(&mut self, budget: &mut usize) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        while *budget > 0 {
            let wanted = CHUNK.min(*budget);
            let read = self.from.read(&mut chunk[..wanted])?;
            if read == 0 {
                return Ok(true);
            }
            self.to.write_all(&chunk[..read])?;
            *budget -= read;
        }
        Ok(false)
    }

    fn end(&mut self) -> io::Result<()> {
        self.to.try_finish()?;
        let file = self.to.get_ref();
        file.set_modified(self.written)?;
        file.sync_all()?;
        std::fs::rename(&self.part, compressed(&self.source))?;
        std::fs::remove_file(&self.source)
    }
}

/// The name that a file has once it is compressed.
pub fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    PathBuf::from(name)
}
