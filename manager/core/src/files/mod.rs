//! Files of containers, running or not: `docker cp`, `export`, `diff`. Works on descriptors within the container's root; nothing of the
//! container is executed, no name of it is resolved outside of it.

mod paths;
mod service;
mod view;

use jiff::Timestamp;
use rcontainerd_types::{Error, Result};

pub use rcontainerd_store::tree::{Change, ChangeKind};
pub use service::Files;

/// A path in a container. Docker's rules: it is taken from `/`; a trailing `/` or `/.` means the directory that a link leads to.
#[derive(Clone, Debug, Default)]
pub struct ContainerPath {
    /// Name, id or id prefix.
    pub container: String,
    pub path: String,
}

/// Put an archive's members into a directory of a container.
#[derive(Clone, Debug, Default)]
pub struct CopyInto {
    pub container: String,
    /// An existing directory.
    pub path: String,
    /// Refuse to put a directory in a file's place and the other way round.
    pub keep_kinds: bool,
    /// Members become the container's user's instead of the archive's owners'.
    pub as_user: bool,
}

/// What a path is, a link not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    pub name: String,
    pub size: u64,
    /// `st_mode`.
    pub mode: u32,
    pub modified: Timestamp,
    /// Where a link leads in the container, fully resolved; empty for all else.
    pub link_target: String,
}

/// What a start makes in the root filesystem to mount on, as Docker's: no change of the container's.
pub(crate) const MOUNT_PLACES: &[&str] = &[
    ".dockerenv",
    "dev",
    "dev/console",
    "dev/mqueue",
    "dev/pts",
    "dev/shm",
    "etc",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "proc",
    "sbin/docker-init",
    "sys",
    "sys/fs",
    "sys/fs/cgroup",
];

/// Docker's words for a path that is not there.
fn missing(path: &str, container: &str) -> Error {
    Error::not_found(format!("Could not find the file {path} in container {container}"))
}

fn timestamp(seconds: i64, nanoseconds: u64) -> Result<Timestamp> {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
    Timestamp::new(seconds, nanoseconds).map_err(|err| Error::internal(format!("a file's time: {err}")))
}
