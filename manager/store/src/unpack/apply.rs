//! Applies tar entries to a layer's directory. Names are only ever used relative to an open directory, the last component never
//! followed; so nothing outside the root can be reached, whatever the archive holds and in whatever order.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rcontainerd_types::{Error, ErrorKind, Result};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat, fchmod, fchown, futimens, linkat,
    makedev, mkdirat, mknodat, openat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::Limits;
use super::dirs::{Dir, Dirs, Lower, c_name, call_failed, is_whiteout, join, parent_of, set_opaque};
use super::tar::{Entry, EntryKind, Mtime, TarReader};
use super::xattr::{self, ProcPath};
use crate::fs::remove_tree_at;
use crate::snapshot::{LayerDirs, Whiteouts};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// aufs's own files (`.wh..wh.plnk`, `.wh..wh.aufs`): of no meaning to anyone else.
const AUFS: &[u8] = b".wh..wh.";
/// NAME_MAX of every Linux file system.
const NAME_MAX: usize = 255;

/// The state of one layer's unpacking.
pub struct Applier<'a> {
    dirs: Dirs,
    limits: &'a Limits,
    /// Resolved paths that this layer has made, kept only where removing a whited-out name could hit them.
    made: BTreeSet<Vec<u8>>,
    entries: u64,
}

impl<'a> Applier<'a> {
    pub fn new(dirs: &LayerDirs, limits: &'a Limits) -> Result<Self> {
        Ok(Self { dirs: Dirs::open(dirs)?, limits, made: BTreeSet::new(), entries: 0 })
    }

