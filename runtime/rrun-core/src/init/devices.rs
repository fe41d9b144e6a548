//! Device nodes of the container's /dev.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rrun_sys::fs::{self, FileType, OFlags, Stat};
use rrun_sys::mount::{self, MountAttr};

use super::rootpath::{Kind, ensure};
use crate::plan::DeviceStep;
use crate::{Context, Error, Result};

/// Makes the nodes; in a user namespace, where mknod is denied, the host's are bound there.
pub fn make_all(root: &OwnedFd, devices: &[DeviceStep], bind: bool) -> Result<()> {
    // Most are neighbours: their directory is looked up once.
    let mut last: Option<(&Path, OwnedFd)> = None;
    for device in devices {
        let (Some(parent), Some(name)) = (device.path.parent(), device.path.file_name()) else {
            return Err(Error::invalid("a device needs a path with a name"));
        };
        let dir = match last.take() {
            Some((path, dir)) if path == parent => dir,
            _ => ensure(root, parent, Kind::Directory).doing(|| format!("make {}", device.path.display()))?,
        };
        make(root, &dir, Path::new(name), device, bind).doing(|| format!("make {}", device.path.display()))?;
        last = Some((parent, dir));
    }
    Ok(())
}

fn make(root: &OwnedFd, dir: &OwnedFd, name: &Path, device: &DeviceStep, bind: bool) -> Result<()> {
    if bind && device.kind != 'p' {
        return bind_host_device(root, device, false);
    }
    let kind = match device.kind {
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    // The umask is cleared in the runtime, so the mode is exact and needs no chmod.
    match fs::mknodat(dir, name, kind, device.mode, device.major, device.minor) {
        Err(e) if e.is(libc::EEXIST) => return accept_existing(dir, name, device),
        Err(e) if e.is(libc::EPERM) => return bind_host_device(root, device, true),
        done => done?,
    }
    if device.uid != 0 || device.gid != 0 {
        fs::chownat(dir, name, device.uid, device.gid)?;
    }
    Ok(())
}

/// An image may bring device nodes, but only the very ones that are wanted: no symlink, no file in disguise.
fn accept_existing(dir: &OwnedFd, name: &Path, device: &DeviceStep) -> Result<()> {
    let stat = fs::lstatat(dir, name)?;
    if is_device(&stat, device) {
        return Ok(());
    }
    Err(Error::state("the image has something else of that name: remove it from the image, or mount a tmpfs on /dev"))
}

fn is_device(stat: &Stat, device: &DeviceStep) -> bool {
    let kind = match device.kind {
        'b' => FileType::BlockDevice,
        'p' => return FileType::from_raw_mode(stat.st_mode) == FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == rustix::fs::makedev(device.major, device.minor)
}

/// Whether this is the null device: character 1:3, whatever its name.
pub fn is_null_device(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3)
}

/// `shared`: the host's mount may be, since this process is perhaps in no mount namespace of its own.
fn bind_host_device(root: &OwnedFd, device: &DeviceStep, shared: bool) -> Result<()> {
    let host = fs::openat(fs::CWD, &device.path, OFlags::PATH, 0)?;
    if !is_device(&fs::fstat(&host)?, device) {
        return Err(Error::state(format!("the host's {} is not {} {}:{}", device.path.display(), device.kind, device.major, device.minor)));
    }
    let target = ensure(root, &device.path, Kind::File)?;
    let slave = (false, MountAttr { propagation: libc::MS_SLAVE, ..MountAttr::default() });
    let attributes = if shared { std::slice::from_ref(&slave) } else { &[] };
    Ok(mount::attach_with(mount::clone_tree(&host, Path::new(""), false)?, &target, attributes)?)
}

/// The symlinks of /dev; those that exist stay.
pub fn links(root: &OwnedFd, kcore: bool) -> Result<()> {
    const LINKS: [(&str, &str); 5] = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    let dev = ensure(root, Path::new("/dev"), Kind::Directory)?;
    for (name, target) in LINKS.into_iter().chain(kcore.then_some(("core", "/proc/kcore"))) {
        match fs::symlinkat(Path::new(target), dev.as_fd(), Path::new(name)) {
            Err(e) if e.is(libc::EEXIST) => {}
            done => done?,
        }
    }
    Ok(())
}
