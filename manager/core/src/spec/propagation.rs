//! Binds whose mounts are to be seen on both sides need a source that passes them on: what dockerd asks of it, at the start.
//!
//! /proc/self/mountinfo, optional fields (proc_pid_mountinfo(5)): `shared:X` passes on, `master:X` receives.

use std::path::{Path, PathBuf};

use rcontainerd_types::{Error, Result};

use crate::containers::{MountKind, MountPoint};

/// # Errors
/// `Internal`, as dockerd counts it, in its words for a source whose mount is private, or only receives and is to pass on.
pub fn check(mounts: &[MountPoint]) -> Result<()> {
    let asks = |mount: &&MountPoint| mount.kind != MountKind::Tmpfs && need(&mount.propagation).is_some();
    if !mounts.iter().any(|mount| asks(&mount)) {
        return Ok(());
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(|err| Error::io("read /proc/self/mountinfo", err))?;
    let table = Table::parse(&table);
    mounts.iter().filter(asks).try_for_each(|mount| {
        let source = Path::new(&mount.source);
        let real = source.canonicalize().map_err(|err| Error::io(format!("resolve {}", source.display()), err))?;
        table.check(source, &real, &mount.propagation)
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Shared,
    SharedOrSlave,
}

fn need(propagation: &str) -> Option<Need> {
    match propagation {
        "shared" | "rshared" => Some(Need::Shared),
        "slave" | "rslave" => Some(Need::SharedOrSlave),
        _ => None,
    }
}

/// Mount points in the order in which they were mounted, each with whether it passes on and whether it receives.
struct Table(Vec<(PathBuf, bool, bool)>);

impl Table {
    fn parse(text: &str) -> Self {
        let parse = |line: &str| {
            let mut fields = line.split(' ').skip(4);
            let place = fields.next()?;
            let optional: Vec<&str> = fields.skip(1).take_while(|field| *field != "-").collect();
            let has = |tag: &str| optional.iter().any(|field| field.starts_with(tag));
            Some((unescape(place), has("shared:"), has("master:")))
        };
        Self(text.lines().filter_map(parse).collect())
    }

    fn check(&self, source: &Path, real: &Path, propagation: &str) -> Result<()> {
        let Some(need) = need(propagation) else { return Ok(()) };
        let above = self.0.iter().filter(|(place, ..)| real.starts_with(place));
        // The deepest; of several on one place the one mounted last is seen.
        let (place, shared, slave) = above
            .max_by_key(|(place, ..)| place.components().count())
            .ok_or_else(|| Error::internal(format!("could not find source mount of {}", source.display())))?;
        let (fine, what) = match need {
            Need::Shared => (*shared, "a shared mount"),
            Need::SharedOrSlave => (*shared || *slave, "a shared or slave mount"),
        };
        if fine {
            return Ok(());
        }
        Err(Error::internal(format!("path {} is mounted on {} but it is not {what}", source.display(), place.display())))
    }
}

/// Space, tab, newline and backslash are written as octal numbers.
fn unescape(field: &str) -> PathBuf {
    let mut parts = field.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                path.push(char::from(byte));
                path.push_str(&part[3..]);
            }
            None => {
                path.push('\\');
                path.push_str(part);
            }
        }
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:1 / / rw,relatime - ext4 /dev/root rw
23 22 0:20 / /mnt/shared rw shared:7 - tmpfs x rw
24 22 0:21 / /mnt/slave rw master:7 - tmpfs x rw
25 22 0:22 / /mnt/both rw shared:9 master:7 - tmpfs x rw
26 23 0:23 / /mnt/shared/private rw - tmpfs x rw
27 22 0:24 / /mnt/with\\040space rw shared:8 - tmpfs x rw
28 23 0:25 / /mnt/twice rw shared:3 - tmpfs x rw
29 28 0:26 / /mnt/twice rw - tmpfs x rw
";

    fn told(source: &str, propagation: &str) -> Option<String> {
        let path = Path::new(source);
        Table::parse(TABLE).check(path, path, propagation).err().map(|err| err.message().to_owned())
    }

    #[test]
    fn binds_that_cannot_propagate_are_told_in_dockerd_s_words() {
        for (source, propagation, message) in [
            ("/tmp", "rshared", "path /tmp is mounted on / but it is not a shared mount"),
            ("/tmp", "shared", "path /tmp is mounted on / but it is not a shared mount"),
            ("/tmp", "rslave", "path /tmp is mounted on / but it is not a shared or slave mount"),
            ("/mnt/slave/a", "shared", "path /mnt/slave/a is mounted on /mnt/slave but it is not a shared mount"),
            (
                "/mnt/shared/private",
                "slave",
                "path /mnt/shared/private is mounted on /mnt/shared/private but it is not a shared or slave mount",
            ),
            ("/mnt/sharedness", "shared", "path /mnt/sharedness is mounted on / but it is not a shared mount"),
            ("/mnt/twice/x", "rshared", "path /mnt/twice/x is mounted on /mnt/twice but it is not a shared mount"),
        ] {
            assert_eq!(told(source, propagation).as_deref(), Some(message), "{source} {propagation}");
        }
    }

    #[test]
    fn binds_that_can_propagate_or_need_not_are_fine() {
        for (source, propagation) in [
            ("/tmp", ""),
            ("/tmp", "rprivate"),
            ("/tmp", "private"),
            ("/mnt/shared/deep/down", "rshared"),
            ("/mnt/shared", "slave"),
            ("/mnt/slave", "rslave"),
            ("/mnt/both", "shared"),
            ("/mnt/with space/x", "shared"),
        ] {
            assert_eq!(told(source, propagation), None, "{source} {propagation}");
        }
    }
}
