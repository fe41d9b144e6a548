//! What cgroup hierarchies this process sees, and where a container's cgroup lies in them.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::location::{Dir, Location};
use crate::mountinfo::{self, Membership};

/// The kernel interface of one hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    V1,
    V2,
}

/// How the host arranges its hierarchies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Controllers on v1 hierarchies only.
    V1,
    /// Controllers on v1 hierarchies, and a v2 tree beside them.
    Hybrid,
    /// One v2 tree.
    V2,
}

/// One mounted cgroup file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub version: Version,
    /// v1: the controllers (`cpu`, `cpuacct`, `name=systemd`, …); v2: empty.
    pub controllers: Vec<String>,
    /// The directory of the hierarchy that is mounted, as this cgroup namespace sees it.
    pub root: PathBuf,
    pub mount_point: PathBuf,
}

/// Who makes the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// The runtime, by mkdir.
    #[default]
    Cgroupfs,
    /// systemd, by a transient scope (`--systemd-cgroup`).
    Systemd,
}

/// The cgroup hierarchies of this process: two small files read once.
#[derive(Debug, Clone)]
pub struct Host {
    mounts: Vec<Mount>,
    own: Vec<Membership>,
}

impl Host {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub fn detect() -> Result<Host> {
        Ok(Host::from_proc(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
    }

    /// As [`Host::detect`], from the contents of the two files.
    pub fn from_proc(mountinfo: &[u8], own_cgroup: &[u8]) -> Host {
        Host { mounts: visible(mountinfo::cgroup_mounts(mountinfo)), own: mountinfo::memberships(own_cgroup) }
    }

    /// The arrangement, or an error that says that no cgroup file system is mounted.
    pub fn mode(&self) -> Result<Mode> {
        let has = |version| self.mounts.iter().any(|m| m.version == version);
        match (has(Version::V1), has(Version::V2)) {
            (true, true) => Ok(Mode::Hybrid),
            (true, false) => Ok(Mode::V1),
            (false, true) => Ok(Mode::V2),
            (false, false) => {
                Err(Error::Unsupported("no cgroup file system is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup`".into()))
            }
        }
    }

    /// The mounted hierarchies, each once: what a container's own cgroup mount must offer.
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// Where the container `id` lives, from `linux.cgroupsPath`: absolute is below the mount's top, relative below this
    /// process's own cgroup (on v2 below that one's parent, since a cgroup with processes cannot hand out controllers),
    /// absent is the same as the relative path `id`. (Under systemd: [`crate::Systemd::locate`].)
    pub fn locate(&self, cgroups_path: Option<&str>, id: &str) -> Result<Location> {
        self.mode()?;
        let path = cgroups_path.filter(|p| !p.is_empty()).unwrap_or(id);
        let path = Path::new(path);
        refuse_dot_dot(path)?;
        let dirs = self.mounts.iter().map(|mount| self.place(mount, path)).collect::<Result<Vec<_>>>()?;
        Ok(Location { dirs, unit: None })
    }

    /// Whether this process may make these directories and put a process there; the error names what it may not write to. On v2 the
    /// kernel wants leave of the cgroup above both the process's old place and its new one: a user may own a directory and still
    /// get nobody into it.
    pub fn within_reach(&self, location: &Location) -> Result<()> {
        let own = self.location_of(std::process::id().cast_signed())?;
        for dir in &location.dirs {
            let there = dir.path.ancestors().find(|above| above.exists()).unwrap_or(&dir.mount_point);
            must_be_writable(there, "make cgroups in")?;
            if dir.version == Version::V2 {
                let from = own.unified().map_or(dir.mount_point.as_path(), |own| own.path.as_path());
                let common = dir.path.ancestors().find(|above| from.starts_with(above)).unwrap_or(&dir.mount_point);
                must_be_writable(&common.join("cgroup.procs"), "move processes by")?;
            }
        }
        Ok(())
    }

    /// The same path in every hierarchy, given from the top of the cgroup namespace.
    pub(crate) fn below_mounts(&self, path: &Path) -> Location {
        let place = |mount: &Mount| Dir {
            version: mount.version,
            controllers: mount.controllers.clone(),
            mount_point: mount.mount_point.clone(),
            path: below_root(mount, &path.to_string_lossy()),
        };
        Location { dirs: self.mounts.iter().map(place).collect(), unit: None }
    }

    /// Where the process `pid` is now, in every hierarchy.
    pub fn location_of(&self, pid: i32) -> Result<Location> {
        let members = mountinfo::memberships(&read(&format!("/proc/{pid}/cgroup"))?);
        let dirs = self
            .mounts
            .iter()
            .filter_map(|mount| {
                let path = below_root(mount, membership(&members, mount)?);
                Some(Dir { version: mount.version, controllers: mount.controllers.clone(), mount_point: mount.mount_point.clone(), path })
            })
            .collect();
        Ok(Location { dirs, unit: None })
    }

    fn place(&self, mount: &Mount, path: &Path) -> Result<Dir> {
        let parent = if path.is_absolute() {
            mount.mount_point.clone()
        } else {
            let own = membership(&self.own, mount).ok_or_else(|| {
                Error::Invalid(format!("own cgroup unknown in {}: give an absolute cgroupsPath", mount.mount_point.display()))
            })?;
            let own = below_root(mount, own);
            match mount.version {
                Version::V2 if own != mount.mount_point => own.parent().map_or(own.clone(), Path::to_path_buf),
                _ => own,
            }
        };
        let path = normal_components(path).fold(parent, |path, part| path.join(part));
        Ok(Dir { version: mount.version, controllers: mount.controllers.clone(), mount_point: mount.mount_point.clone(), path })
    }
}

/// The first mount of each hierarchy that is not hidden below a later mount on the same point or above it.
fn visible(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut kept: Vec<Mount> = Vec::with_capacity(mounts.len());
    for mount in mounts {
        // A later mount at or above the place of an earlier one hides it.
        kept.retain(|earlier| !earlier.mount_point.starts_with(&mount.mount_point));
        let known = kept.iter().any(|k| k.version == mount.version && k.controllers == mount.controllers);
        if !known {
            kept.push(mount);
        }
    }
    kept
}

fn membership<'a>(members: &'a [Membership], mount: &Mount) -> Option<&'a str> {
    let same = |m: &&Membership| match mount.version {
        Version::V2 => m.controllers.is_empty(),
        Version::V1 => m.controllers.iter().any(|c| mount.controllers.contains(c)),
    };
    members.iter().find(same).map(|m| m.path.as_str())
}

