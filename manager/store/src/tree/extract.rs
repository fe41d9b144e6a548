//! A tar into a directory of somebody else's tree. Entries land below the target whatever they are called: `..` cannot leave it, parents
//! that are links are followed within the root, the last component never is.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rcontainerd_types::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, FileType, Mode, makedev, mkdirat, mknodat, statat, symlinkat};
use rustix::io::Errno;

use super::scope::{Scope, path_error};
use super::walk::join;
use crate::fs::remove_tree_at;
use crate::unpack::Limits;
use crate::unpack::apply::{attributes, clean, file_attributes, open_new, set_times, timespec, write_data};
use crate::unpack::decompress;
use crate::unpack::tar::{Entry, EntryKind, Mtime, TarReader};

/// What is done with what is there, and whose the new files are.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtractOptions {
    /// Refuse to put a directory in a file's place and the other way round.
    pub keep_kinds: bool,
    /// All entries become this user's and group's.
    pub owner: Option<(u32, u32)>,
}

/// Extracts a tar (plain, gzip, zstd, xz or bzip2) into the directory `at` of the root.
///
/// # Errors
/// `InvalidArgument` for a malformed archive or one that would leave the directory; `NotFound` when `at` is not there;
/// `PermissionDenied` on a read-only file system. What was extracted before stays, as with tar(1).
pub fn extract(stream: impl Read, scope: &Scope, at: &[u8], options: ExtractOptions) -> Result<()> {
    let limits = Limits::default();
    let mut tar = TarReader::new(BufReader::with_capacity(64 << 10, decompress::open(stream)?));
    let mut extraction = Extraction { scope, at, options, limits: &limits, times: BTreeMap::new() };
    scope.dir(at).map_err(|err| path_error("open", at, err))?;
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        if entries > limits.entries {
            return Err(Error::new(ErrorKind::ResourceExhausted, format!("more than {} entries", limits.entries)));
        }
        extraction.entry(entry, &mut tar)?;
    }
    extraction.finish();
    tar.drain()
}

struct Extraction<'a> {
    scope: &'a Scope,
    at: &'a [u8],
    options: ExtractOptions,
    limits: &'a Limits,
    /// Of directories, by path from the root; set when all is in place.
    times: BTreeMap<Vec<u8>, Mtime>,
}

impl Extraction<'_> {
    fn entry<R: BufRead>(&mut self, mut entry: Entry, tar: &mut TarReader<R>) -> Result<()> {
        if let Some((uid, gid)) = self.options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        let path = clean(&entry.path, self.limits).map_err(|err| err.context(format!("entry {shown:?}")))?;
        if path.is_empty() {
            return self.target(&entry);
        }
        let (parent_path, name) = split(&path);
        let parent_path = join(self.at, parent_path);
        let parent = self.scope.make_dirs(&parent_path).map_err(|err| path_error("open", &parent_path, err))?;
        let name = CString::new(name).map_err(|_| Error::invalid("a name contains a NUL byte"))?;
        self.create(parent.as_fd(), &name, &entry, tar).map_err(|err| err.context(format!("entry {shown:?}")))?;
        if entry.kind == EntryKind::Directory {
            self.times.insert(join(self.at, &path), entry.mtime);
        }
        Ok(())
    }

    /// The archive's `.`: the target directory itself takes its owner and mode.
    fn target(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(Error::invalid("the archive's root is not a directory"));
        }
        let dir = self.scope.dir(self.at).map_err(|err| path_error("open", self.at, err))?;
        attributes(dir.as_fd(), c".", entry)?;
        self.times.insert(self.at.to_vec(), entry.mtime);
        Ok(())
    }

    fn create<R: BufRead>(&self, parent: BorrowedFd<'_>, name: &CStr, entry: &Entry, tar: &mut TarReader<R>) -> Result<()> {
        if entry.kind == EntryKind::HardLink {
            return self.hard_link(parent, name, entry);
        }
        if self.make_way(parent, name, entry.kind)? {
            return attributes(parent, name, entry);
        }
        let failed = |err: Errno| path_error("create", name.to_bytes(), err);
        match entry.kind {
            EntryKind::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(failed)?,
            EntryKind::Regular => {
                let file = open_new(parent, name).map_err(failed)?;
                write_data(&file, entry, tar)?;
                return file_attributes(&file, entry);
            }
            EntryKind::Symlink => {
                let target = CString::new(entry.link.as_slice()).map_err(|_| Error::invalid("a symlink's target contains a NUL byte"))?;
                symlinkat(&target, parent, name).map_err(failed)?;
            }
            kind => {
                let device = makedev(entry.device.0, entry.device.1);
                mknodat(parent, name, file_type(kind), Mode::from_raw_mode(0o600), device).map_err(failed)?;
            }
        }
        attributes(parent, name, entry)
    }

    /// Removes what is in the way; `true` for a directory that may stay as it is.
    fn make_way(&self, parent: BorrowedFd<'_>, name: &CStr, kind: EntryKind) -> Result<bool> {
        let failed = |err: Errno| path_error("replace", name.to_bytes(), err);
        let found = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => FileType::from_raw_mode(other.map_err(failed)?.st_mode),
        };
        let (is_directory, wanted) = (found == FileType::Directory, kind == EntryKind::Directory);
        if is_directory && wanted {
            return Ok(true);
        }
        if self.options.keep_kinds && is_directory != wanted {
            let shown = name.to_string_lossy();
            let (is, with) = if is_directory { ("directory", "non-directory") } else { ("non-directory", "directory") };
            return Err(Error::invalid(format!("cannot overwrite {is} {shown:?} with {with} {shown:?}")));
        }
        remove_tree_at(parent, name).map_err(failed)?;
        Ok(false)
    }

    /// The target is a name of the archive, found below the directory that is extracted into.
    fn hard_link(&self, parent: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<()> {
        let target = clean(&entry.link, self.limits)?;
        let (target_parent, target_name) = split(&target);
        let failed = |err: Errno| path_error("link to", &target, err);
        let dir: OwnedFd = self.scope.dir(&join(self.at, target_parent)).map_err(failed)?;
        let c_target = CString::new(target_name).map_err(|_| Error::invalid("a name contains a NUL byte"))?;
        let found = statat(&dir, &c_target, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(Error::invalid(format!("hard link to the directory {}", String::from_utf8_lossy(&target))));
        }
        if statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|have| (have.st_dev, have.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        self.make_way(parent, name, EntryKind::HardLink)?;
        rustix::fs::linkat(&dir, &c_target, parent, name, AtFlags::empty()).map_err(failed)
    }

    /// Times of directories last: everything made in them has changed them. One that was moved away meanwhile keeps what it has.
    fn finish(&self) {
        for (path, mtime) in &self.times {
            if let Ok(dir) = self.scope.dir(path)
                && let Err(err) = set_times(&dir, timespec(*mtime))
            {
                tracing::debug!("set the times of {}: {err}", String::from_utf8_lossy(path));
            }
        }
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|byte| *byte == b'/').map_or((&[], path), |slash| (&path[..slash], &path[slash + 1..]))
}

fn file_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::CharDevice => FileType::CharacterDevice,
        EntryKind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    }
}
