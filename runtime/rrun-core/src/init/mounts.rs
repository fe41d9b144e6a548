//! Mounts, each made detached, given its attributes, and attached to a descriptor of its place: no path is looked up twice.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rrun_sys::fs::{self, FileType, OFlags, ResolveFlags};
use rrun_sys::mount::{self, MountAttr, MountAttrFlags, UnmountFlags};
use rrun_sys::process;

use super::rootpath::{Kind, ensure, find};
use crate::plan::{ATTR_RDONLY, MountStep, What};
use crate::{Context, Error, Result};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Makes the rootfs a mount of its own and returns its top directory.
pub fn bind_rootfs(path: &Path) -> Result<OwnedFd> {
    let place = fs::openat(fs::CWD, path, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    private_parent(path)?;
    let tree = mount::clone_tree(&place, Path::new(""), true)?;
    mount::set_attr(&tree, true, &MountAttr { propagation: libc::MS_SLAVE, ..MountAttr::default() })?;
    mount::attach(&tree, &place)?;
    Ok(fs::openat(&tree, Path::new("."), OFlags::PATH | OFlags::DIRECTORY, 0)?)
}

/// pivot_root(2) refuses a new root whose parent mount is shared: the mount that the rootfs lies on becomes private (here only).
fn private_parent(path: &Path) -> Result<()> {
    for place in path.ancestors() {
        match mount::change(place, super::propagation_flags(libc::MS_PRIVATE)) {
            Err(e) if e.is(libc::EINVAL) => {}
            done => return Ok(done?),
        }
    }
    Ok(())
}

/// Carries one mount out.
pub fn mount(root: &OwnedFd, step: &MountStep) -> Result<()> {
    match &step.what {
        What::Bind { source, recursive } => bind(root, step, source, *recursive),
        What::New { fstype, source, data, copy_up } => match new_filesystem(root, step, (fstype, source, data), *copy_up) {
            // sysfs shows the network namespace, and only its owner may mount it: a user namespace in a joined network
            // namespace is none. The host's is the next best thing, read-only or not as asked.
            Err(e) if fstype == "sysfs" && e.errno() == Some(libc::EPERM) => bind(root, step, Path::new("/sys"), true),
            done => done,
        },
        What::Reattribute => {
            let place = fs::open_in_root(root, &step.destination, OFlags::PATH)?;
            Ok(set_attrs(&place, step)?)
        }
    }
}

fn bind(root: &OwnedFd, step: &MountStep, source: &Path, recursive: bool) -> Result<()> {
    let source_fd = fs::openat(fs::CWD, source, OFlags::PATH, 0).doing(|| format!("mount source {}", source.display()))?;
    let kind = if is_directory(&source_fd)? { Kind::Directory } else { Kind::File };
    let place = place_for(root, step, kind, Some(&source_fd))?;
    let tree = mount::clone_tree(&source_fd, Path::new(""), recursive)?;
    if step.idmap.is_some() {
        return Err(Error::state("id-mapped mounts are not supported by this version of rrun: remove uidMappings and gidMappings"));
    }
    set_attrs(&tree, step)?;
    Ok(mount::attach(&tree, &place)?)
}

fn new_filesystem(root: &OwnedFd, step: &MountStep, what: (&str, &str, &[(String, Option<String>)]), copy_up: bool) -> Result<()> {
    let (fstype, source, data) = what;
    let covers_existing = fstype == "tmpfs" && find(root, &step.destination)?.is_some();
    let place = place_for(root, step, Kind::Directory, None)?;
    let context = mount::fsopen(fstype)?;
    mount::fsconfig_string(&context, "source", source)?;
    for (key, value) in data {
        match value {
            Some(value) => mount::fsconfig_string(&context, key, value)?,
            None => mount::fsconfig_flag(&context, key)?,
        }
    }
    // A tmpfs takes the mode of a directory that it covers, as the field does, unless a mode was asked for. Where the directory
    // was only made for it, the file system's own default (1777) holds: any user of the container may write there.
    if covers_existing && !data.iter().any(|(key, _)| key == "mode") {
        let mode = fs::fstat(&place)?.st_mode & 0o7777;
        mount::fsconfig_string(&context, "mode", &format!("{mode:o}"))?;
    }
    mount::fsconfig_create(&context)?;
    let late = if copy_up { step.attrs.set & ATTR_RDONLY } else { 0 };
    let tree = mount::fsmount(&context, MountAttrFlags::from_bits_retain((step.attrs.set & !late) as u32))?;
    if copy_up {
        copy_tree(&place, &tree)?;
        mount::set_attr(&tree, false, &MountAttr { attr_set: late, ..MountAttr::default() })?;
    }
    let plain = MountStep { attrs: crate::plan::Attrs::default(), ..step.clone() };
    set_attrs(&tree, &plain)?;
    Ok(mount::attach(&tree, &place)?)
}

fn set_attrs(tree: impl AsFd, step: &MountStep) -> rrun_sys::Result<()> {
    for (recursive, attrs) in [(false, step.attrs), (true, step.recursive_attrs)] {
        if attrs.set | attrs.clear != 0 {
            mount::set_attr(tree.as_fd(), recursive, &MountAttr { attr_set: attrs.set, attr_clr: attrs.clear, ..MountAttr::default() })?;
        }
    }
    for kind in &step.propagation {
        let attr = MountAttr { propagation: kind & !libc::MS_REC, ..MountAttr::default() };
        mount::set_attr(tree.as_fd(), kind & libc::MS_REC != 0, &attr)?;
    }
    Ok(())
}

/// The place of a mount, made where it is missing. What the kernel trusts to be at its name (/proc, /sys) must not be reached
/// by a symlink, and nothing of the image or a volume may cover /proc or parts of it.
fn place_for(root: &OwnedFd, step: &MountStep, kind: Kind, source: Option<&OwnedFd>) -> Result<OwnedFd> {
    let destination = &step.destination;
    let fstype = match &step.what {
        What::New { fstype, .. } => fstype.as_str(),
        _ => "",
    };
    if fstype == "proc" || fstype == "sysfs" {
        return plain_directory(root, destination);
    }
    let place = ensure(root, destination, kind)?;
    if covers_proc(&place, destination)? {
        let from_proc = source.is_some_and(|s| fs::fstatfs(s).is_ok_and(|f| f.f_type == PROC_SUPER_MAGIC));
        if !from_proc && !ALLOWED_IN_PROC.iter().any(|p| destination == Path::new(p)) {
            return Err(Error::state(format!("{} lies in /proc, which must stay the kernel's: mount it elsewhere", destination.display())));
        }
    }
    Ok(place)
}

/// Files that fake an own value for programs that read them; lxcfs lives of it.
const ALLOWED_IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Judged by where the path has led, not by its text alone.
fn covers_proc(place: &OwnedFd, destination: &Path) -> Result<bool> {
    let named = destination.components().eq(Path::new("/proc").components());
    Ok(named || fs::fstatfs(place)?.f_type == PROC_SUPER_MAGIC)
}

fn plain_directory(root: &OwnedFd, destination: &Path) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    match fs::openat2(root, destination, OFlags::PATH | OFlags::DIRECTORY, 0, resolve) {
        Err(e) if e.is(libc::ENOENT) => ensure(root, destination, Kind::Directory),
        Err(e) if e.is(libc::ELOOP) || e.is(libc::ENOTDIR) => {
            Err(Error::state(format!("{} must be an ordinary directory in the image, not a symlink", destination.display())))
        }
        done => Ok(done?),
    }
}

