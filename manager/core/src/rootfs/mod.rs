//! Looking into a container's root filesystem without mounting it: the layers are merged by hand, one component at a time, by
//! descriptors that never follow a link, so that nothing outside the layers can be reached.

pub mod copy;
pub mod diagnose;
pub mod users;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};
use std::sync::Arc;

use rcontainerd_store::snapshot::LayerDirs;
use rcontainerd_types::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;

/// The layers, uppermost first.
pub struct Rootfs {
    root: Directory,
}

/// The directories of all layers that make up one merged directory, uppermost first.
#[derive(Clone)]
pub struct Directory(Vec<Arc<OwnedFd>>);

/// What a name stands for.
pub enum Node {
    Directory(Directory),
    Link(OsString),
    /// Anything else, opened `O_PATH`.
    Other(OwnedFd, Stat),
}

impl Rootfs {
    /// # Errors
    /// When a layer's directory cannot be opened.
    pub fn open(dirs: &LayerDirs) -> Result<Self> {
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
                .map(Arc::new)
                .map_err(|err| Error::io(format!("open layer {}", path.display()), err.into()))
        };
        let layers = std::iter::once(dirs.upper.as_path()).chain(dirs.lowers.iter().map(std::path::PathBuf::as_path));
        Ok(Self { root: Directory(layers.map(open).collect::<Result<_>>()?) })
    }

    /// What `path` leads to within the root; links are followed there too.
    ///
    /// # Errors
    /// I/O errors; a path that leads nowhere is `None`.
    pub fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        self.walk(path).map_err(|err| Error::io(format!("look up {} in the image", path.display()), err.into()))
    }

    fn walk(&self, path: &Path) -> rustix::io::Result<Option<Node>> {
        let mut todo: Vec<OsString> = components(path.as_os_str());
        let mut stack = vec![self.root.clone()];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let Some(here) = stack.last() else { return Ok(None) };
            match here.child(&name)? {
                None => return Ok(None),
                Some(Node::Directory(directory)) => stack.push(directory),
                Some(Node::Link(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    if target.as_bytes().starts_with(b"/") {
                        stack.truncate(1);
                    }
                    todo.extend(components(&target));
                }
                Some(other) if todo.is_empty() => return Ok(Some(other)),
                Some(_) => return Err(Errno::NOTDIR),
            }
        }
        Ok(stack.pop().map(Node::Directory))
    }

    /// The content of the regular file at `path`, if there is one.
    ///
    /// # Errors
    /// I/O errors; `InvalidArgument` for a file above `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(Node::Other(fd, stat)) = self.lookup(Path::new(path))? else { return Ok(None) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut content = Vec::new();
        let read = reopen(&fd).and_then(|file| file.take(limit + 1).read_to_end(&mut content));
        read.map_err(|err| Error::io(format!("read {path} of the image"), err))?;
        if content.len() as u64 > limit {
            return Err(Error::invalid(format!("{path} in the image is larger than {limit} bytes")));
        }
        Ok(Some(content))
    }
}

/// Opens for reading what was found by `O_PATH`; only called for regular files.
pub(crate) fn reopen(fd: &OwnedFd) -> std::io::Result<File> {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

impl Directory {
    /// The merged view of one name.
    pub(crate) fn child(&self, name: &OsStr) -> rustix::io::Result<Option<Node>> {
        let mut merged = Vec::new();
        for layer in &self.0 {
            let fd = match rustix::fs::openat(layer.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(err) => return Err(err),
            };
            let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let opaque = is_opaque(layer, name);
                    merged.push(Arc::new(fd));
                    if opaque {
                        break;
                    }
                }
                _ if !merged.is_empty() => break,
                FileType::CharacterDevice if stat.st_rdev == 0 => return Ok(None),
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
                    return Ok(Some(Node::Link(OsString::from_vec(target.into_bytes()))));
                }
                _ => return Ok(Some(Node::Other(fd, stat))),
            }
        }
        Ok((!merged.is_empty()).then_some(Node::Directory(Self(merged))))
    }

    /// The merged names, sorted.
    pub(crate) fn names(&self) -> std::io::Result<Vec<OsString>> {
        let mut names = std::collections::BTreeSet::new();
        for layer in &self.0 {
            let readable = rustix::fs::openat(layer.as_fd(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            for entry in rustix::fs::Dir::new(readable)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    names.insert(OsString::from_vec(name.to_vec()));
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The uppermost layer's directory: it has the merged directory's owner, mode and times.
    pub(crate) fn top(&self) -> &OwnedFd {
        &self.0[0]
    }
}

/// Whether the layers below are hidden (`trusted.overlay.opaque=y`).
fn is_opaque(parent: &OwnedFd, name: &OsStr) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(readable) = rustix::fs::openat(parent, name, flags, Mode::empty()) else { return false };
    let mut value = [0u8; 1];
    matches!(rustix::fs::fgetxattr(&readable, "trusted.overlay.opaque", &mut value), Ok(1)) && value == *b"y"
}

/// The names to walk, last first; `.` and the root are left out.
fn components(path: &OsStr) -> Vec<OsString> {
    let parts = Path::new(path).components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    let mut list: Vec<OsString> = parts.collect();
    list.reverse();
    list
}

#[cfg(test)]
mod tests;
