//! The kernel and the privileges we have on it.

use std::fs;
use std::path::Path;

use nix::sys::utsname::uname;
use procfs::process::Process;
use rcontainerd_types::{Finding, Severity};

use super::{finding, ok};

/// The oldest kernel that is tested (the new mount API, pidfds, clone3, `CLONE_INTO_CGROUP`).
const OLDEST_KERNEL: (u32, u32) = (5, 10);
/// Bits of capability(7).
const CAP_SYS_ADMIN: u64 = 21;
const CAP_SYS_RESOURCE: u64 = 24;

pub fn probe() -> Vec<Finding> {
    vec![kernel(), capabilities(), cgroups(), namespaces(), seccomp(), subordinate_ids()]
}

fn kernel() -> Finding {
    let release = match uname() {
        Ok(name) => name.release().to_string_lossy().into_owned(),
        Err(errno) => return finding(Severity::Broken, "kernel", format!("uname: {errno}"), "nothing can be told of this host", ""),
    };
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST_KERNEL {
        return ok("kernel", release);
    }
    finding(Severity::Degraded, "kernel", release, "older than 5.10, the oldest kernel this is tested on", "boot a newer kernel")
}

fn capabilities() -> Finding {
    let effective = Process::myself().and_then(|process| process.status()).map_or(0, |status| status.capeff);
    let has = |bit: u64| effective & (1 << bit) != 0;
    match (has(CAP_SYS_ADMIN), has(CAP_SYS_RESOURCE)) {
        (false, _) => {
            finding(Severity::Broken, "privileges", "no CAP_SYS_ADMIN", "no mounts, no namespaces: no containers", "run as root (sudo)")
        }
        (true, false) => finding(
            Severity::Degraded,
            "privileges",
            "root without CAP_SYS_RESOURCE",
            "oom_score_adj cannot be lowered, hard limits cannot be raised; such requests are clamped or refused",
            "grant CAP_SYS_RESOURCE, if containers need it",
        ),
        (true, true) => ok("privileges", "root with all that is needed"),
    }
}

fn cgroups() -> Finding {
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    if let Ok(controllers) = unified {
        let missing: Vec<&str> = ["cpu", "memory", "pids", "io"]
            .into_iter()
            .filter(|wanted| !controllers.split_whitespace().any(|have| have == *wanted))
            .collect();
        if missing.is_empty() {
            return ok("cgroups", format!("v2 with {}", controllers.trim()));
        }
        let cost = format!("limits by {} are refused", missing.join(", "));
        return finding(
            Severity::Degraded,
            "cgroups",
            format!("v2 without {}", missing.join(", ")),
            &cost,
            "enable the controllers in the parent's cgroup.subtree_control",
        );
    }
    let missing: Vec<&str> = ["cpu", "memory", "pids", "devices", "freezer"]
        .into_iter()
        .filter(|name| !Path::new("/sys/fs/cgroup").join(name).is_dir())
        .collect();
    if missing.len() == 5 {
        return finding(
            Severity::Broken,
            "cgroups",
            "nothing is mounted at /sys/fs/cgroup",
            "no limits, no freezing, no device rules",
            "mount -t cgroup2 none /sys/fs/cgroup",
        );
    }
    if missing.is_empty() {
        return finding(
            Severity::Degraded,
            "cgroups",
            "v1",
            "memory pressure (PSI) and atomic placement need v2",
            "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)",
        );
    }
    let cost = format!("limits by {} are refused", missing.join(", "));
    finding(Severity::Degraded, "cgroups", format!("v1 without {}", missing.join(", ")), &cost, "mount the missing controllers")
}

fn namespaces() -> Finding {
    let missing: Vec<&str> =
        ["pid", "mnt", "net", "ipc", "uts"].into_iter().filter(|kind| !Path::new("/proc/self/ns").join(kind).exists()).collect();
    if !missing.is_empty() {
        let observed = format!("the kernel lacks {}", missing.join(", "));
        return finding(Severity::Broken, "namespaces", observed, "no containers", "boot a kernel built with them");
    }
    let lacking: Vec<&str> =
        ["user", "cgroup", "time"].into_iter().filter(|kind| !Path::new("/proc/self/ns").join(kind).exists()).collect();
    if lacking.is_empty() {
        return ok("namespaces", "pid, mnt, net, ipc, uts, user, cgroup, time");
    }
    let cost = format!("containers cannot have {} namespaces of their own", lacking.join(", "));
    finding(Severity::Degraded, "namespaces", format!("the kernel lacks {}", lacking.join(", ")), &cost, "boot a kernel built with them")
}

fn seccomp() -> Finding {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) => ok("seccomp", actions.trim()),
        Err(_) => finding(
            Severity::Degraded,
            "seccomp",
            "the kernel has no seccomp filters",
            "containers must run with --security-opt seccomp=unconfined: one wall less",
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

fn subordinate_ids() -> Finding {
    if crate::programs::find("newuidmap").is_some() {
        return ok("newuidmap", "there");
    }
    finding(
        Severity::Degraded,
        "newuidmap",
        "not installed",
        "ordinary users cannot run rrun with more than one id",
        "apt-get install uidmap",
    )
}
