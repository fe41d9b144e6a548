//! What an active snapshot changes of what it stands on, without a mount: `docker diff`, and what a new layer holds.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rcontainerd_types::{Error, ErrorKind, Result, id};
use rustix::fs::{AtFlags, CWD, FileType, Stat, statat};
use rustix::io::Errno;

use super::DEPTH_MAX;
use super::lookup::{Found, Lower};
use super::walk::join;
use super::write::{names, open_dir};
use crate::metadata::Labels;
use crate::snapshot::{Snapshotter, Whiteouts};
use crate::unpack::dirs::{is_opaque, is_whiteout};
use crate::unpack::xattr::{self, ProcPath};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    /// Without a leading slash.
    pub path: Vec<u8>,
}

/// The changes of the active snapshot `key`, parents before what is in them, names sorted. `places` (without leading slash) are those that
/// a runtime makes to mount on: added there, an empty file or a directory without more is no change of the container's.
///
/// # Errors
/// `NotFound`, `Conflict` for a snapshot that is not active, I/O errors.
pub fn changes(snapshots: &dyn Snapshotter, key: &str, places: &[&str]) -> Result<Vec<Change>> {
    let mut all = Vec::new();
    Walk::open(snapshots, key)?.run(false, places, &mut |change, _, _| {
        all.push(change.clone());
        Ok(())
    })?;
    Ok(all)
}

/// Bytes of the files that the active snapshot `key` has of its own, as Docker counts a container's size: each file once however many names
/// it has, directories for nothing, and of `places` as in [`changes`].
///
/// # Errors
/// As [`changes`].
pub fn changed_bytes(snapshots: &dyn Snapshotter, key: &str, places: &[&str]) -> Result<u64> {
    let (mut bytes, mut seen) = (0, BTreeSet::new());
    Walk::open(snapshots, key)?.run(true, places, &mut |change, dir, name| {
        if change.kind == ChangeKind::Deleted {
            return Ok(());
        }
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(err) => return Err(failed("stat")(err)),
        };
        let counts = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
        if counts && (stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino))) {
            bytes += u64::try_from(stat.st_size).unwrap_or(0);
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// Told of each change with the directory and the name that it has there (of what is deleted, there is none).
pub(super) type Visit<'a> = dyn FnMut(&Change, BorrowedFd<'_>, &CStr) -> Result<()> + 'a;

pub(super) struct Walk {
    upper: Upper,
    lower: Lower,
}

enum Upper {
    /// One layer, with overlayfs's whiteouts.
    Layer(OwnedFd),
    /// All that there is to see: what is not in it is deleted.
    Tree(Lower),
}

impl Walk {
    pub(super) fn open(snapshots: &dyn Snapshotter, key: &str) -> Result<Self> {
        let dirs = snapshots.layer_dirs(key)?;
        match dirs.whiteouts {
            Whiteouts::Overlay => Ok(Self { upper: Upper::Layer(open_layer(&dirs.upper)?), lower: Lower::open(&dirs.lowers)? }),
            Whiteouts::Remove => Self::between(&base_of(snapshots, key)?, &[dirs.upper]),
        }
    }

    /// From one stack of layers to another, nearest first; a layer on the very stack is compared by itself.
    pub(super) fn between(left: &[PathBuf], right: &[PathBuf]) -> Result<Self> {
        let upper = match right {
            [top, below @ ..] if below == left && !below.is_empty() => Upper::Layer(open_layer(top)?),
            _ => Upper::Tree(Lower::open(right)?),
        };
        Ok(Self { upper, lower: Lower::open(left)? })
    }

    /// `exact`: as a layer needs it, where also a directory's time and any attribute is a change; else as `docker diff` tells.
    pub(super) fn run(&self, exact: bool, places: &[&str], visit: &mut Visit<'_>) -> Result<()> {
        let mut comparison = Comparison { exact, places, visit };
        match &self.upper {
            Upper::Layer(upper) => comparison.layer(upper, &self.lower, b"", false, 0),
            Upper::Tree(tree) => comparison.tree(tree, &self.lower, b"", 0),
        }
    }
}

