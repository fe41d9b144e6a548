//! The rootfs: the mounts that the snapshotter asked for, made on BUNDLE/rootfs and undone on delete.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use proto_containerd::types::Mount;
use rrun_sys::filesystem::Filesystem;
use rrun_sys::mount::{self, UnmountFlags};
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
    let to = rustix::fs::open(&target, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .with_context(|| format!("open {}", target.display()))?;
    Ok(Filesystem { fstype: &request.r#type, source: &request.source, options: &request.options }.mount_on(&to)?)
}

/// `target` of a mount is relative to the rootfs and must stay in it.
fn target_of(request: &Mount, rootfs: &Path) -> Result<PathBuf> {
    let relative = Path::new(request.target.trim_start_matches('/'));
    if relative.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        bail!("target {:?} leaves the rootfs", request.target);
    }
    Ok(rootfs.join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

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
