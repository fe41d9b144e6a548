//! Directories of the layer being unpacked: every path is walked one component at a time, by descriptor, over the upper directory and
//! the lower layers together, as the mounted overlay would show them.
//!
//! A component that is a symlink is followed by hand, within the root: an absolute target starts at the root again, `..` stops there.
//! A parent that the tar only implies is taken from the nearest lower layer with its owner, mode, times and xattrs, else the layer's
//! 0755 would mask it.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rcontainerd_types::{Error, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Uid, chmodat, chownat, mkdirat, openat, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;

use super::xattr::{self, ProcPath};
use crate::snapshot::{LayerDirs, Whiteouts};

/// Symlinks that one path may lead through (the kernel's own limit).
const LINKS_MAX: u32 = 40;
/// Open directories that are remembered.
const CACHE_MAX: usize = 128;
pub const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";

/// An open directory of the upper, with the lower layers that show through it.
pub struct Dir {
    pub fd: OwnedFd,
    /// From the root, `a/b`, no symlinks in it; empty for the root.
    pub path: Vec<u8>,
    /// Indices of lowers in which this path is a directory, nearest first.
    lowers: Vec<usize>,
}

/// What a name is in the lower layers.
pub enum Lower {
    Absent,
    Directory { lowers: Vec<usize> },
    Other { lower: usize, stat: Box<Stat> },
}

pub struct Dirs {
    root: Rc<Dir>,
    lower_roots: Vec<OwnedFd>,
    pub whiteouts: Whiteouts,
    cache: HashMap<Vec<u8>, Rc<Dir>>,
    /// Times to be set when everything is in place, by path.
    pub times: HashMap<Vec<u8>, Timespec>,
}

pub fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Error::invalid("a name contains a NUL byte"))
}