fn open_layer(dir: &Path) -> Result<OwnedFd> {
    let name = CString::new(dir.as_os_str().as_encoded_bytes()).map_err(|_| Error::internal("a path of ours contains a NUL"))?;
    open_dir(CWD, &name).map_err(|err| Error::io(format!("open layer {}", dir.display()), err.into()))
}

/// Where the parent of a snapshot that is a full copy lies.
fn base_of(snapshots: &dyn Snapshotter, key: &str) -> Result<Vec<PathBuf>> {
    let Some(parent) = snapshots.stat(key)?.parent else { return Ok(Vec::new()) };
    let view = format!("compare-{}", id::generate()?);
    let mounts = snapshots.view(&view, Some(&parent), Labels::new())?;
    snapshots.remove(&view)?;
    Ok(mounts.into_iter().map(|mount| PathBuf::from(mount.source)).collect())
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |err| Error::io(what, err.into())
}

struct Comparison<'a, 'b> {
    exact: bool,
    places: &'a [&'a str],
    visit: &'a mut Visit<'b>,
}

/// What a layer or a tree has by a name.
struct Entry<'a> {
    holder: &'a OwnedFd,
    name: &'a CStr,
    stat: &'a Stat,
}

impl Entry<'_> {
    fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}

impl Comparison<'_, '_> {
    /// A directory of a layer. `replaced`: nothing of below shows through.
    fn layer(&mut self, upper: &OwnedFd, lower: &Lower, path: &[u8], replaced: bool, depth: usize) -> Result<()> {
        check_depth(depth)?;
        let own: BTreeSet<CString> = names(upper).map_err(failed("read a directory"))?.into_iter().collect();
        let hidden = if replaced { lower.names()? } else { Vec::new() };
        let all: BTreeSet<&CString> = own.iter().chain(&hidden).collect();
        for name in all {
            let inner = join(path, name.to_bytes());
            if own.contains(name) {
                self.layer_entry(upper, lower, name, inner, depth)?;
            } else {
                self.tell(ChangeKind::Deleted, inner, upper, name)?;
            }
        }
        Ok(())
    }

