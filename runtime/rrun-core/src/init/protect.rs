//! Masked and read-only paths, after the root has changed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rrun_sys::fs::{self, FileType, OFlags};
use rrun_sys::mount::{self, MountAttr, MountAttrFlags};

use super::devices::is_null_device;
use super::rootpath::find;
use crate::plan::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY};
use crate::{Context, Error, Result};

/// Makes each path, where it exists, a read-only mount of itself.
pub fn read_only(root: &OwnedFd, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let Some(place) = find(root, path)? else { continue };
        let tree = mount::clone_tree(&place, Path::new(""), true).doing(|| path.display().to_string())?;
        mount::attach_read_only(&tree, &place).doing(|| path.display().to_string())?;
    }
    Ok(())
}

/// Covers each path, where it exists: a directory with an empty read-only tmpfs (one for all), a file with the null device.
pub fn mask(root: &OwnedFd, paths: &[PathBuf], label: Option<&str>) -> Result<()> {
    let mut null = None;
    let mut empty = None;
    for (n, path) in paths.iter().enumerate() {
        // Named twice is masked once.
        let Some(place) = find(root, path)?.filter(|_| !paths[..n].contains(path)) else { continue };
        let directory = FileType::from_raw_mode(fs::fstat(&place)?.st_mode) == FileType::Directory;
        let cover = if directory { &mut empty } else { &mut null };
        let tree = match cover {
            Some(cover) => mount::clone_tree(&*cover, Path::new(""), false).doing(|| path.display().to_string())?,
            None if directory => empty_directory(label)?,
            None => mount::clone_tree(null_device(root)?, Path::new(""), false).doing(|| path.display().to_string())?,
        };
        mount::attach(&tree, &place).doing(|| path.display().to_string())?;
        // The first is what the others are copies of: a mount that nobody attaches costs the kernel a wait when it goes.
        cover.get_or_insert(tree);
    }
    Ok(())
}

fn empty_directory(label: Option<&str>) -> Result<OwnedFd> {
    let context = mount::fsopen("tmpfs")?;
    mount::fsconfig_string(&context, "source", "tmpfs")?;
    mount::fsconfig_string(&context, "nr_inodes", "2")?;
    mount::fsconfig_string(&context, "nr_blocks", "1")?;
    if let Some(label) = label {
        mount::fsconfig_string(&context, "context", label)?;
    }
    mount::fsconfig_create(&context)?;
    let attrs = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;
    Ok(mount::fsmount(&context, MountAttrFlags::from_bits_retain(attrs as u32))?)
}

/// The container's /dev/null, proven to be the null device: an image could have put a file there, and a mask over a file that
/// can be written is no mask.
fn null_device(root: &OwnedFd) -> Result<OwnedFd> {
    let null = fs::open_in_root(root, Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW)?;
    if !is_null_device(&fs::fstat(&null)?) {
        return Err(Error::state("/dev/null of the container is not the null device (character 1:3)"));
    }
    Ok(null)
}

/// The root mount itself becomes read-only; mounts on it keep what they are.
pub fn read_only_root(root: &OwnedFd) -> Result<()> {
    Ok(mount::set_attr(root, false, &MountAttr { attr_set: ATTR_RDONLY, ..MountAttr::default() })?)
}
