//! What lies below a layer: the lower directories of one place, merged as overlayfs merges them.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rcontainerd_types::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, Stat, statat};
use rustix::io::Errno;

use super::write::{names, open_dir};
use crate::unpack::dirs::{is_opaque, is_whiteout};

/// The directories of all layers that make up one merged directory, nearest first; none: the place does not exist below.
#[derive(Default)]
pub struct Lower(Vec<OwnedFd>);

/// What a name is below; `dir` has something in it only for directories.
pub struct Found {
    pub stat: Stat,
    pub dir: Lower,
    /// The directory in which the object itself lies.
    pub holder: usize,
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |err| Error::io(what, err.into())
}

impl Lower {
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let open = |path: &PathBuf| {
            let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Error::internal("a path of ours contains a NUL"))?;
            open_dir(CWD, &name).map_err(|err| Error::io(format!("open layer {}", path.display()), err.into()))
        };
        paths.iter().map(open).collect::<Result<_>>().map(Self)
    }

    pub fn holder(&self, index: usize) -> &OwnedFd {
        &self.0[index]
    }

    pub fn child(&self, name: &CStr) -> Result<Option<Found>> {
        let mut found: Option<Found> = None;
        for (holder, layer) in self.0.iter().enumerate() {
            let stat = match statat(layer, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(err) => return Err(failed("stat in a lower layer")(err)),
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(match found {
                    None if !is_whiteout(&stat) => Some(Found { stat, dir: Self::default(), holder }),
                    other => other,
                });
            }
            let dir = match open_dir(layer, name) {
                Ok(dir) => dir,
                // A container that works in it has taken it away since.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(err) => return Err(failed("open a directory")(err)),
            };
            let opaque = is_opaque(dir.as_fd())?;
            found.get_or_insert_with(|| Found { stat, dir: Self::default(), holder }).dir.0.push(dir);
            if opaque {
                break;
            }
        }
        Ok(found)
    }

    /// Merged names that are not whited out, sorted.
    pub fn names(&self) -> Result<Vec<CString>> {
        let mut all = BTreeSet::new();
        for layer in &self.0 {
            all.extend(names(layer).map_err(failed("read a lower directory"))?);
        }
        let mut visible = Vec::new();
        for name in all {
            if self.child(&name)?.is_some() {
                visible.push(name);
            }
        }
        Ok(visible)
    }
}