    /// Applies every entry; gives their number.
    pub fn run<R: BufRead>(mut self, tar: &mut TarReader<R>) -> Result<u64> {
        while let Some(entry) = tar.next()? {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(Error::new(ErrorKind::ResourceExhausted, format!("more than {} entries", self.limits.entries)));
            }
            self.entry(&entry, tar).map_err(|err| err.context(format!("entry {:?}", String::from_utf8_lossy(&entry.path))))?;
        }
        self.finish()?;
        tar.drain()?;
        Ok(self.entries)
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<()> {
        let path = clean(&entry.path, self.limits)?;
        if path.is_empty() {
            return self.root_entry(entry);
        }
        let parent_path = parent_of(&path);
        let name = &path[if parent_path.is_empty() { 0 } else { parent_path.len() + 1 }..];
        if path.split(|byte| *byte == b'/').any(|component| component.starts_with(AUFS)) {
            return if name == OPAQUE { self.opaque(parent_path) } else { Ok(()) };
        }
        if parent_path.split(|byte| *byte == b'/').any(|component| component.starts_with(WHITEOUT)) {
            return Err(Error::invalid("a whiteout cannot be a directory"));
        }
        let parent = self.dirs.dir(parent_path)?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, hidden);
        }
        if entry.kind == EntryKind::CharDevice && entry.device == (0, 0) {
            return self.whiteout(&parent, name);
        }
        self.create(&parent, name, entry, tar)?;
        if self.dirs.whiteouts == Whiteouts::Remove {
            self.made.insert(join(&parent.path, name));
        }
        Ok(())
    }

    fn create<R: BufRead>(&mut self, parent: &Rc<Dir>, name: &[u8], entry: &Entry, tar: &mut TarReader<R>) -> Result<()> {
        let c_name = c_name(name)?;
        match entry.kind {
            EntryKind::Directory => self.directory(parent, name, &c_name, entry),
            EntryKind::Regular => {
                let file = self.replacing(parent, name, |dir| open_new(dir, &c_name))?;
                write_data(&file, entry, tar)?;
                file_attributes(&file, entry)
            }
            EntryKind::HardLink => self.hard_link(parent, name, &c_name, entry),
            EntryKind::Symlink => {
                let target = CString::new(entry.link.as_slice()).map_err(|_| Error::invalid("a symlink's target contains a NUL byte"))?;
                self.replacing(parent, name, |dir| symlinkat(&target, dir, &c_name))?;
                attributes(parent.fd.as_fd(), &c_name, entry)
            }
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                let kind = match entry.kind {
                    EntryKind::CharDevice => FileType::CharacterDevice,
                    EntryKind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = makedev(entry.device.0, entry.device.1);
                self.replacing(parent, name, |dir| mknodat(dir, &c_name, kind, Mode::from_raw_mode(0o600), device))?;
                attributes(parent.fd.as_fd(), &c_name, entry)
            }
        }
    }

    /// `make` must refuse an existing name; then what is there is removed and it is tried again.
    fn replacing<T>(&mut self, parent: &Rc<Dir>, name: &[u8], make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>) -> Result<T> {
        match make(parent.fd.as_fd()) {
            Err(Errno::EXIST) => {
                self.remove(parent, name)?;
                make(parent.fd.as_fd()).map_err(call_failed("create"))
            }
            other => other.map_err(call_failed("create")),
        }
    }

    fn remove(&mut self, parent: &Rc<Dir>, name: &[u8]) -> Result<()> {
        // Directories and symlinks may be part of paths that are remembered.
        self.dirs.forget();
        remove_tree_at(parent.fd.as_fd(), &c_name(name)?).map_err(call_failed("remove"))
    }

    fn directory(&mut self, parent: &Rc<Dir>, name: &[u8], c_name: &CStr, entry: &Entry) -> Result<()> {
        match mkdirat(&parent.fd, c_name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => self.directory_over(parent, name, c_name)?,
            Err(err) => return Err(call_failed("mkdir")(err)),
        }
        attributes(parent.fd.as_fd(), c_name, entry)?;
        self.dirs.times.insert(join(&parent.path, name), timespec(entry.mtime));
        Ok(())
    }

    /// A directory where something is already: another one stays, a whiteout makes it opaque, anything else goes.
    fn directory_over(&mut self, parent: &Rc<Dir>, name: &[u8], c_name: &CStr) -> Result<()> {
        let found = statat(&parent.fd, c_name, AtFlags::SYMLINK_NOFOLLOW).map_err(call_failed("stat"))?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Ok(());
        }
        self.remove(parent, name)?;
        mkdirat(&parent.fd, c_name, Mode::from_raw_mode(0o700)).map_err(call_failed("mkdir"))?;
        if is_whiteout(&found) && self.dirs.whiteouts == Whiteouts::Overlay {
            set_opaque(parent.fd.as_fd(), c_name)?;
        }
        Ok(())
    }

    fn hard_link(&mut self, parent: &Rc<Dir>, name: &[u8], c_name: &CStr, entry: &Entry) -> Result<()> {
        let target = clean(&entry.link, self.limits)?;
        if target.is_empty() {
            return Err(Error::invalid("a hard link to the root"));
        }
        let target_parent = self.dirs.dir(parent_of(&target))?;
        let target_name = target.rsplit(|byte| *byte == b'/').next().unwrap_or(&target);
        if target_parent.path == parent.path && target_name == name {
            return Ok(());
        }
        let c_target = self::c_name(target_name)?;
        let found = match statat(&target_parent.fd, &c_target, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => self.copy_up(&target_parent, target_name)?,
            Err(err) => return Err(call_failed("stat")(err)),
        };
        if is_whiteout(&found) || FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(Error::invalid(format!("hard link to {:?}, which is no file", String::from_utf8_lossy(&entry.link))));
        }
        self.replacing(parent, name, |dir| linkat(&target_parent.fd, &c_target, dir, c_name, AtFlags::empty()))
    }

    /// Brings a lower layer's file into this one, so that it can have another name.
    fn copy_up(&mut self, parent: &Rc<Dir>, name: &[u8]) -> Result<Stat> {
        let missing = || Error::invalid(format!("hard link to {:?}, which does not exist", String::from_utf8_lossy(name)));
        let Lower::Other { lower, .. } = self.dirs.lower(parent, name)? else { return Err(missing()) };
        let dir = self.dirs.open_lower(lower, &parent.path)?;
        let c_name = c_name(name)?;
        crate::snapshot::copy_entry(dir.as_fd(), &c_name, parent.fd.as_fd(), &c_name).map_err(call_failed("copy up"))?;
        statat(&parent.fd, &c_name, AtFlags::SYMLINK_NOFOLLOW).map_err(call_failed("stat"))
    }

    fn whiteout(&mut self, parent: &Rc<Dir>, hidden: &[u8]) -> Result<()> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::invalid("a whiteout of no name"));
        }
        match self.dirs.whiteouts {
            Whiteouts::Overlay => self.overlay_whiteout(parent, hidden),
            Whiteouts::Remove => {
                let path = join(&parent.path, hidden);
                self.dirs.forget();
                if self.made_at_or_below(&path) { self.clear_lower_content(&path) } else { self.remove(parent, hidden) }
            }
        }
    }

    /// A whiteout hides what lies below, never what this layer itself has made, whichever came first.
    fn overlay_whiteout(&mut self, parent: &Rc<Dir>, hidden: &[u8]) -> Result<()> {
        let c_hidden = c_name(hidden)?;
        match statat(&parent.fd, &c_hidden, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                self.dirs.forget();
                set_opaque(parent.fd.as_fd(), &c_hidden)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => match self.dirs.lower(parent, hidden)? {
                Lower::Absent => Ok(()),
                _ => mknodat(&parent.fd, &c_hidden, FileType::CharacterDevice, Mode::empty(), 0).map_err(call_failed("make whiteout")),
            },
            Err(err) => Err(call_failed("stat")(err)),
        }
    }

    fn opaque(&mut self, path: &[u8]) -> Result<()> {
        let dir = self.dirs.dir(path)?;
        match self.dirs.whiteouts {
            Whiteouts::Overlay => {
                self.dirs.forget();
                set_opaque(dir.fd.as_fd(), c".")
            }
            Whiteouts::Remove => {
                self.dirs.forget();
                self.clear_lower_content(&dir.path)
            }
        }
    }

    /// In a merged directory, removes what came from the parent and keeps what this layer has made.
    fn clear_lower_content(&self, path: &[u8]) -> Result<()> {
        let Some(dir) = self.dirs.reopen(path)? else { return Ok(()) };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir).map_err(call_failed("read directory"))? {
            let entry = entry.map_err(call_failed("read directory"))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        for name in names {
            let inner = join(path, name.to_bytes());
            if !self.made_at_or_below(&inner) {
                remove_tree_at(dir.as_fd(), &name).map_err(call_failed("remove"))?;
            } else if statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            {
                self.clear_lower_content(&inner)?;
            }
        }
        Ok(())
    }

    fn made_at_or_below(&self, path: &[u8]) -> bool {
        let inside = [path, b"/"].concat();
        self.made.contains(path) || self.made.range(inside.clone()..).next().is_some_and(|made| made.starts_with(&inside))
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(Error::invalid("the root is not a directory"));
        }
        attributes(self.dirs.root().fd.as_fd(), c".", entry)?;
        self.dirs.times.insert(Vec::new(), timespec(entry.mtime));
        Ok(())
    }

    /// Directories get their times last: everything made in them has changed them.
    fn finish(&self) -> Result<()> {
        for (path, time) in &self.dirs.times {
            if let Some(dir) = self.dirs.reopen(path)? {
                futimens(&dir, &times(*time)).map_err(call_failed("set times"))?;
            }
        }
        Ok(())
    }
}