/// A path of `/proc/<pid>/cgroup` seen through a mount whose root may be a deeper directory.
fn below_root(mount: &Mount, path: &str) -> PathBuf {
    let path = Path::new(path);
    let relative = path.strip_prefix(&mount.root).unwrap_or(Path::new(""));
    normal_components(relative).fold(mount.mount_point.clone(), |path, part| path.join(part))
}

fn normal_components(path: &Path) -> impl Iterator<Item = &std::ffi::OsStr> {
    path.components().filter_map(|c| match c {
        Component::Normal(part) => Some(part),
        _ => None,
    })
}

fn refuse_dot_dot(path: &Path) -> Result<()> {
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(Error::Invalid(format!("cgroupsPath {path:?} holds \"..\": give the path without it")));
    }
    if normal_components(path).next().is_none() {
        return Err(Error::Invalid(format!("cgroupsPath {path:?} names the top of the hierarchy: name a cgroup below it")));
    }
    Ok(())
}

fn must_be_writable(path: &Path, doing: &str) -> Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).map_err(|e| Error::io(doing, path, e))
}

fn read(path: &str) -> Result<Vec<u8>> {
    // Of procfs: as long as its own tables.
    rrun_sys::fs::read_file(Path::new(path), 64 << 20)
        .map_err(|e| Error::io("read", Path::new(path), std::io::Error::from_raw_os_error(e.errno())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    fn paths(mountinfo: &str, own: &str, cgroups_path: Option<&str>) -> Vec<String> {
        let host = Host::from_proc(mountinfo.as_bytes(), own.as_bytes());
        let location = host.locate(cgroups_path, "id").unwrap();
        location.dirs.iter().map(|dir| dir.path.display().to_string()).collect()
    }

    #[test]
    fn an_absolute_path_is_below_every_mount() {
        let own = "4:memory:/mine\n0::/also\n";
        assert_eq!(paths(HYBRID, own, Some("/docker/x")), ["/sys/fs/cgroup/memory/docker/x", "/sys/fs/cgroup/unified/docker/x"]);
    }

    #[test]
    fn a_relative_or_absent_path_is_near_the_runtime() {
        let own = "4:memory:/mine\n0::/user.slice/session.scope\n";
        assert_eq!(paths(HYBRID, own, Some("a/b")), ["/sys/fs/cgroup/memory/mine/a/b", "/sys/fs/cgroup/unified/user.slice/a/b"]);
        assert_eq!(paths(V2, own, None), ["/sys/fs/cgroup/user.slice/id"]);
        assert_eq!(paths(V2, "0::/\n", Some("")), ["/sys/fs/cgroup/id"]);
    }

    #[test]
    fn a_mount_of_a_deeper_directory_shows_what_is_below_it() {
        let bound = "35 31 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(paths(bound, "4:memory:/docker/x/mine\n", None), ["/sys/fs/cgroup/memory/mine/id"]);
    }

    #[test]
    fn a_mount_over_the_others_hides_them() {
        let host = Host::from_proc(format!("{HYBRID}{}", V2.replace("31 23", "50 31")).as_bytes(), b"0::/\n");
        assert_eq!(host.mode().unwrap(), Mode::V2);
        assert_eq!(host.mounts().len(), 1);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let host = Host::from_proc(V2.as_bytes(), b"0::/\n");
        for path in ["/a/../../b", "..", "/", "."] {
            assert!(host.locate(Some(path), "id").is_err(), "{path}");
        }
        assert!(Host::from_proc(b"", b"").mode().unwrap_err().to_string().contains("mount -t cgroup2"));
    }
}