    fn layer_entry(&mut self, upper: &OwnedFd, lower: &Lower, name: &CStr, path: Vec<u8>, depth: usize) -> Result<()> {
        let stat = match statat(upper, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // The container goes on working.
            Err(Errno::NOENT) => return Ok(()),
            Err(err) => return Err(failed("stat")(err)),
        };
        let below = lower.child(name)?;
        if is_whiteout(&stat) {
            return if below.is_some() { self.tell(ChangeKind::Deleted, path, upper, name) } else { Ok(()) };
        }
        let entry = Entry { holder: upper, name, stat: &stat };
        if !entry.is_directory() {
            // An upper layer's file was copied there to be changed: the same time and size prove nothing.
            return self.object(&entry, path, (lower, below.as_ref()), true);
        }
        let dir = match open_dir(upper, name) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(err) => return Err(failed("open a directory")(err)),
        };
        let replaced = is_opaque(dir.as_fd())?;
        self.subdirectory(
            &entry,
            &path,
            (lower, below),
            &|comparison, lower, path, depth| comparison.layer(&dir, lower, path, replaced, depth),
            depth,
        )
    }

    /// A directory of what is to be seen, beside what was.
    fn tree(&mut self, new: &Lower, old: &Lower, path: &[u8], depth: usize) -> Result<()> {
        check_depth(depth)?;
        let all: BTreeSet<CString> = new.names()?.into_iter().chain(old.names()?).collect();
        for name in &all {
            let inner = join(path, name.to_bytes());
            match (new.child(name)?, old.child(name)?) {
                (None, None) => {}
                (None, Some(gone)) => self.tell(ChangeKind::Deleted, inner, old.holder(gone.holder), name)?,
                (Some(found), before) => {
                    let entry = Entry { holder: new.holder(found.holder), name, stat: &found.stat };
                    if entry.is_directory() {
                        let below = |comparison: &mut Comparison<'_, '_>, old: &Lower, path: &[u8], depth| {
                            comparison.tree(&found.dir, old, path, depth)
                        };
                        self.subdirectory(&entry, &inner, (old, before), &below, depth)?;
                    } else {
                        self.object(&entry, inner, (old, before.as_ref()), false)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whatever is no directory. `touched`: it would not be here, had it not been changed.
    fn object(&mut self, entry: &Entry<'_>, path: Vec<u8>, (old, before): (&Lower, Option<&Found>), touched: bool) -> Result<()> {
        match before {
            None if entry.stat.st_size == 0 && self.is_place(&path) => Ok(()),
            None => self.tell(ChangeKind::Added, path, entry.holder, entry.name),
            Some(before) if (self.exact && touched) || self.is_changed(entry, old, before)? => {
                self.tell(ChangeKind::Modified, path, entry.holder, entry.name)
            }
            Some(_) => Ok(()),
        }
    }

    fn subdirectory(
        &mut self,
        entry: &Entry<'_>,
        path: &[u8],
        (old, before): (&Lower, Option<Found>),
        below: &Below<'_>,
        depth: usize,
    ) -> Result<()> {
        let nothing = Lower::default();
        let Some(before) = before else {
            if self.is_place(path) && !self.changes_below(below, &nothing, path, depth)? {
                return Ok(());
            }
            self.tell(ChangeKind::Added, path.to_vec(), entry.holder, entry.name)?;
            return below(self, &nothing, path, depth + 1);
        };
        if self.is_changed(entry, old, &before)? || self.changes_below(below, &before.dir, path, depth)? {
            self.tell(ChangeKind::Modified, path.to_vec(), entry.holder, entry.name)?;
        }
        below(self, &before.dir, path, depth + 1)
    }

    /// Whether anything in a directory is told of: then it is told of itself, before that.
    fn changes_below(&self, below: &Below<'_>, old: &Lower, path: &[u8], depth: usize) -> Result<bool> {
        let mut any = false;
        let mut visit = |_: &Change, _: BorrowedFd<'_>, _: &CStr| {
            any = true;
            Err(Error::new(ErrorKind::Cancelled, "one is enough"))
        };
        let mut probe = Comparison { exact: self.exact, places: self.places, visit: &mut visit };
        match below(&mut probe, old, path, depth + 1) {
            Err(err) if err.kind() != ErrorKind::Cancelled => Err(err),
            _ => Ok(any),
        }
    }

    fn is_place(&self, path: &[u8]) -> bool {
        self.places.iter().any(|place| place.as_bytes() == path)
    }

    fn is_changed(&self, entry: &Entry<'_>, old: &Lower, before: &Found) -> Result<bool> {
        let (stat, old_stat) = (entry.stat, &before.stat);
        let times = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec, stat.st_size);
        let identity = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
        if identity(old_stat) != identity(stat) || (!entry.is_directory() && times(old_stat) != times(stat)) {
            return Ok(true);
        }
        if !self.exact {
            return Ok(false);
        }
        let dated = (old_stat.st_mtime, old_stat.st_mtime_nsec) != (stat.st_mtime, stat.st_mtime_nsec);
        Ok(dated || attributes(entry.holder.as_fd(), entry.name)? != attributes(old.holder(before.holder).as_fd(), entry.name)?)
    }

    fn tell(&mut self, kind: ChangeKind, path: Vec<u8>, dir: &OwnedFd, name: &CStr) -> Result<()> {
        (self.visit)(&Change { kind, path }, dir.as_fd(), name)
    }
}

/// Compares what is in a directory with what was there before.
type Below<'a> = dyn Fn(&mut Comparison<'_, '_>, &Lower, &[u8], usize) -> Result<()> + 'a;

fn check_depth(depth: usize) -> Result<()> {
    if depth <= DEPTH_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorKind::ResourceExhausted, format!("the directory tree is deeper than {DEPTH_MAX} levels")))
}

fn attributes(dir: BorrowedFd<'_>, name: &CStr) -> Result<Vec<(CString, Option<Vec<u8>>)>> {
    let read = || {
        let object = ProcPath::open(dir, name)?;
        let mut found = Vec::new();
        for attribute in object.list()?.into_iter().filter(|attribute| xattr::is_allowed(attribute.as_bytes())) {
            let value = object.get(&attribute)?;
            found.push((attribute, value));
        }
        found.sort();
        Ok(found)
    };
    read().map_err(failed("read attributes"))
}
