//! The rootfs: the mounts that the snapshotter asked for, made on BUNDLE/rootfs and undone on delete.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use proto_containerd::types::Mount;
use rrun_sys::mount::{self, MountAttr, MountAttrFlags, UnmountFlags};
use rustix::fs::{Mode, OFlags};

/// Mounts all, the first at the bottom; on failure what was mounted is unmounted again.
///
/// # Errors
/// One line naming the mount.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    for mount in mounts {
        if let Err(err) = mount_one(mount, rootfs) {
            let cause = err.context(format!("mount {} ({}) on {}", mount.source, mount.r#type, rootfs.display()));
            return Err(match unmount_all(rootfs) {
                Ok(()) => cause,
                Err(undo) => cause.context(format!("and undoing it failed too: {undo:#}")),
            });
        }
    }
    Ok(())
}

/// Unmounts every layer on `rootfs`. A path that is not mounted or not there is fine.
///
/// # Errors
/// When the kernel refuses.
pub fn unmount_all(rootfs: &Path) -> Result<()> {
    loop {
        match mount::unmount(rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(err) if err.is(libc::EINVAL) || err.is(libc::ENOENT) => return Ok(()),
            Err(err) => return Err(err).context("unmount the rootfs"),
        }
    }
}

fn mount_one(request: &Mount, rootfs: &Path) -> Result<()> {
    let target = target_of(request, rootfs)?;
    let options = Options::parse(&request.options);
    let to = rustix::fs::open(&target, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .with_context(|| format!("open {}", target.display()))?;
    if options.bind {
        return mount::attach(&bind(request, &options)?, &to).context("attach");
    }
    match new_filesystem(request, &options)? {
        Some(mounted) => mount::attach(&mounted, &to).context("attach"),
        None => classic(request, &options, &to),
    }
}

/// `target` of a mount is relative to the rootfs and must stay in it.
fn target_of(request: &Mount, rootfs: &Path) -> Result<PathBuf> {
    let relative = Path::new(request.target.trim_start_matches('/'));
    if relative.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        bail!("target {:?} leaves the rootfs", request.target);
    }
    Ok(rootfs.join(relative))
}

fn bind(request: &Mount, options: &Options) -> Result<OwnedFd> {
    let source = Path::new(&request.source);
    let tree = mount::clone_tree(rustix::fs::CWD, source, options.recursive)?;
    if options.attrs != 0 {
        mount::set_attr(&tree, options.recursive, &MountAttr { attr_set: options.attrs, ..MountAttr::default() })?;
    }
    Ok(tree)
}

