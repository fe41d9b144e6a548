//! Mounts, each made detached, given its attributes, and attached to a descriptor of its place: no path is looked up twice.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rrun_sys::fs::{self, FileType, OFlags, ResolveFlags};
use rrun_sys::mount::{self, MountAttr, MountAttrFlags, UnmountFlags};
use rrun_sys::process;

use super::copy_up;
use super::rootpath::{Kind, ensure, find};
use crate::plan::{ATTR_NOSYMFOLLOW, ATTR_RDONLY, MountStep, SUPERBLOCK, What};
use crate::{Context, Error, Result};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Makes the rootfs a mount of its own and returns its top directory.
pub fn bind_rootfs(path: &Path, shared: bool) -> Result<OwnedFd> {
    let place = fs::openat(fs::CWD, path, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    if shared {
        private_parent(path)?;
    }
    let tree = mount::clone_tree(&place, Path::new(""), true)?;
    let slave = (true, MountAttr { propagation: libc::MS_SLAVE, ..MountAttr::default() });
    mount::attach_with(&tree, &place, if shared { std::slice::from_ref(&slave) } else { &[] })?;
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
        What::Move { source } => move_here(root, step, source),
        What::Remount { data } => remount(root, step, data),
    }
}

/// Takes a mount from its place, which must be the top of one.
fn move_here(root: &OwnedFd, step: &MountStep, source: &Path) -> Result<()> {
    let tree = fs::openat(fs::CWD, source, OFlags::PATH, 0).doing(|| format!("mount source {}", source.display()))?;
    let kind = kind_of(&tree)?;
    let place = place_for(root, step, kind, Some(&tree))?;
    mount::attach(&tree, &place).or_else(|e| match e.errno() {
        libc::EINVAL => misfit(e, kind, &place).doing(|| format!("{}: is it the top of a mount that is not shared?", source.display())),
        _ => Err(e.into()),
    })?;
    Ok(set_attrs(&tree, step)?)
}

/// mount(2) with MS_REMOUNT sets all options anew, of the mount and of its file system.
fn remount(root: &OwnedFd, step: &MountStep, data: &[(String, Option<String>)]) -> Result<()> {
    let place = fs::open_in_root(root, &step.destination, OFlags::PATH)?;
    let (options, flags): (Vec<_>, Vec<_>) = data.iter().partition(|(key, _)| SUPERBLOCK.iter().all(|(name, _)| name != key));
    let flags = flags.iter().filter_map(|(key, _)| SUPERBLOCK.iter().find(|(name, _)| name == key)).fold(0, |all, (_, bit)| all | bit);
    let options: Vec<String> =
        options.iter().map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"))).collect();
    let attrs = MountAttr { attr_set: step.attrs.set, ..MountAttr::default() };
    mount::mount("", &fs::proc_fd_path(place.as_fd()), "", libc::MS_REMOUNT | flags | attrs.flags(), &options.join(","))?;
    let rest = MountStep { attrs: crate::plan::Attrs::default(), ..step.clone() };
    Ok(set_attrs(&place, &rest)?)
}

/// Attaches a bind mount that the parent has made.
pub fn attach_prepared(root: &OwnedFd, step: &MountStep, tree: &OwnedFd) -> Result<()> {
    let kind = kind_of(tree)?;
    let place = place_for(root, step, kind, Some(tree))?;
    mount::attach(tree, &place).or_else(|e| misfit(e, kind, &place))
}

/// Attaches a file system that was made with the attributes of its own.
pub fn attach_new(root: &OwnedFd, step: &MountStep, tree: &OwnedFd) -> Result<()> {
    let place = place_for(root, step, Kind::Directory, None)?;
    let rest = MountStep { attrs: crate::plan::Attrs::default(), ..step.clone() };
    Ok(mount::attach_with(tree, &place, &attributes(&rest))?)
}

fn bind(root: &OwnedFd, step: &MountStep, source: &Path, recursive: bool) -> Result<()> {
    let source_fd = fs::openat(fs::CWD, source, OFlags::PATH, 0).doing(|| format!("mount source {}", source.display()))?;
    let kind = kind_of(&source_fd)?;
    let place = place_for(root, step, kind, Some(&source_fd))?;
    let tree = mount::clone_tree(&source_fd, Path::new(""), recursive)?;
    mount::attach_with(&tree, &place, &attributes(step)).or_else(|e| misfit(e, kind, &place))
}

/// To the kernel a file on a directory, or the other way round, is just an invalid argument.
fn misfit(e: rrun_sys::Error, source: Kind, place: &OwnedFd) -> Result<()> {
    match (source, kind_of(place)?) {
        (Kind::File, Kind::Directory) => Err(Error::state("not a directory: the source is a file, the destination a directory")),
        (Kind::Directory, Kind::File) => Err(Error::state("not a directory: the source is a directory, the destination a file")),
        _ => Err(e.into()),
    }
}

