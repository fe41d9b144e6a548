//! Reading a stored blob.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rcontainerd_types::{Digest, Error, ErrorKind, Result};

use crate::fs::failed;

/// An open blob: sequential, seekable and positional reads.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    size: u64,
}

impl BlobReader {
    pub(super) fn open(path: &Path, digest: &Digest, size: u64) -> Result<Self> {
        let damaged = |what: String| Error::new(ErrorKind::DataLoss, format!("content {digest} {what}: pull or load the image again"));
        let file = match File::open(path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(damaged("has lost its file".into())),
            Err(err) => return Err(failed("open", path)(err)),
        };
        let found = file.metadata().map_err(failed("stat", path))?.len();
        if found != size {
            return Err(damaged(format!("has {found} bytes instead of {size}")));
        }
        Ok(Self { file, size })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn into_file(self) -> File {
        self.file
    }

    /// # Errors
    /// As pread(2).
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    pub(super) fn read_verified(mut self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        if self.size > limit {
            let message = format!("content {digest} has {} bytes, more than the {limit} that a document may have", self.size);
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap_or(0));
        self.file.read_to_end(&mut bytes).map_err(|err| Error::io(format!("read content {digest}"), err))?;
        let mut hasher = digest.algorithm().hasher();
        hasher.update(&bytes);
        if hasher.finish() != *digest {
            return Err(Error::new(ErrorKind::DataLoss, format!("content {digest} is damaged on disk: pull or load the image again")));
        }
        Ok(bytes)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