/// `None`: this kernel's mount API cannot take the options (a list of layers above 255 bytes before Linux 6.5).
fn new_filesystem(request: &Mount, options: &Options) -> Result<Option<OwnedFd>> {
    let fs = mount::fsopen(&request.r#type)?;
    if !request.source.is_empty() {
        mount::fsconfig_string(&fs, "source", &request.source)?;
    }
    for (key, value) in &options.data {
        let value = value.as_deref();
        match value {
            Some(layers) if layers.len() > PARAMETER_MAX => {
                if key != "lowerdir" || !lower_dirs(&fs, layers)? {
                    return Ok(None);
                }
            }
            Some(value) => mount::fsconfig_string(&fs, key, value)?,
            None => mount::fsconfig_flag(&fs, key)?,
        }
    }
    mount::fsconfig_create(&fs)?;
    let attrs = MountAttrFlags::from_bits_retain(u32::try_from(options.attrs).context("mount attributes")?);
    Ok(Some(mount::fsmount(&fs, attrs)?))
}

/// A string parameter of fsconfig(2) is at most 255 bytes.
const PARAMETER_MAX: usize = 255;

/// One layer at a time; `false` where the kernel does not know that (before 6.5).
fn lower_dirs(fs: &OwnedFd, layers: &str) -> Result<bool> {
    for layer in layers.split(':') {
        match mount::fsconfig_string(fs, "lowerdir+", layer) {
            Err(err) if err.is(libc::EINVAL) => return Ok(false),
            done => done?,
        }
    }
    Ok(true)
}

/// mount(2), whose options must fit a page: overlay's directories are named by short descriptor paths.
fn classic(request: &Mount, options: &Options, to: &OwnedFd) -> Result<()> {
    let mut held = Vec::new();
    let mut data = Vec::new();
    for (key, value) in &options.data {
        data.push(match value {
            Some(value) if matches!(key.as_str(), "lowerdir" | "upperdir" | "workdir") => {
                let short: Result<Vec<String>> = value.split(':').map(|dir| short_path(Path::new(dir), &mut held)).collect();
                format!("{key}={}", short?.join(":"))
            }
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        });
    }
    let target = PathBuf::from(format!("/proc/self/fd/{}", to.as_raw_fd()));
    let mut flags = 0;
    for (attr, flag) in CLASSIC_FLAGS {
        if options.attrs & u64::from(attr.bits()) != 0 {
            flags |= flag;
        }
    }
    Ok(mount::mount(&request.source, &target, &request.r#type, flags, &data.join(","))?)
}

const CLASSIC_FLAGS: [(MountAttrFlags, libc::c_ulong); 6] = [
    (MountAttrFlags::MOUNT_ATTR_RDONLY, libc::MS_RDONLY),
    (MountAttrFlags::MOUNT_ATTR_NOSUID, libc::MS_NOSUID),
    (MountAttrFlags::MOUNT_ATTR_NODEV, libc::MS_NODEV),
    (MountAttrFlags::MOUNT_ATTR_NOEXEC, libc::MS_NOEXEC),
    (MountAttrFlags::MOUNT_ATTR_NOATIME, libc::MS_NOATIME),
    (MountAttrFlags::MOUNT_ATTR_NODIRATIME, libc::MS_NODIRATIME),
];

fn short_path(directory: &Path, held: &mut Vec<OwnedFd>) -> Result<String> {
    let fd = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open {}", directory.display()))?;
    let short = format!("/proc/self/fd/{}", fd.as_raw_fd());
    held.push(fd);
    Ok(short)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    bind: bool,
    recursive: bool,
    /// MOUNT_ATTR_*.
    attrs: u64,
    /// Given to the file system.
    data: Vec<(String, Option<String>)>,
}

impl Options {
    fn parse(options: &[String]) -> Self {
        let mut parsed = Self::default();
        for option in options {
            match option.as_str() {
                "bind" => parsed.bind = true,
                "rbind" => (parsed.bind, parsed.recursive) = (true, true),
                "rw" | "suid" | "dev" | "exec" | "defaults" | "" => {}
                name => match attribute(name) {
                    Some(attr) => parsed.attrs |= attr,
                    None => {
                        let (key, value) = name.split_once('=').map_or((name, None), |(key, value)| (key, Some(value.to_owned())));
                        parsed.data.push((key.to_owned(), value));
                    }
                },
            }
        }
        parsed
    }
}

fn attribute(name: &str) -> Option<u64> {
    let attr = match name {
        "ro" => MountAttrFlags::MOUNT_ATTR_RDONLY,
        "nosuid" => MountAttrFlags::MOUNT_ATTR_NOSUID,
        "nodev" => MountAttrFlags::MOUNT_ATTR_NODEV,
        "noexec" => MountAttrFlags::MOUNT_ATTR_NOEXEC,
        "noatime" => MountAttrFlags::MOUNT_ATTR_NOATIME,
        "nodiratime" => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
        _ => return None,
    };
    Some(attr.bits().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(options: &[&str]) -> Vec<String> {
        options.iter().map(|&option| option.to_owned()).collect()
    }

    fn overlay(dir: &Path, layers: usize) -> Mount {
        let lower: Vec<String> = (0..layers)
            .map(|n| {
                let layer = dir.join(format!("layer-with-a-rather-long-name-{n:03}"));
                std::fs::create_dir_all(&layer).expect("layer");
                std::fs::write(layer.join(format!("f{n}")), b"x").expect("file");
                layer.display().to_string()
            })
            .collect();
        Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: vec![format!("lowerdir={}", lower.join(":"))],
        }
    }

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("shim-mounts-{name}-{}", std::process::id()));
            std::fs::create_dir_all(dir.join("rootfs")).expect("scratch");
            Self(dir)
        }

        fn rootfs(&self) -> PathBuf {
            self.0.join("rootfs")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(unmount_all(&self.rootfs()));
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn files(rootfs: &Path) -> usize {
        std::fs::read_dir(rootfs).expect("rootfs").count()
    }

    #[test]
    fn options_are_sorted_into_flags_and_data() {
        let parsed = Options::parse(&words(&["rbind", "ro", "nosuid", "rw", "index=off", "userxattr"]));
        assert!(parsed.bind && parsed.recursive);
        assert_eq!(parsed.attrs, 3);
        assert_eq!(parsed.data, [("index".to_owned(), Some("off".to_owned())), ("userxattr".to_owned(), None)]);
    }

    #[test]
    fn a_hundred_layers_with_long_paths_mount_both_ways() {
        let scratch = Scratch::new("layers");
        let mount = overlay(&scratch.0, 100);
        assert!(mount.options[0].len() > 4096, "longer than a page");
        mount_all(std::slice::from_ref(&mount), &scratch.rootfs()).expect("mount");
        assert_eq!(files(&scratch.rootfs()), 100);
        unmount_all(&scratch.rootfs()).expect("unmount");
        let to = rustix::fs::open(scratch.rootfs(), OFlags::PATH, Mode::empty()).expect("open");
        classic(&mount, &Options::parse(&mount.options), &to).expect("mount as kernels before 6.5 need it");
        assert_eq!(files(&scratch.rootfs()), 100);
        unmount_all(&scratch.rootfs()).expect("unmount");
        assert_eq!(files(&scratch.rootfs()), 0);
    }

    #[test]
    fn a_failing_mount_undoes_those_before_it() {
        let scratch = Scratch::new("undo");
        let good = overlay(&scratch.0, 2);
        let bad = Mount { options: vec!["lowerdir=/does/not/exist".into()], ..good.clone() };
        assert!(mount_all(&[good, bad], &scratch.rootfs()).is_err());
        assert_eq!(files(&scratch.rootfs()), 0);
    }

    #[test]
    fn a_target_outside_the_rootfs_is_refused() {
        let request = Mount { target: "/a/../../etc".into(), ..Mount::default() };
        assert!(target_of(&request, Path::new("/r")).is_err());
        let request = Mount { target: "/a/b".into(), ..Mount::default() };
        assert_eq!(target_of(&request, Path::new("/r")).expect("inside"), Path::new("/r/a/b"));
    }
}