/// The path's components joined by single slashes: no leading `/`, no `.`, and `..` only where it stays inside.
pub(crate) fn clean(path: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    if path.len() > limits.path {
        return Err(Error::invalid(format!("a path of {} bytes", path.len())));
    }
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop().ok_or_else(|| Error::invalid("the path leads out of the layer"))?;
            }
            name if name.len() > NAME_MAX => return Err(Error::invalid(format!("a name of {} bytes", name.len()))),
            name => components.push(name),
        }
    }
    if components.len() > limits.depth {
        return Err(Error::invalid(format!("{} levels deep", components.len())));
    }
    Ok(components.join(&b'/'))
}

pub(crate) fn open_new(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::from_raw_mode(0o600))
}

pub(crate) fn write_data<R: BufRead>(file: &OwnedFd, entry: &Entry, tar: &mut TarReader<R>) -> Result<()> {
    let Some(segments) = &entry.sparse else { return write_segment(file, 0, entry.size, tar) };
    for segment in segments {
        write_segment(file, segment.offset, segment.length, tar)?;
    }
    rustix::fs::ftruncate(file, entry.size).map_err(call_failed("truncate"))
}

fn write_segment<R: BufRead>(file: &OwnedFd, mut offset: u64, mut left: u64, tar: &mut TarReader<R>) -> Result<()> {
    while left > 0 {
        let chunk = tar.fill()?;
        let length = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let written = match rustix::io::pwrite(file, &chunk[..length], offset) {
            Ok(0) => return Err(call_failed("write")(Errno::IO)),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(err) => return Err(call_failed("write")(err)),
        };
        tar.consume(written);
        offset += written as u64;
        left -= written as u64;
    }
    Ok(())
}

/// Owner first (chown clears setuid and capabilities), then xattrs and mode, times last.
pub(crate) fn file_attributes(file: &OwnedFd, entry: &Entry) -> Result<()> {
    fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))).map_err(call_failed("chown"))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| xattr::is_allowed(name)) {
        tolerate(rustix::fs::fsetxattr(file, c_name(name)?, value, rustix::fs::XattrFlags::empty()))?;
    }
    fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(call_failed("chmod"))?;
    futimens(file, &times(timespec(entry.mtime))).map_err(call_failed("set times"))
}

/// The same for what cannot or need not be opened.
pub(crate) fn attributes(dir: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(call_failed("chown"))?;
    if entry.xattrs.iter().any(|(name, _)| xattr::is_allowed(name)) {
        let object = ProcPath::open(dir, name).map_err(call_failed("open"))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| xattr::is_allowed(name)) {
            tolerate(object.set(&c_name(name)?, value))?;
        }
    }
    if entry.kind != EntryKind::Symlink {
        chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).map_err(call_failed("chmod"))?;
    }
    utimensat(dir, name, &times(timespec(entry.mtime)), AtFlags::SYMLINK_NOFOLLOW).map_err(call_failed("set times"))
}

/// An attribute that this file system or this kind of file cannot have is left out, as Docker and containerd do.
fn tolerate(result: rustix::io::Result<()>) -> Result<()> {
    match result {
        Err(Errno::NOTSUP | Errno::PERM) => Ok(()),
        other => other.map_err(call_failed("set xattr")),
    }
}

pub(crate) fn timespec(mtime: Mtime) -> Timespec {
    Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) }
}

/// Sets the modification time of what is open.
pub(crate) fn set_times(object: &OwnedFd, modified: Timespec) -> rustix::io::Result<()> {
    futimens(object, &times(modified))
}

fn times(modified: Timespec) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: modified }
}
