//! What this host is and allows, read once at start. Decisions take these facts as values, so that tests can make a host up.

use std::fs;
use std::path::{Path, PathBuf};

/// Names of resource limits as `--ulimit` has them.
pub const RLIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

const CAP_SYS_RESOURCE: u64 = 1 << 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy at /sys/fs/cgroup.
    V2,
    /// One per controller, with or without a v2 tree beside them.
    V1,
}

#[derive(Clone, Debug)]
pub struct HostFacts {
    pub hostname: String,
    pub cpus: u32,
    /// The kernel's lists of what is online, such as `0-3`; empty where it does not tell.
    pub cpu_list: String,
    pub memory_nodes: String,
    /// Bytes.
    pub memory: u64,
    pub kernel: String,
    pub machine: String,
    pub cgroup: CgroupVersion,
    /// Controllers that limits can use.
    pub controllers: Vec<String>,
    /// The manager's capability bounding set.
    pub bounding: u64,
    /// The lowest `oom_score_adj` that we may give.
    pub oom_score_adj_floor: i32,
    /// The hard limit of open files of the manager.
    pub nofile_hard: u64,
    pub seccomp: bool,
}

impl HostFacts {
    pub fn probe() -> Self {
        let uname = rustix::system::uname();
        let text = |bytes: &std::ffi::CStr| bytes.to_string_lossy().into_owned();
        let bounding = status_field("CapBnd").and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or(0);
        let effective = status_field("CapEff").and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or(0);
        let own_score: i32 = fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let (cgroup, controllers) = cgroups(Path::new("/sys/fs/cgroup"));
        Self {
            hostname: text(uname.nodename()),
            cpu_list: online("cpu"),
            memory_nodes: online("node"),
            cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            memory: memory_total(),
            kernel: text(uname.release()),
            machine: text(uname.machine()),
            cgroup,
            controllers,
            bounding,
            oom_score_adj_floor: if effective & CAP_SYS_RESOURCE != 0 { -1000 } else { own_score },
            nofile_hard: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX),
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        }
    }

    pub fn may_raise_limits(&self) -> bool {
        self.bounding & CAP_SYS_RESOURCE != 0
    }

    /// The highest hard limit that we may give, where there is one.
    pub fn rlimit_ceiling(&self, name: &str) -> Option<u64> {
        if self.may_raise_limits() {
            return None;
        }
        use rustix::process::{Resource, getrlimit};
        let resource = match name {
            "as" => Resource::As,
            "core" => Resource::Core,
            "cpu" => Resource::Cpu,
            "data" => Resource::Data,
            "fsize" => Resource::Fsize,
            "locks" => Resource::Locks,
            "memlock" => Resource::Memlock,
            "msgqueue" => Resource::Msgqueue,
            "nice" => Resource::Nice,
            "nofile" => return Some(self.nofile_hard),
            "nproc" => Resource::Nproc,
            "rss" => Resource::Rss,
            "rtprio" => Resource::Rtprio,
            "rttime" => Resource::Rttime,
            "sigpending" => Resource::Sigpending,
            "stack" => Resource::Stack,
            _ => return None,
        };
        getrlimit(resource).maximum
    }

    pub fn has_controller(&self, name: &str) -> bool {
        self.controllers.iter().any(|known| known == name)
    }
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

fn memory_total() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The version and the controllers: v2's own file, or the directories of v1.
fn cgroups(root: &Path) -> (CgroupVersion, Vec<String>) {
    if let Ok(text) = fs::read_to_string(root.join("cgroup.controllers")) {
        return (CgroupVersion::V2, text.split_whitespace().map(str::to_owned).collect());
    }
    let known = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"];
    let present = known.into_iter().filter(|name| root.join(name).is_dir()).map(str::to_owned);
    (CgroupVersion::V1, present.collect())
}

/// A block device's numbers, for limits that name it.
pub fn device_numbers(path: &str) -> std::io::Result<(rustix::fs::FileType, u32, u32)> {
    let stat = rustix::fs::stat(path)?;
    Ok((rustix::fs::FileType::from_raw_mode(stat.st_mode), rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)))
}

/// Every device node under /dev, for privileged containers.
pub fn all_devices() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![PathBuf::from("/dev")];
    while let Some(directory) = queue.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            let skipped = ["/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev"];
            if skipped.iter().any(|skip| path == Path::new(skip)) {
                continue;
            }
            if kind.is_dir() {
                queue.push(path);
            } else if std::os::unix::fs::FileTypeExt::is_block_device(&kind) || std::os::unix::fs::FileTypeExt::is_char_device(&kind) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn online(what: &str) -> String {
    let path = format!("/sys/devices/system/{what}/online");
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
impl HostFacts {
    /// A host with cgroup v2 and four CPUs that lacks CAP_SYS_RESOURCE.
    pub fn for_tests() -> Self {
        Self {
            hostname: "host".into(),
            cpus: 4,
            cpu_list: "0-3".into(),
            memory_nodes: "0".into(),
            memory: 8 << 30,
            kernel: "6.1.0".into(),
            machine: "x86_64".into(),
            cgroup: CgroupVersion::V2,
            controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
            bounding: !CAP_SYS_RESOURCE,
            oom_score_adj_floor: 0,
            nofile_hard: 20_000,
            seccomp: true,
        }
    }
}
