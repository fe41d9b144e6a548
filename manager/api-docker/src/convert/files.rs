//! Files of containers: what a path is, what has changed.

use base64::Engine;
use proto_docker::container::{Change as ChangeDto, PathStat as PathStatDto};
use rcontainerd_core::files::{Change, ChangeKind, PathStat};

use super::container::signed;
use crate::wire::time::rfc3339;

/// The value of `X-Docker-Container-Path-Stat`: JSON in base64.
pub(crate) fn stat_header(stat: &PathStat) -> String {
    let body = PathStatDto {
        name: stat.name.clone(),
        size: signed(stat.size),
        mode: go_mode(stat.mode),
        mtime: rfc3339(stat.modified),
        link_target: stat.link_target.clone(),
    };
    let json = serde_json::to_vec(&body).expect("numbers and strings can always be written as JSON");
    base64::engine::general_purpose::STANDARD.encode(json)
}

/// `st_mode` as Go's `os.FileMode`.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        // A character device is a device too.
        0o020_000 => 1 << 26 | 1 << 21,
        _ => 0,
    };
    let bits = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special: u32 = bits.into_iter().filter(|(unix, _)| mode & unix != 0).map(|(_, go)| go).sum();
    kind | special | (mode & 0o777)
}

pub(crate) fn change(change: &Change) -> ChangeDto {
    let kind = match change.kind {
        ChangeKind::Modified => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    };
    ChangeDto { path: format!("/{}", String::from_utf8_lossy(&change.path)), kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_go_s() {
        for (unix, go) in [
            (0o100_644, 0o644),
            (0o040_755, 0x8000_01ed),
            (0o120_777, 0x0800_01ff),
            (0o020_666, 0x0420_01b6),
            (0o104_755, 0x0080_01ed),
            (0o041_777, 0x8010_01ff),
        ] {
            assert_eq!(go_mode(unix), go, "{unix:o}");
        }
    }
}
