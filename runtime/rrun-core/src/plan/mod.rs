//! Spec + HostFacts → Plan: everything that can be decided before a process exists is decided here, without touching anything.

mod mount;
mod numbers;
mod process;
mod steps;

use std::path::{Path, PathBuf};

pub use mount::{
    ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_NOSYMFOLLOW, ATTR_RDONLY, Attrs, IdMap, MapSource, MountStep, SUPERBLOCK, What,
    plan_cgroup_mount, plan_mount, propagation,
};
pub(crate) use numbers::mask as number_mask;
pub use process::{Identity, ProcessPlan, io_class, memory_policy, plan_process, rlimit_number, scheduler_flag, scheduler_policy};
use steps::init_steps;
pub(crate) use steps::keyring_name;
pub(crate) use steps::sysctl_path;
pub use steps::{DeviceStep, ExecPlan, Filter, InitStep, exec_steps};

use crate::netdev::NetDevice;
use crate::rdt::Wanted;
use crate::spec::{IdMapping, Spec};
use crate::{Error, Result};

/// What the plan needs to know of the host.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    /// The capabilities that this process may hand on.
    pub capabilities: u64,
    /// Not root in the first user namespace: some writes are not possible.
    pub rootless: bool,
    /// Root of another user namespace than the first.
    pub in_user_namespace: bool,
    /// The container's cgroups, if it has any.
    pub cgroups: CgroupView,
    /// Whether /proc/kcore exists (for /dev/core).
    pub has_kcore: bool,
    /// Whether SELinux is active; only looked at where a label is given.
    pub selinux: bool,
    /// The same for AppArmor.
    pub apparmor: bool,
}

/// The directories of the container's cgroup.
#[derive(Debug, Clone, Default)]
pub struct CgroupView {
    pub location: rrun_cgroup::Location,
    /// They are made for the container by this runtime, whose rights over them are root's.
    pub ours: bool,
}

/// What the caller asked for beside config.json.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    pub id: String,
    pub bundle: PathBuf,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub preserve_fds: u32,
    /// Of these, so many are sockets that the container's first process listens on (sd_listen_fds(3)).
    pub listen_fds: u32,
    pub filter: Filter,
}

/// How the container is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub spawn: Spawn,
    pub steps: Vec<InitStep>,
    /// Moved to the container by the parent.
    pub net_devices: Vec<NetDevice>,
    /// The group of resctrl that its processes are in.
    pub rdt: Option<Wanted>,
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
    /// Files of v1 cgroups that the child writes itself into, instead of being moved by the parent.
    pub entrances: Vec<PathBuf>,
}

/// What the process in between does before it clones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staged {
    pub joins: Vec<Join>,
    /// A user namespace is made here, before the time namespace that is to belong to it; the parent maps it.
    pub maps: Option<Maps>,
    /// Lines for /proc/self/timens_offsets; the time namespace is made when Some.
    pub time_offsets: Option<String>,
    /// Exec without the rights of the first user namespace: those of the container's namespaces that are joined here (`CLONE_NEW*`),
    /// by a process that has no way back and needs none.
    pub container: Option<i32>,
    /// Set here where it cannot be set later.
    pub oom_score_adj: Option<i32>,
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
        without_mount_namespace(spec, host, options)?;
    }
    labels(spec, host)?;
    let mut warnings = Vec::new();
    if let Some(p) = spec.linux.personality.as_ref().filter(|p| !p.flags.is_empty()) {
        warnings.push(format!("ignoring personality flags {:?}: the specification defines none", p.flags));
    }
    let net_devices = net_devices(spec, host)?;
    let spawn = spawn(spec, host);
    let steps = init_steps(spec, host, options, &spawn, &mut warnings)?;
    let rdt = spec.linux.intel_rdt.as_ref().map(Wanted::new);
    Ok(Plan { spawn, steps, net_devices, rdt, warnings })
}

/// Where the mounts of a container are the host's, too, what could not be taken back without harm to the host is refused.
fn without_mount_namespace(spec: &Spec, host: &HostFacts, options: &CreateOptions) -> Result<()> {
    let refuse =
        |path: &str, why: &str| Err(Error::invalid(format!("config.json: {path}: needs a mount namespace in linux.namespaces: {why}")));
    if spec.linux.has("user") || host.rootless {
        return refuse("linux.namespaces", "in another one a user namespace gives no right to mount");
    }
    if rootfs_path(spec, &options.bundle) == Path::new("/") {
        return refuse("root.path: \"/\"", "the container's mounts would lie over the host's root");
    }
    let kind = propagation(&spec.linux.rootfs_propagation).unwrap_or_default();
    if kind & libc::MS_SHARED != 0 {
        return refuse(
            &format!("linux.rootfsPropagation: {:?}", spec.linux.rootfs_propagation),
            "what is mounted in the container would stay on the host",
        );
    }
    match spec.mounts.iter().position(|m| m.options.iter().any(|option| option == "move")) {
        Some(n) => refuse(&format!("mounts[{n}].options: \"move\""), "the host would lose this mount"),
        None => Ok(()),
    }
}

