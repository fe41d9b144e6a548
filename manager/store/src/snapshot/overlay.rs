//! Snapshots as overlayfs layers (Documentation/filesystems/overlayfs.rst): one directory per snapshot, stacked when mounted.

use std::fs::{DirBuilder, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcontainerd_types::{Error, ErrorKind, Finding, Result, Severity};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::backend::Backend;
use super::{Kind, LayerDirs, Whiteouts};
use crate::fs::{failed, make_private_dir, remove_tree_if_there};
use crate::mount::Mount;

/// containerd's name for it, which clients ask for.
pub const NAME: &str = "overlayfs";

pub struct Overlay {
    root: PathBuf,
    /// Options that every mount gets, as the kernel's defaults require.
    fixed: Vec<String>,
    /// Whether the kernel knows the option `volatile` (5.10).
    volatile: bool,
}

impl Overlay {
    pub fn new(root: PathBuf) -> Self {
        Self { root, fixed: fixed_options(), volatile: kernel() >= (5, 10) }
    }

    /// Mounts an overlay in `scratch` without attaching it anywhere: nobody sees it and it goes with its descriptor.
    fn try_mount(scratch: &Path) -> Result<()> {
        let step = |what: &'static str| move |err: rustix::io::Errno| Error::io(what, err.into()).with_kind(ErrorKind::Unsupported);
        for sub in ["lower", "upper", "work"] {
            make_private_dir(&scratch.join(sub))?;
        }
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("the kernel has no overlayfs"))?;
        for (option, sub) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
            fsconfig_set_string(context.as_fd(), option, scratch.join(sub))
                .map_err(step("overlayfs refuses this file system as a layer"))?;
        }
        fsconfig_create(context.as_fd()).map_err(step("overlayfs cannot be mounted on this file system"))?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(step("mount overlayfs"))?;
        mknodat(CWD, scratch.join("whiteout"), FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(step("a whiteout device cannot be made"))?;
        rustix::fs::setxattr(scratch.join("upper"), "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .map_err(step("the file system keeps no trusted xattrs"))
    }
}

/// The kernel's defaults differ by distribution; what they switch on by themselves would change what a layer's directory means.
fn fixed_options() -> Vec<String> {
    let parameter = |name: &str| std::fs::read_to_string(format!("/sys/module/overlay/parameters/{name}")).ok();
    let mut options = Vec::new();
    // index=on refuses a lower directory that is in use by two mounts, which is what images are for.
    if parameter("index").is_some() {
        options.push("index=off".to_owned());
    }
    // Both would leave layers that only overlayfs itself can read, and that `commit` could not diff.
    for name in ["redirect_dir", "metacopy"] {
        if parameter(name).is_some_and(|value| value.trim() == "Y") {
            options.push(format!("{name}=off"));
        }
    }
    options
}

/// Major and minor number of the running kernel's version; (0, 0) when it cannot be told.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

impl Backend for Overlay {
    fn name(&self) -> &'static str {
        NAME
    }

    fn create(&self, dir: &Path, kind: Kind, parents: &[PathBuf]) -> Result<()> {
        let fs = dir.join("fs");
        DirBuilder::new().mode(0o755).create(&fs).map_err(failed("create directory", &fs))?;
        std::fs::set_permissions(&fs, Permissions::from_mode(0o755)).map_err(failed("chmod", &fs))?;
        if kind == Kind::Active {
            let work = dir.join("work");
            DirBuilder::new().mode(0o711).create(&work).map_err(failed("create directory", &work))?;
        }
        // The root directory of the merged view has the mode and owner of the topmost layer's.
        if let Some(parent) = parents.first() {
            copy_root_attributes(&parent.join("fs"), &fs)?;
        }
        Ok(())
    }

    fn mounts(&self, dir: &Path, kind: Kind, parents: &[PathBuf]) -> Vec<Mount> {
        let path = |dir: &Path, sub: &str| dir.join(sub).to_string_lossy().into_owned();
        let bind =
            |source: String, access: &str| vec![Mount { fstype: "bind".into(), source, options: vec!["rbind".into(), access.into()] }];
        match (kind, parents) {
            (Kind::Active, []) => return bind(path(dir, "fs"), "rw"),
            (_, []) => return bind(path(dir, "fs"), "ro"),
            (Kind::View | Kind::Committed, [only]) => return bind(path(only, "fs"), "ro"),
            _ => {}
        }
        let mut options = self.fixed.clone();
        if kind == Kind::Active {
            options.push(format!("workdir={}", path(dir, "work")));
            options.push(format!("upperdir={}", path(dir, "fs")));
        }
        let lowers: Vec<String> = parents.iter().map(|parent| path(parent, "fs")).collect();
        options.push(format!("lowerdir={}", lowers.join(":")));
        vec![Mount { fstype: "overlay".into(), source: "overlay".into(), options }]
    }

    /// `volatile` leaves a mark in the work directory, also when it is unmounted in order, and a mount refuses to begin with one.
    fn relax(&self, dir: &Path, mounts: &mut [Mount]) -> Result<()> {
        if !self.volatile {
            return Ok(());
        }
        for mount in mounts.iter_mut().filter(|mount| mount.fstype == "overlay") {
            remove_tree_if_there(&dir.join("work/work/incompat"))?;
            mount.options.push("volatile".to_owned());
        }
        Ok(())
    }

    fn layer_dirs(&self, dir: &Path, parents: &[PathBuf]) -> LayerDirs {
        LayerDirs { upper: dir.join("fs"), lowers: parents.iter().map(|parent| parent.join("fs")).collect(), whiteouts: Whiteouts::Overlay }
    }

    fn seal(&self, dir: &Path) -> Result<()> {
        remove_tree_if_there(&dir.join("work"))
    }

    fn usable(&self) -> Result<()> {
        let scratch =
            tempfile::Builder::new().prefix("check-").tempdir_in(&self.root).map_err(failed("create directory in", &self.root))?;
        Self::try_mount(scratch.path())
    }

    fn check(&self) -> Vec<Finding> {
        let subject = "overlay snapshots".to_owned();
        vec![match self.usable() {
            Ok(()) => Finding {
                severity: Severity::Ok,
                subject,
                observed: format!("overlayfs can be mounted on {}", self.root.display()),
                cost: String::new(),
                remedy: String::new(),
            },
            Err(err) => Finding {
                severity: Severity::Degraded,
                subject,
                observed: err.message().to_owned(),
                cost: "snapshots are full copies: slower to make, and each takes its size on disk".into(),
                remedy: "put --root on ext4, xfs or btrfs (not on another overlay, NFS or FUSE)".into(),
            },
        }]
    }
}

fn copy_root_attributes(from: &Path, to: &Path) -> Result<()> {
    let found = std::fs::metadata(from).map_err(failed("stat", from))?;
    std::os::unix::fs::chown(to, Some(found.uid()), Some(found.gid())).map_err(failed("chown", to))?;
    std::fs::set_permissions(to, Permissions::from_mode(found.mode() & 0o7777)).map_err(failed("chmod", to))
}