fn new_filesystem(root: &OwnedFd, step: &MountStep, what: (&str, &str, &[(String, Option<String>)]), copy_up: bool) -> Result<()> {
    let (fstype, source, data) = what;
    let (place, covers_existing) = match if fstype == "tmpfs" { find(root, &step.destination)? } else { None } {
        Some(place) => (allowed(place, &step.destination, None)?, true),
        None => (place_for(root, step, Kind::Directory, None)?, false),
    };
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
        copy_up::copy_tree(&place, &tree)?;
    }
    let rest = MountStep { attrs: crate::plan::Attrs { set: late, ..crate::plan::Attrs::default() }, ..step.clone() };
    mount::attach_with(&tree, &place, &attributes(&rest)).or_else(|e| misfit(e, Kind::Directory, &place))
}

pub(crate) fn set_attrs(tree: impl AsFd, step: &MountStep) -> rrun_sys::Result<()> {
    let set = |step: &MountStep| attributes(step).iter().try_for_each(|(recursive, attr)| mount::set_attr(tree.as_fd(), *recursive, attr));
    match set(step) {
        // In a mount namespace of a user namespace what the host has set is locked: it stays, unless its end was asked for. nosymfollow is
        // never locked.
        Err(e) if e.is(libc::EPERM) && step.attrs.implied != 0 => {
            let unlocked = step.attrs.implied & ATTR_NOSYMFOLLOW;
            set(&MountStep { attrs: crate::plan::Attrs { implied: unlocked, ..step.attrs }, ..step.clone() })
        }
        done => done,
    }
}

/// All that a mount is given, in order: its own attributes, those of what lies below, propagation.
fn attributes(step: &MountStep) -> Vec<mount::Attribute> {
    let flags =
        [(false, step.attrs), (true, step.recursive_attrs)].into_iter().filter(|(_, attrs)| attrs.set | attrs.clear | attrs.implied != 0);
    let flags = flags
        .map(|(below, attrs)| (below, MountAttr { attr_set: attrs.set, attr_clr: attrs.clear | attrs.implied, ..MountAttr::default() }));
    let propagation = step
        .propagation
        .iter()
        .map(|kind| (kind & libc::MS_REC != 0, MountAttr { propagation: kind & !libc::MS_REC, ..MountAttr::default() }));
    flags.chain(propagation).collect()
}

/// The place of a mount, made where it is missing. What the kernel trusts to be at its name (/proc, /sys) must not be reached
/// by a symlink.
fn place_for(root: &OwnedFd, step: &MountStep, kind: Kind, source: Option<&OwnedFd>) -> Result<OwnedFd> {
    let destination = &step.destination;
    let fstype = match &step.what {
        What::New { fstype, .. } => fstype.as_str(),
        _ => "",
    };
    if fstype == "proc" || fstype == "sysfs" {
        return plain_directory(root, destination);
    }
    allowed(ensure(root, destination, kind)?, destination, source)
}

/// Nothing of the image or a volume may cover /proc or parts of it.
fn allowed(place: OwnedFd, destination: &Path, source: Option<&OwnedFd>) -> Result<OwnedFd> {
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
            Err(Error::state(format!("{} must be mounted on ordinary directory: in the image it is something else", destination.display())))
        }
        done => Ok(done?),
    }
}

fn kind_of(source: impl AsFd) -> Result<Kind> {
    let directory = FileType::from_raw_mode(fs::fstat(source)?.st_mode) == FileType::Directory;
    Ok(if directory { Kind::Directory } else { Kind::File })
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

/// Without a mount namespace: the mounts stay the host's, only paths end here.
pub fn change_root(root: &OwnedFd) -> Result<()> {
    process::change_dir(root)?;
    Ok(process::chroot_here()?)
}

/// Without pivot_root(2) the host's mounts stay below the container's root. Its whole procfs and sysfs there would allow a
/// container to mount new ones without the masks of its own, so they go; what cannot be unmounted is covered.
pub fn hide_kernel_file_systems(root: &OwnedFd) -> Result<()> {
    let own = format!("/proc/self/fd/{}", root.as_raw_fd());
    let own = std::fs::read_link(&own).map_err(|e| Error::io("readlink", Path::new(&own), &e))?;
    let path = Path::new("/proc/self/mountinfo");
    let table = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
    let mut places: Vec<&Path> = table.lines().filter_map(kernel_file_system).filter(|place| !place.starts_with(&own)).collect();
    // /proc itself last: what is below it goes with it.
    places.sort_by_key(|place| std::cmp::Reverse(place.as_os_str().len()));
    for place in places {
        if mount::unmount(place, UnmountFlags::DETACH).is_err() {
            mount::mount("tmpfs", place, "tmpfs", 0, "size=0,nr_inodes=1")?;
        }
    }
    Ok(())
}

/// The mount point of a line of mountinfo, if procfs or sysfs is there.
fn kernel_file_system(line: &str) -> Option<&Path> {
    let (left, right) = line.split_once(" - ")?;
    let kind = right.split(' ').next()?;
    (kind == "proc" || kind == "sysfs").then(|| left.split(' ').nth(4).map(Path::new))?
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