/// A failed system call; what only a strange archive can cause is the archive's fault.
pub fn call_failed(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |err| match err {
        Errno::NAMETOOLONG | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::INVAL | Errno::MLINK => {
            Error::invalid(format!("{what}: {err}"))
        }
        _ => Error::io(what, err.into()),
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

impl Dirs {
    pub fn open(dirs: &LayerDirs) -> Result<Self> {
        let open = |path: &std::path::Path| openat(CWD, path, DIRECTORY, Mode::empty()).map_err(call_failed("open layer directory"));
        let lower_roots = dirs.lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
        let lowers = (0..lower_roots.len()).collect();
        let root = Rc::new(Dir { fd: open(&dirs.upper)?, path: Vec::new(), lowers });
        Ok(Self { root, lower_roots, whiteouts: dirs.whiteouts, cache: HashMap::new(), times: HashMap::new() })
    }

    pub fn root(&self) -> Rc<Dir> {
        self.root.clone()
    }

    /// Forgets open directories: a name that was one may be something else now.
    pub fn forget(&mut self) {
        self.cache.clear();
    }

    /// The directory `path` (clean components joined by `/`), made where it is missing.
    pub fn dir(&mut self, path: &[u8]) -> Result<Rc<Dir>> {
        if path.is_empty() {
            return Ok(self.root());
        }
        if let Some(known) = self.cache.get(path) {
            return Ok(known.clone());
        }
        let (mut current, mut at) = self.nearest_known(path);
        let mut links = 0;
        while at < path.len() {
            let end = path[at..].iter().position(|byte| *byte == b'/').map_or(path.len(), |slash| at + slash);
            current = self.step(&current, &path[at..end], &mut links)?;
            if self.cache.len() >= CACHE_MAX {
                self.cache.clear();
            }
            self.cache.insert(path[..end].to_vec(), current.clone());
            at = end + 1;
        }
        Ok(current)
    }

    fn nearest_known(&self, path: &[u8]) -> (Rc<Dir>, usize) {
        let slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
        for (slash, _) in slashes {
            if let Some(known) = self.cache.get(&path[..slash]) {
                return (known.clone(), slash + 1);
            }
        }
        (self.root(), 0)
    }

    /// One component down.
    fn step(&mut self, parent: &Rc<Dir>, name: &[u8], links: &mut u32) -> Result<Rc<Dir>> {
        let c_name = c_name(name)?;
        match statat(&parent.fd, &c_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => self.make_over_whiteout(parent, name),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.enter(parent, name, Some(&stat)),
                FileType::Symlink => {
                    let target = readlinkat(&parent.fd, &c_name, Vec::new()).map_err(call_failed("readlink"))?;
                    self.follow(parent, target.as_bytes(), links)
                }
                _ => Err(not_a_directory(parent, name)),
            },
            Err(Errno::NOENT) => self.step_lower(parent, name, links),
            Err(err) => Err(call_failed("stat")(err)),
        }
    }

    /// The name is not in the upper: what the lowers have decides.
    fn step_lower(&mut self, parent: &Rc<Dir>, name: &[u8], links: &mut u32) -> Result<Rc<Dir>> {
        match self.lower(parent, name)? {
            Lower::Absent => {
                mkdirat(&parent.fd, &c_name(name)?, Mode::from_raw_mode(0o755)).map_err(call_failed("mkdir"))?;
                chmodat(&parent.fd, &c_name(name)?, Mode::from_raw_mode(0o755), AtFlags::empty()).map_err(call_failed("chmod"))?;
                self.enter(parent, name, None)
            }
            Lower::Directory { lowers } => {
                self.copy_up_dir(parent, name, lowers[0])?;
                self.enter(parent, name, None)
            }
            Lower::Other { lower, stat } if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                let dir = self.open_lower(lower, &parent.path)?;
                let target = readlinkat(&dir, &c_name(name)?, Vec::new()).map_err(call_failed("readlink"))?;
                self.follow(parent, target.as_bytes(), links)
            }
            Lower::Other { .. } => Err(not_a_directory(parent, name)),
        }
    }

    fn follow(&mut self, parent: &Rc<Dir>, target: &[u8], links: &mut u32) -> Result<Rc<Dir>> {
        *links += 1;
        if *links > LINKS_MAX {
            return Err(Error::invalid("too many levels of symlinks"));
        }
        let mut current = if target.starts_with(b"/") { self.root() } else { parent.clone() };
        for component in target.split(|byte| *byte == b'/') {
            current = match component {
                b"" | b"." => current,
                b".." => self.dir(parent_of(&current.path.clone()))?,
                name => self.step(&current, name, links)?,
            };
        }
        Ok(current)
    }

    /// Opens a directory of the upper; `found` is its stat when the layer has not only just made it.
    fn enter(&mut self, parent: &Rc<Dir>, name: &[u8], found: Option<&Stat>) -> Result<Rc<Dir>> {
        let fd = openat(&parent.fd, &c_name(name)?, DIRECTORY, Mode::empty()).map_err(call_failed("open directory"))?;
        let path = join(&parent.path, name);
        let lowers = match self.lower(parent, name)? {
            Lower::Directory { lowers } if !is_opaque(fd.as_fd())? => lowers,
            _ => Vec::new(),
        };
        if let Some(stat) = found {
            self.times.entry(path.clone()).or_insert_with(|| modified(stat));
        }
        Ok(Rc::new(Dir { fd, path, lowers }))
    }

    /// A directory where this layer has a whiteout: what lies below stays hidden.
    fn make_over_whiteout(&mut self, parent: &Rc<Dir>, name: &[u8]) -> Result<Rc<Dir>> {
        let c_name = c_name(name)?;
        rustix::fs::unlinkat(&parent.fd, &c_name, AtFlags::empty()).map_err(call_failed("remove whiteout"))?;
        mkdirat(&parent.fd, &c_name, Mode::from_raw_mode(0o755)).map_err(call_failed("mkdir"))?;
        chmodat(&parent.fd, &c_name, Mode::from_raw_mode(0o755), AtFlags::empty()).map_err(call_failed("chmod"))?;
        set_opaque(parent.fd.as_fd(), &c_name)?;
        self.enter(parent, name, None)
    }

    /// What `name` is in the lowers that show through `parent`.
    pub fn lower(&self, parent: &Dir, name: &[u8]) -> Result<Lower> {
        let name = c_name(name)?;
        let mut directories = Vec::new();
        for lower in &parent.lowers {
            let dir = self.open_lower(*lower, &parent.path)?;
            let stat = match statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(err) => return Err(call_failed("stat in a lower layer")(err)),
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                if directories.is_empty() && !is_whiteout(&stat) {
                    return Ok(Lower::Other { lower: *lower, stat: Box::new(stat) });
                }
                break;
            }
            directories.push(*lower);
            let inside = openat(&dir, &name, DIRECTORY, Mode::empty()).map_err(call_failed("open lower directory"))?;
            if is_opaque(inside.as_fd())? {
                break;
            }
        }
        Ok(if directories.is_empty() { Lower::Absent } else { Lower::Directory { lowers: directories } })
    }

    /// Opens `path`, known to be made of real directories there, in a lower layer.
    pub fn open_lower(&self, lower: usize, path: &[u8]) -> Result<OwnedFd> {
        let path = if path.is_empty() { c".".to_owned() } else { c_name(path)? };
        beneath(self.lower_roots[lower].as_fd(), &path).map_err(call_failed("open lower directory"))
    }

    /// Opens `path`, made of real directories, in the upper; `None` when it is no longer that.
    pub fn reopen(&self, path: &[u8]) -> Result<Option<OwnedFd>> {
        let path = if path.is_empty() { c".".to_owned() } else { c_name(path)? };
        match beneath(self.root.fd.as_fd(), &path) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(err) => Err(call_failed("open directory")(err)),
        }
    }

    /// Makes in the upper the directory that a lower has, attributes included.
    pub fn copy_up_dir(&mut self, parent: &Dir, name: &[u8], lower: usize) -> Result<()> {
        let c_name = c_name(name)?;
        let dir = self.open_lower(lower, &parent.path)?;
        let stat = statat(&dir, &c_name, AtFlags::SYMLINK_NOFOLLOW).map_err(call_failed("stat in a lower layer"))?;
        mkdirat(&parent.fd, &c_name, Mode::from_raw_mode(0o700)).map_err(call_failed("mkdir"))?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(&parent.fd, &c_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(call_failed("chown"))?;
        xattr::copy_visible(dir.as_fd(), &c_name, parent.fd.as_fd(), &c_name).map_err(call_failed("copy xattrs"))?;
        chmodat(&parent.fd, &c_name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty()).map_err(call_failed("chmod"))?;
        self.times.insert(join(&parent.path, name), modified(&stat));
        Ok(())
    }
}

fn beneath(root: BorrowedFd<'_>, path: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    openat2(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn not_a_directory(parent: &Dir, name: &[u8]) -> Error {
    Error::invalid(format!("{:?} is not a directory", String::from_utf8_lossy(&join(&parent.path, name))))
}

pub fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

pub fn parent_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |slash| &path[..slash])
}

pub fn modified(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

pub fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    let mut value = [0u8; 1];
    match rustix::fs::fgetxattr(dir, OPAQUE, &mut value) {
        Ok(1) => Ok(value[0] == b'y'),
        Ok(_) | Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(err) => Err(call_failed("read opaque xattr")(err)),
    }
}

pub fn set_opaque(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<()> {
    let object = ProcPath::open(parent, name).map_err(call_failed("open directory"))?;
    object.set(OPAQUE, b"y").map_err(call_failed("mark directory opaque"))
}
