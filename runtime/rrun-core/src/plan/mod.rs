//! Spec + HostFacts → Plan: everything that can be decided before a process exists is decided here, without touching anything.

mod mount;
mod process;
mod steps;

use std::path::{Path, PathBuf};

pub use mount::{
    ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, Attrs, IdMap, MountStep, What, plan_cgroup_mount, plan_mount, propagation,
};
pub use process::{Identity, ProcessPlan, io_class, plan_process, rlimit_number, scheduler_attr};
use steps::init_steps;
pub(crate) use steps::sysctl_path;
pub use steps::{DeviceStep, InitStep, exec_steps};

use crate::spec::{IdMapping, Spec};
use crate::{Error, Result};

/// What the plan needs to know of the host.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    /// The capabilities that this process may hand on.
    pub capabilities: u64,
    /// Not root in the first user namespace: some writes are not possible.
    pub rootless: bool,
    /// The container's cgroups, if it has any.
    pub cgroups: CgroupView,
    /// Whether /proc/kcore exists (for /dev/core).
    pub has_kcore: bool,
}

/// The directories of the container's cgroup.
#[derive(Debug, Clone, Default)]
pub struct CgroupView {
    pub location: rrun_cgroup::Location,
}

/// What the caller asked for beside config.json.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    pub id: String,
    pub bundle: PathBuf,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub preserve_fds: u32,
}

/// How the container is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub spawn: Spawn,
    pub steps: Vec<InitStep>,
    /// Things that are left out on purpose; told to the user.
    pub warnings: Vec<String>,
}

/// The strategy of making the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spawn {
    /// `CLONE_NEW*` for clone3.
    pub flags: u64,
    /// Joined by the parent just for the clone: the child starts in it.
    pub join_pid: Option<PathBuf>,
    /// What needs a process in between, which joins and then clones the real one as its sibling.
    pub staged: Option<Staged>,
    /// Written by the parent into the new user namespace.
    pub maps: Option<Maps>,
    /// The child waits until the parent has mapped it or moved it into its cgroups.
    pub child_waits: bool,
}

/// What the process in between does before it clones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staged {
    pub joins: Vec<Join>,
    /// Lines for /proc/self/timens_offsets; the time namespace is made when Some.
    pub time_offsets: Option<String>,
}

/// A namespace to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// `CLONE_NEW*`.
    pub kind: i32,
    pub path: PathBuf,
}

/// Mappings of a new user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maps {
    pub uid: Vec<IdMapping>,
    pub gid: Vec<IdMapping>,
}

/// The `CLONE_NEW*` flag of a namespace of config.json.
pub fn namespace_flag(kind: &str) -> i32 {
    match kind {
        "pid" => libc::CLONE_NEWPID,
        "network" => libc::CLONE_NEWNET,
        "mount" => libc::CLONE_NEWNS,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "user" => libc::CLONE_NEWUSER,
        "cgroup" => libc::CLONE_NEWCGROUP,
        "time" => 0x80,
        _ => 0,
    }
}

/// Decides everything. The spec must have been validated.
pub fn plan(spec: &Spec, host: &HostFacts, options: &CreateOptions) -> Result<Plan> {
    if !spec.linux.has("mount") {
        return Err(Error::invalid("config.json: linux.namespaces: a container without a mount namespace is not supported: add one"));
    }
    let mut warnings = Vec::new();
    let spawn = spawn(spec, host);
    let steps = init_steps(spec, host, options, &spawn, &mut warnings)?;
    Ok(Plan { spawn, steps, warnings })
}

/// One clone3 unless the kernel's rules ask for a process in between: what is joined by path must be joined before a user
/// namespace is made (it belongs to the outer one), a joined user namespace before others are made in it, and a time
/// namespace must get its offsets before the first process enters it.
fn spawn(spec: &Spec, host: &HostFacts) -> Spawn {
    let linux = &spec.linux;
    let made = |kind: &str| linux.makes(kind);
    let joins: Vec<Join> = linux
        .namespaces
        .iter()
        .filter(|n| !n.path.as_os_str().is_empty())
        .map(|n| Join { kind: namespace_flag(&n.kind), path: n.path.clone() })
        .collect();
    // A cgroup namespace shows the cgroup that its maker is in, so the child makes it once it is there.
    let flags = linux
        .namespaces
        .iter()
        .filter(|n| n.path.as_os_str().is_empty() && n.kind != "cgroup")
        .fold(0, |f, n| f | namespace_flag(&n.kind) as u64);
    let time_offsets = (!linux.time_offsets.is_empty())
        .then(|| linux.time_offsets.iter().map(|(clock, o)| format!("{clock} {} {}\n", o.secs, o.nanosecs)).collect::<String>());
    let staged = time_offsets.is_some() || (!joins.is_empty() && linux.has("user"));
    let maps = made("user").then(|| Maps { uid: linux.uid_mappings.clone(), gid: linux.gid_mappings.clone() });
    let v1 = host.cgroups.location.v1().next().is_some();
    let child_waits = maps.is_some() || v1;
    if staged {
        let flags = if time_offsets.is_some() { flags & !0x80 } else { flags };
        return Spawn { flags, join_pid: None, staged: Some(Staged { joins, time_offsets }), maps, child_waits };
    }
    let join_pid = joins.into_iter().find(|j| j.kind == libc::CLONE_NEWPID).map(|j| j.path);
    Spawn { flags, join_pid, staged: None, maps, child_waits }
}

/// The namespaces that the child itself joins on the direct way.
pub(crate) fn direct_joins(spec: &Spec, spawn: &Spawn) -> Vec<Join> {
    if spawn.staged.is_some() {
        return Vec::new();
    }
    spec.linux
        .namespaces
        .iter()
        .filter(|n| !n.path.as_os_str().is_empty() && n.kind != "pid")
        .map(|n| Join { kind: namespace_flag(&n.kind), path: n.path.clone() })
        .collect()
}

/// The rootfs, absolute.
pub fn rootfs_path(spec: &Spec, bundle: &Path) -> PathBuf {
    spec.root.as_ref().map(|r| bundle.join(&r.path)).unwrap_or_default()
}