fn is_directory(fd: impl AsFd) -> Result<bool> {
    Ok(FileType::from_raw_mode(fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// tmpcopyup: what the directory holds goes into the tmpfs before it covers it.
fn copy_tree(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let from = fs::openat(from, Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
    let entries = rustix::fs::Dir::read_from(&from).map_err(|e| rrun_sys::Error::new("readdir", "", e.raw_os_error()))?;
    for entry in entries {
        let entry = entry.map_err(|e| rrun_sys::Error::new("readdir", "", e.raw_os_error()))?;
        let name =
            Path::new(std::str::from_utf8(entry.file_name().to_bytes()).map_err(|_| Error::state("tmpcopyup: a file name is not UTF-8"))?);
        if name == Path::new(".") || name == Path::new("..") {
            continue;
        }
        copy_entry(&from, to, name).doing(|| format!("tmpcopyup {}", name.display()))?;
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &Path) -> Result<()> {
    let stat = fs::lstatat(from, name)?;
    let mode = stat.st_mode & 0o7777;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            fs::mkdirat(to, name, mode)?;
            let sub = |dir| fs::openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, 0);
            copy_tree(&sub(from)?, &sub(to)?)?;
        }
        FileType::RegularFile => {
            let source = fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW, 0)?;
            let target = fs::openat(to, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode)?;
            std::io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target)).map_err(|e| Error::io("copy", name, &e))?;
        }
        FileType::Symlink => {
            let target = fs::readlinkat(from, name)?;
            let target = target.to_str().map_err(|_| Error::state("a link's target is not UTF-8"))?;
            fs::symlinkat(Path::new(target), to, name)?;
        }
        kind => fs::mknodat(to, name, kind, mode, rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))?,
    }
    Ok(fs::chownat(to, name, stat.st_uid, stat.st_gid)?)
}

/// The container's root becomes the root; the old one is gone afterwards.
pub fn pivot(root: &OwnedFd) -> Result<()> {
    let old = fs::openat(fs::CWD, Path::new("/"), OFlags::PATH | OFlags::DIRECTORY, 0)?;
    process::change_dir(root)?;
    mount::pivot_root_here()?;
    // The old root lies over the new one now. Nothing that is unmounted here may be unmounted on the host.
    process::change_dir(&old)?;
    mount::change(Path::new("."), super::propagation_flags(libc::MS_SLAVE | libc::MS_REC))?;
    mount::unmount(Path::new("."), UnmountFlags::DETACH)?;
    let new = fs::openat(fs::CWD, Path::new("/"), OFlags::PATH | OFlags::DIRECTORY, 0)?;
    Ok(process::change_dir(&new)?)
}

/// For a host whose root is a ramfs, which pivot_root(2) cannot leave: the container's root moves over `/`.
pub fn move_root(root: &OwnedFd) -> Result<()> {
    process::change_dir(root)?;
    let host_root = fs::openat(fs::CWD, Path::new("/"), OFlags::PATH | OFlags::DIRECTORY, 0)?;
    mount::attach(root, &host_root)?;
    process::chroot_here()?;
    let new = fs::openat(fs::CWD, Path::new("/"), OFlags::PATH | OFlags::DIRECTORY, 0)?;
    Ok(process::change_dir(&new)?)
}
