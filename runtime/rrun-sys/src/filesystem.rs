//! A file system or a bind mount as containerd's API describes it: type, source and the options of mount(8).

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::Result;
use crate::error::Described;
use crate::mount::{self, MountAttr, MountAttrFlags};

/// One mount, such as a snapshotter asks for.
#[derive(Clone, Copy, Debug)]
pub struct Filesystem<'a> {
    pub fstype: &'a str,
    pub source: &'a str,
    pub options: &'a [String],
}

impl Filesystem<'_> {
    /// Mounts it on the file or directory `to`. A list of overlay's layers may be of any length (Linux 6.7; before, some hundred layers
    /// go into the page that mount(2) takes).
    ///
    /// # Errors
    /// What the kernel says of the option or the mount.
    pub fn mount_on(&self, to: &OwnedFd) -> Result<()> {
        let options = Options::parse(self.options);
        if options.bind {
            let tree = mount::clone_tree(rustix::fs::CWD, Path::new(self.source), options.recursive)?;
            let attr = MountAttr { attr_set: options.attrs.bits().into(), ..MountAttr::default() };
            return if options.attrs.is_empty() {
                mount::attach(&tree, to)
            } else {
                // As mount(8): the mount itself, not those below.
                mount::attach_with(&tree, to, &[(false, attr)])
            };
        }
        match self.detached(&options)? {
            Some(mounted) => mount::attach(&mounted, to),
            None => self.classic(&options, to),
        }
    }

    /// `None`: this kernel's mount API cannot take the options (a list of layers above 255 bytes before Linux 6.7).
    fn detached(&self, options: &Options) -> Result<Option<OwnedFd>> {
        let fs = mount::fsopen(self.fstype)?;
        if !self.source.is_empty() {
            mount::fsconfig_string(&fs, "source", self.source)?;
        }
        let mut one_by_one = false;
        for (key, value) in &options.data {
            match value.as_deref() {
                Some(layers) if layers.len() > PARAMETER_MAX => {
                    one_by_one = key == "lowerdir" && lower_dirs(&fs, layers)?;
                    if !one_by_one {
                        return Ok(None);
                    }
                }
                Some(value) => mount::fsconfig_string(&fs, key, value)?,
                None => mount::fsconfig_flag(&fs, key)?,
            }
        }
        match mount::fsconfig_create(&fs) {
            // Before 6.5 overlay's options are only looked at now, and what is not known is refused so.
            Err(err) if one_by_one && err.is(libc::EINVAL) => Ok(None),
            created => created.and_then(|()| mount::fsmount(&fs, options.attrs)).map(Some),
        }
    }

    /// mount(2), whose options must fit a page: overlay's directories are named by short descriptor paths.
    fn classic(&self, options: &Options, to: &OwnedFd) -> Result<()> {
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
        let attr = MountAttr { attr_set: options.attrs.bits().into(), ..MountAttr::default() };
        mount::mount(self.source, &target, self.fstype, attr.flags(), &data.join(","))
    }
}

/// A string parameter of fsconfig(2) is at most 255 bytes.
const PARAMETER_MAX: usize = 255;

/// One layer at a time; `false` where the kernel says that it does not know that (6.5 and 6.6).
fn lower_dirs(fs: &OwnedFd, layers: &str) -> Result<bool> {
    for layer in layers.split(':') {
        match mount::fsconfig_string(fs, "lowerdir+", layer) {
            Err(err) if err.is(libc::EINVAL) => return Ok(false),
            done => done?,
        }
    }
    Ok(true)
}

fn short_path(directory: &Path, held: &mut Vec<OwnedFd>) -> Result<String> {
    let opened = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let fd = opened.describe("open", || directory.display().to_string())?;
    let short = format!("/proc/self/fd/{}", fd.as_raw_fd());
    held.push(fd);
    Ok(short)
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    bind: bool,
    recursive: bool,
    attrs: MountAttrFlags,
    /// Given to the file system.
    data: Vec<(String, Option<String>)>,
}

impl Options {
    fn parse(options: &[String]) -> Self {
        let mut parsed = Self { bind: false, recursive: false, attrs: MountAttrFlags::empty(), data: Vec::new() };
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

fn attribute(name: &str) -> Option<MountAttrFlags> {
    Some(match name {
        "ro" => MountAttrFlags::MOUNT_ATTR_RDONLY,
        "nosuid" => MountAttrFlags::MOUNT_ATTR_NOSUID,
        "nodev" => MountAttrFlags::MOUNT_ATTR_NODEV,
        "noexec" => MountAttrFlags::MOUNT_ATTR_NOEXEC,
        "noatime" => MountAttrFlags::MOUNT_ATTR_NOATIME,
        "nodiratime" => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_into_flags_and_data() {
        let options = ["rbind", "ro", "nosuid", "rw", "index=off", "userxattr"].map(str::to_owned);
        let parsed = Options::parse(&options);
        assert!(parsed.bind && parsed.recursive);
        assert_eq!(parsed.attrs, MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID);
        assert_eq!(parsed.data, [("index".to_owned(), Some("off".to_owned())), ("userxattr".to_owned(), None)]);
    }

    #[test]
    fn many_layers_with_long_paths_mount_on_new_and_old_kernels() {
        // More than a parameter of fsconfig(2), but all together less than a page; and more than a page.
        for layers in [10, 100] {
            let dir = tempfile::tempdir().expect("directory");
            let layer = |n| {
                let layer = dir.path().join(format!("layer-with-a-rather-long-name-{n:03}"));
                std::fs::create_dir(&layer).expect("layer");
                std::fs::write(layer.join(format!("f{n}")), b"x").expect("file");
                layer.display().to_string()
            };
            let lowers: Vec<String> = (0..layers).map(layer).collect();
            let options = [format!("lowerdir={}", lowers.join(":"))];
            assert!(options[0].len() > PARAMETER_MAX && (options[0].len() > 4096) == (layers == 100), "{}", options[0].len());
            let overlay = Filesystem { fstype: "overlay", source: "overlay", options: &options };
            let point = dir.path().join("rootfs");
            std::fs::create_dir(&point).expect("rootfs");
            let to = rustix::fs::open(&point, OFlags::PATH, Mode::empty()).expect("open");
            let files = || std::fs::read_dir(&point).expect("rootfs").count();
            for older in [false, true] {
                let mounted = if older { overlay.classic(&Options::parse(&options), &to) } else { overlay.mount_on(&to) };
                mounted.expect("mount");
                let seen = files();
                mount::unmount(&point, mount::UnmountFlags::DETACH).expect("unmount");
                assert_eq!((seen, files()), (layers, 0), "older kernels: {older}");
            }
        }
    }
}
