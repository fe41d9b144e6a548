//! The cgroup lines of `/proc/self/mountinfo` and the lines of `/proc/<pid>/cgroup` (proc_pid_mountinfo(5), cgroups(7)).
//!
//! Paths in mountinfo are octal-escaped by the kernel (space, tab, newline, backslash, `#`); they are decoded here, as bytes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::host::{Mount, Version};

/// Every cgroup and cgroup2 mount, in the order of the file. A line that does not parse is no cgroup mount.
pub fn cgroup_mounts(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let root = fields.nth(3)?;
    let mount_point = fields.next()?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let version = match rest.next()? {
        b"cgroup2" => Version::V2,
        b"cgroup" => Version::V1,
        _ => return None,
    };
    let super_options = rest.nth(1)?;
    let controllers = match version {
        Version::V2 => Vec::new(),
        Version::V1 => v1_controllers(super_options),
    };
    Some(Mount { version, controllers, root: decode(root), mount_point: decode(mount_point) })
}

/// The super options of a v1 mount name its controllers among a few flags of the file system.
fn v1_controllers(options: &[u8]) -> Vec<String> {
    const FLAGS: [&str; 9] = ["rw", "ro", "xattr", "noprefix", "clone_children", "all", "none", "cpuset_v2_mode", "favordynmods"];
    String::from_utf8_lossy(options)
        .split(',')
        .filter(|option| !FLAGS.contains(option) && !option.starts_with("release_agent="))
        .map(str::to_owned)
        .collect()
}

/// Decodes `\040` and its like; anything else is kept as it is.
pub fn decode(escaped: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let [first, tail @ ..] = rest {
        match (first, octal(tail)) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

fn octal(digits: &[u8]) -> Option<u8> {
    let [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] = digits else { return None };
    Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
}

/// One hierarchy's line of `/proc/<pid>/cgroup`: its controllers (none for v2) and the path inside the cgroup namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub controllers: Vec<String>,
    pub path: String,
}

/// Parses `/proc/<pid>/cgroup`: `ID:CONTROLLERS:PATH`, where the path may hold colons.
pub fn memberships(proc_cgroup: &[u8]) -> Vec<Membership> {
    String::from_utf8_lossy(proc_cgroup)
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
            let path = parts.next()?.trim_end_matches(" (deleted)").to_owned();
            Some(Membership { controllers, path })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 /a\\040b /sys/fs/cgroup/sys\\134temd rw - cgroup systemd rw,xattr,release_agent=/x,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn finds_cgroup_mounts_and_decodes_their_paths() {
        let mounts = cgroup_mounts(HYBRID);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(mounts[0].mount_point, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(mounts[1].controllers, ["name=systemd"]);
        assert_eq!(mounts[1].root, PathBuf::from("/a b"));
        assert_eq!(mounts[1].mount_point, PathBuf::from("/sys/fs/cgroup/sys\\temd"));
        assert_eq!(mounts[2].version, Version::V2);
        assert!(mounts[2].controllers.is_empty());
    }

    #[test]
    fn decodes_only_three_octal_digits() {
        assert_eq!(decode(b"a\\040b\\01\\999\\"), PathBuf::from("a b\\01\\999\\"));
        assert_eq!(decode(b"\\134040"), PathBuf::from("\\040"));
    }

    #[test]
    fn a_cut_line_is_no_mount() {
        assert!(cgroup_mounts(b"41 31 0:38 / /sys/fs/cgroup rw - cgroup2").is_empty());
        assert!(cgroup_mounts(b"41 31\n\n - cgroup2 x rw").is_empty());
    }

    #[test]
    fn reads_memberships_with_colons_in_the_path() {
        let found = memberships(b"5:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/user.slice (deleted)\n");
        assert_eq!(found[0], Membership { controllers: vec!["cpu".into(), "cpuacct".into()], path: "/a:b".into() });
        assert_eq!(found[1].controllers, ["name=systemd"]);
        assert_eq!(found[2], Membership { controllers: vec![], path: "/user.slice".into() });
    }
}