/// Moving a device takes rights over both namespaces.
fn net_devices(spec: &Spec, host: &HostFacts) -> Result<Vec<NetDevice>> {
    if host.rootless && !spec.linux.net_devices.is_empty() {
        return Err(Error::invalid(
            "config.json: linux.netDevices: network devices are not supported for rootless containers: remove them",
        ));
    }
    let named = |(host, device): (&String, &crate::spec::NetDevice)| {
        let name = if device.name.is_empty() { host } else { &device.name };
        NetDevice { host: host.clone(), name: name.clone() }
    };
    Ok(spec.linux.net_devices.iter().map(named).collect())
}

/// A label that nobody enforces is no label.
fn labels(spec: &Spec, host: &HostFacts) -> Result<()> {
    let process = spec.process.as_ref().map(|p| p.selinux_label.as_str()).unwrap_or_default();
    for (path, label) in [("process.selinuxLabel", process), ("linux.mountLabel", spec.linux.mount_label.as_str())] {
        if !label.is_empty() && !host.selinux {
            return Err(Error::invalid(format!(
                "config.json: {path}: {label:?}: selinux label is specified in config, but selinux is disabled or not supported: remove it"
            )));
        }
    }
    let profile = spec.process.as_ref().map(|p| p.apparmor_profile.as_str()).unwrap_or_default();
    if !profile.is_empty() && !host.apparmor {
        return Err(Error::invalid(format!(
            "config.json: process.apparmorProfile: {profile:?}: apparmor is not enabled on this host: remove it"
        )));
    }
    Ok(())
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
    let no_way_back = host.in_user_namespace && joins.iter().any(|j| j.kind == libc::CLONE_NEWPID);
    let staged = time_offsets.is_some() || no_way_back || (!joins.is_empty() && linux.has("user"));
    let maps = made("user").then(|| Maps { uid: linux.uid_mappings.clone(), gid: linux.gid_mappings.clone() });
    let v1 = host.cgroups.location.v1().next().is_some();
    let by_systemd = host.cgroups.location.unit.is_some();
    // In a user namespace the child has no right to them.
    let alone = !staged && !by_systemd && host.cgroups.ours && !linux.has("user");
    let entrances = if alone { entrances(&host.cgroups.location) } else { Vec::new() };
    let moved = v1 && entrances.is_empty();
    let child_waits = maps.is_some() || moved || by_systemd || !linux.net_devices.is_empty() || linux.intel_rdt.is_some();
    if staged {
        // The process in between may have lost the right to the cgroup with the user namespace that it has joined: the parent moves
        // the child instead.
        let child_waits = child_waits || !host.cgroups.location.dirs.is_empty();
        let (flags, maps, maps_here) = match time_offsets {
            Some(_) => (flags & !0x80 & !(libc::CLONE_NEWUSER as u64), None, maps),
            None => (flags, maps, None),
        };
        let staged = Some(Staged { joins, maps: maps_here, time_offsets, ..Staged::default() });
        return Spawn { flags, join_pid: None, staged, maps, child_waits, entrances };
    }
    let join_pid = joins.into_iter().find(|j| j.kind == libc::CLONE_NEWPID).map(|j| j.path);
    Spawn { flags, join_pid, staged: None, maps, child_waits, entrances }
}

/// Where a thread enters v1 cgroups by writing `0`. Of all ways into a cgroup but CLONE_INTO_CGROUP it is the only one for which the
/// kernel need not stop every fork and exit of the machine and wait for them (cgroup_procs_write_start(), Linux 5.19).
pub(crate) fn entrances(location: &rrun_cgroup::Location) -> Vec<PathBuf> {
    let mut dirs: Vec<&rrun_cgroup::Dir> = location.v1().collect();
    // It may be frozen, and whoever enters it with it.
    dirs.sort_by_key(|dir| dir.controllers.iter().any(|c| c == "freezer"));
    dirs.into_iter().map(|dir| dir.path.join("tasks")).collect()
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

/// A path without `.` and `..`, by name alone.
pub(crate) fn normal_path(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// The rootfs, absolute.
pub fn rootfs_path(spec: &Spec, bundle: &Path) -> PathBuf {
    spec.root.as_ref().map(|r| bundle.join(&r.path)).unwrap_or_default()
}
