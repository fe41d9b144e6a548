//! Whether the processes of a container are what config.json makes of them. criu takes all of it from the image: it is looked at once
//! everything is restored, and before any of it has run.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rrun_cgroup::Cgroup;
use rrun_sys::fs::{self, FileType, OFlags};

use super::mounts::{self, Mounts, View};
use crate::init::is_null_device;
use crate::plan::{Plan, namespace_flag, plan_process};
use crate::spec::{IdMapping, Linux, Process, Spec};
use crate::{Context, Error, Result};

/// What is compared with.
#[derive(Debug)]
pub struct Expected<'a> {
    pub spec: &'a Spec,
    pub mounts: &'a Mounts,
    pub rootfs: &'a Path,
    /// Its own, or the one that its mounts show.
    pub cgroup: &'a rrun_cgroup::Location,
    /// Capabilities that can be given.
    pub available: u64,
    /// The caller asked for another one than config.json does.
    pub other_lsm_profile: bool,
    /// Files from outside that its processes were given: (device, inode).
    pub given: Vec<(u64, u64)>,
    /// Who restores, and is in the container's cgroup meanwhile.
    pub criu: Option<i32>,
}

/// The runtime's names of namespaces, and the kernel's.
const NAMESPACES: [(&str, &str); 8] = [
    ("mount", "mnt"),
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

impl Expected<'_> {
    /// Where the first process is: its namespaces, its root, its mounts.
    pub fn place(&self, init: i32) -> Result<()> {
        self.namespaces(init, true)?;
        let root = open(&format!("/proc/{init}/root"))?;
        let table = mounts::table(&init.to_string())?;
        let host = mounts::table("self")?;
        let (theirs, ours) = (fs::fstat(&root)?, fs::fstat(open(&self.rootfs.display().to_string())?)?);
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino) {
            return Err(Error::state(format!("its root directory is not {}", self.rootfs.display())));
        }
        let view = View { mounts: self.mounts, root: &root, table: &table, host: &host, cgroup: self.cgroup };
        view.judge()
    }

    /// The first process and all others of its cgroup: where they are, and what they may and hold.
    pub fn judge(&self, init: i32, cgroup: Option<&Cgroup>) -> Result<()> {
        self.place(init)?;
        let mut all = cgroup.map(Cgroup::pids).transpose()?.unwrap_or_default();
        if !all.contains(&init) {
            if cgroup.is_some() {
                return Err(Error::state("its first process is not in its cgroup"));
            }
            all.push(init);
        }
        all.retain(|pid| !self.is_criu(*pid));
        all.into_iter().try_for_each(|pid| match self.process(pid) {
            // Of a container that runs, processes end while they are looked at.
            Err(_) if pid != init && status(pid)?.is_none() => Ok(()),
            done => done.doing(|| format!("process {pid}")),
        })
    }

    /// criu, or one of its helpers. What it restores is nobody's child of its own: the first process is this one's, the others are that one's.
    fn is_criu(&self, pid: i32) -> bool {
        let Some(criu) = self.criu else { return false };
        let child = || status(pid).ok().flatten().is_some_and(|status| field(&status, "PPid") == Some(&criu.to_string()));
        let program = |pid: i32| identity(&format!("/proc/{pid}/exe")).ok();
        pid == criu || child() && program(pid).is_some() && program(pid) == program(criu)
    }

    fn process(&self, pid: i32) -> Result<()> {
        let Some(status) = status(pid)? else { return Ok(()) };
        self.namespaces(pid, true)?;
        self.maps(pid)?;
        self.rights(&status)?;
        self.limits(pid)?;
        self.labels(pid)?;
        files(pid, &self.given)
    }

    /// Those that config.json makes are the container's own, those that it names are these, the rest is the runtime's. criu always
    /// makes a time namespace, by which clocks go on where they were, and later than the others.
    pub fn namespaces(&self, pid: i32, with_clocks: bool) -> Result<()> {
        for (name, file) in NAMESPACES.into_iter().filter(|(name, _)| with_clocks || *name != "time") {
            let number = |pid: &str| inode(&format!("/proc/{pid}/ns/{file}"));
            let (theirs, ours) = (number(&pid.to_string())?, number("self")?);
            let fits = match self.spec.linux.namespace(name) {
                Some(namespace) if namespace.path.as_os_str().is_empty() => theirs != ours,
                Some(namespace) => theirs == inode(&namespace.path.display().to_string())?,
                None => theirs == ours || name == "time",
            };
            if !fits {
                return Err(Error::state(format!("its {name} namespace is not the one that config.json asks for")));
            }
        }
        Ok(())
    }

    fn maps(&self, pid: i32) -> Result<()> {
        let linux = &self.spec.linux;
        if !linux.makes("user") {
            return Ok(());
        }
        for (file, wanted) in [("uid_map", &linux.uid_mappings), ("gid_map", &linux.gid_mappings)] {
            let text = read(&format!("/proc/{pid}/{file}"))?;
            if !same_maps(&text, wanted) {
                return Err(Error::state(format!("its {file} is not config.json's")));
            }
        }
        Ok(())
    }

    fn rights(&self, status: &str) -> Result<()> {
        let default = Process::default();
        let process = self.spec.process.as_ref().unwrap_or(&default);
        let available = if self.spec.linux.has("user") { u64::MAX } else { self.available };
        let caps = plan_process(process, available, &mut Vec::new()).identity.caps.unwrap_or_default();
        let any = caps.bounding | caps.permitted | caps.inheritable;
        for (set, allowed) in
            [("CapBnd", caps.bounding), ("CapPrm", any), ("CapEff", any), ("CapInh", caps.inheritable), ("CapAmb", caps.ambient)]
        {
            let theirs = field(status, set).and_then(|hex| u64::from_str_radix(hex, 16).ok());
            let more = theirs.ok_or_else(|| Error::state(format!("/proc: no {set} in status")))? & !allowed;
            if more != 0 {
                return Err(Error::state(format!(
                    "it has more capabilities than config.json gives: {}",
                    crate::caps::names(more).join(", ")
                )));
            }
        }
        if process.no_new_privileges && field(status, "NoNewPrivs") != Some("1") {
            return Err(Error::state("it may gain privileges (no_new_privs is not set)"));
        }
        if filters(&self.spec.linux) && field(status, "Seccomp") != Some("2") {
            return Err(Error::state("it has no seccomp filter"));
        }
        Ok(())
    }

    fn limits(&self, pid: i32) -> Result<()> {
        let Some(process) = &self.spec.process else { return Ok(()) };
        let limits = read(&format!("/proc/{pid}/limits"))?;
        for limit in &process.rlimits {
            if let Some(theirs) = hard_limit(&limits, &limit.kind)
                && theirs > limit.hard
            {
                return Err(Error::state(format!("its limit {} is {theirs}, above config.json's {}", limit.kind, limit.hard)));
            }
        }
        let ours = read("/proc/self/oom_score_adj")?.trim().parse().unwrap_or(0);
        let least: i32 = process.oom_score_adj.unwrap_or(ours);
        let theirs: i32 = read(&format!("/proc/{pid}/oom_score_adj"))?.trim().parse().unwrap_or(i32::MIN);
        if theirs < least {
            return Err(Error::state(format!("its oom_score_adj is {theirs}, below {least}")));
        }
        Ok(())
    }

    fn labels(&self, pid: i32) -> Result<()> {
        let Some(process) = self.spec.process.as_ref().filter(|_| !self.other_lsm_profile) else { return Ok(()) };
        for (wanted, file) in [(&process.apparmor_profile, "attr/apparmor/current"), (&process.selinux_label, "attr/current")] {
            if wanted.is_empty() {
                continue;
            }
            let theirs = read(&format!("/proc/{pid}/{file}"))?;
            let theirs = theirs.trim_end_matches(['\n', '\0']);
            if theirs != wanted && theirs.split(" (").next() != Some(wanted) {
                return Err(Error::state(format!("its label is {theirs:?}, not {wanted:?}")));
            }
        }
        Ok(())
    }
}

fn filters(linux: &Linux) -> bool {
    linux.seccomp.is_some()
}

/// Whether a descriptor of this process's is a pipe or a socket.
pub fn is_stream(number: i32) -> bool {
    let kind = open(&format!("/proc/self/fd/{number}")).and_then(|file| Ok(FileType::from_raw_mode(fs::fstat(&file)?.st_mode)));
    kind.is_ok_and(|kind| matches!(kind, FileType::Fifo | FileType::Socket))
}

/// The files that a process has as 0, 1 and 2.
pub fn stdio(pid: &str) -> Vec<(u64, u64)> {
    (0..3).filter_map(|n| identity(&format!("/proc/{pid}/fd/{n}")).ok()).collect()
}

/// Whatever a process holds open, has mapped or stands in lies on a mount that it sees, is among the files that are `given`, or the null
/// device, which is nobody's.
fn files(pid: i32, given: &[(u64, u64)]) -> Result<()> {
    let seen: Vec<u64> = mounts::table(&pid.to_string())?.iter().map(|entry| entry.id).collect();
    let mut links: Vec<String> = ["cwd", "root", "exe"].iter().map(|name| format!("/proc/{pid}/{name}")).collect();
    for dir in ["fd", "map_files"] {
        let path = format!("/proc/{pid}/{dir}");
        let entries = std::fs::read_dir(&path).map_err(|e| Error::io("read directory", Path::new(&path), &e))?;
        links.extend(entries.filter_map(|entry| Some(entry.ok()?.path().display().to_string())));
    }
    for link in links {
        let file = match fs::openat(fs::CWD, Path::new(&link), OFlags::PATH, 0) {
            Err(e) if e.is(libc::ENOENT) => continue,
            done => done?,
        };
        let stat = fs::fstat(&file)?;
        use FileType::{BlockDevice, CharacterDevice, Directory, RegularFile};
        let is_somewhere = matches!(FileType::from_raw_mode(stat.st_mode), RegularFile | Directory | CharacterDevice | BlockDevice);
        let known = given.contains(&(stat.st_dev, stat.st_ino)) || is_null_device(&stat);
        if !is_somewhere || known || seen.contains(&fs::mount_ids(&file)?.mount_id) {
            continue;
        }
        let name = std::fs::read_link(&link).unwrap_or_default().display().to_string();
        if !is_memory(&name, &file)? {
            return Err(Error::state(format!("{link} is {name}, which no mount of the container shows")));
        }
    }
    Ok(())
}

/// Memory that looks like a file: the kernel's own mount of it is nobody's.
fn is_memory(name: &str, file: &OwnedFd) -> Result<bool> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    const ANON_INODE_MAGIC: i64 = 0x0904_1934;
    const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
    let kind = fs::fstatfs(file)?.f_type;
    let named = ["/memfd:", "/SYSV", "/dev/zero (deleted)", "/anon_hugepage"].iter().any(|start| name.starts_with(start));
    Ok(kind == ANON_INODE_MAGIC || named && (kind == TMPFS_MAGIC || kind == HUGETLBFS_MAGIC))
}

fn open(path: &str) -> Result<OwnedFd> {
    Ok(fs::openat(fs::CWD, Path::new(path), OFlags::PATH, 0)?)
}

fn identity(path: &str) -> Result<(u64, u64)> {
    let stat = fs::fstat(open(path)?)?;
    Ok((stat.st_dev, stat.st_ino))
}

pub fn inode(path: &str) -> Result<u64> {
    std::fs::metadata(path).map(|meta| meta.ino()).map_err(|e| Error::io("stat", Path::new(path), &e))
}

fn read(path: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read_file(Path::new(path), 1 << 16)?).into_owned())
}

/// None: it has ended.
fn status(pid: i32) -> Result<Option<String>> {
    match fs::read_file(Path::new(&format!("/proc/{pid}/status")), 1 << 16) {
        Err(e) if e.is(libc::ENOENT) || e.is(libc::ESRCH) => Ok(None),
        done => {
            let status = String::from_utf8_lossy(&done?).into_owned();
            let ended = field(&status, "State").is_some_and(|state| state.starts_with(['Z', 'X']));
            Ok((!ended).then_some(status))
        }
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

fn same_maps(text: &str, wanted: &[IdMapping]) -> bool {
    let mut theirs: Vec<Vec<u32>> = text.lines().map(|line| line.split_whitespace().filter_map(|n| n.parse().ok()).collect()).collect();
    let mut wanted: Vec<Vec<u32>> = wanted.iter().map(|m| vec![m.container_id, m.host_id, m.size]).collect();
    theirs.sort();
    wanted.sort();
    theirs == wanted
}

/// /proc/<pid>/limits has names of its own.
fn hard_limit(limits: &str, kind: &str) -> Option<u64> {
    const NAMES: [(&str, &str); 16] = [
        ("RLIMIT_CPU", "Max cpu time"),
        ("RLIMIT_FSIZE", "Max file size"),
        ("RLIMIT_DATA", "Max data size"),
        ("RLIMIT_STACK", "Max stack size"),
        ("RLIMIT_CORE", "Max core file size"),
        ("RLIMIT_RSS", "Max resident set"),
        ("RLIMIT_NPROC", "Max processes"),
        ("RLIMIT_NOFILE", "Max open files"),
        ("RLIMIT_MEMLOCK", "Max locked memory"),
        ("RLIMIT_AS", "Max address space"),
        ("RLIMIT_LOCKS", "Max file locks"),
        ("RLIMIT_SIGPENDING", "Max pending signals"),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
        ("RLIMIT_NICE", "Max nice priority"),
        ("RLIMIT_RTPRIO", "Max realtime priority"),
        ("RLIMIT_RTTIME", "Max realtime timeout"),
    ];
    let (_, name) = NAMES.iter().find(|(known, _)| *known == kind)?;
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match rest.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// What criu cannot bring back, or would bring back by the image's word alone.
pub fn refuse(spec: &Spec, plan: &Plan) -> Result<Mounts> {
    let linux = &spec.linux;
    if !linux.has("mount") {
        return Err(Error::invalid("config.json: linux.namespaces: checkpoint and restore need a mount namespace"));
    }
    let by_path = |kind: &str| linux.has(kind) && !linux.makes(kind);
    if let Some(kind) = ["mount", "user", "cgroup", "time"].into_iter().find(|kind| by_path(kind)) {
        return Err(Error::invalid(format!(
            "config.json: linux.namespaces: criu cannot restore into a {kind} namespace that exists: leave out its path"
        )));
    }
    debug_assert!(linux.namespaces.iter().all(|namespace| namespace_flag(&namespace.kind) != 0));
    if let Some(key) = spec.annotations.keys().find(|key| *key == "org.criu.config") {
        return Err(Error::invalid(format!(
            "config.json: annotations.{key}: is not followed: remove it, and write into /etc/criu/default.conf"
        )));
    }
    Mounts::of_plan(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(config: &str, check: impl FnOnce(&Expected<'_>)) {
        let json = format!(r#"{{"ociVersion": "1.2.0", "root": {{"path": "r"}}, {config}}}"#);
        let spec = crate::spec::parse_spec(json.as_bytes()).unwrap();
        check(&Expected {
            spec: &spec,
            mounts: &Mounts::default(),
            rootfs: Path::new("/"),
            cgroup: &rrun_cgroup::Location::default(),
            available: u64::MAX,
            other_lsm_profile: false,
            given: Vec::new(),
            criu: None,
        });
    }

    const STATUS: &str = "State:\tS (sleeping)\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\n\
        CapBnd:\t0000000000000020\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn rights_beyond_config_json_are_told() {
        let config = r#""process": {"args": ["x"], "cwd": "/", "noNewPrivileges": true, "capabilities":
            {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}}, "linux": {"seccomp": {"defaultAction": "x"}}"#;
        expected(config, |e| {
            let said = |status: &str| e.rights(status).map_or_else(|e| e.to_string(), |()| "ok".into());
            assert_eq!(said(STATUS), "ok");
            assert_eq!(
                said(&STATUS.replace("CapEff:\t0000000000000020", "CapEff:\t0000000000200020")),
                "it has more capabilities than config.json gives: CAP_SYS_ADMIN"
            );
            assert!(said(&STATUS.replace("CapBnd:\t0000000000000020", "CapBnd:\t000001ffffffffff")).contains("CAP_SYS_ADMIN"));
            assert!(said(&STATUS.replace("CapAmb:\t0000000000000000", "CapAmb:\t0000000000000020")).contains("CAP_KILL"));
            assert!(said(&STATUS.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0")).contains("no_new_privs"));
            assert!(said(&STATUS.replace("Seccomp:\t2", "Seccomp:\t0")).contains("no seccomp filter"));
            assert!(said("State: S\n").contains("CapBnd"));
        });
    }

    #[test]
    fn the_runtimes_own_namespaces_are_not_a_containers() {
        let own = i32::try_from(std::process::id()).unwrap();
        expected(r#""linux": {"namespaces": []}"#, |e| e.namespaces(own, true).unwrap());
        for kind in ["mount", "pid", "network", "ipc", "uts", "cgroup"] {
            expected(&format!(r#""linux": {{"namespaces": [{{"type": "{kind}"}}]}}"#), |e| {
                let said = e.namespaces(own, true).unwrap_err().to_string();
                assert_eq!(said, format!("its {kind} namespace is not the one that config.json asks for"));
            });
        }
        expected(r#""linux": {"namespaces": [{"type": "ipc", "path": "/proc/self/ns/ipc"}]}"#, |e| e.namespaces(own, true).unwrap());
        expected(r#""linux": {"namespaces": [{"type": "ipc", "path": "/proc/self/ns/uts"}]}"#, |e| {
            assert!(e.namespaces(own, true).is_err());
        });
    }

    #[test]
    fn limits_and_maps_are_compared_by_number() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max cpu time              unlimited            unlimited            seconds   \nMax open files            1024                 4096                 files     \n";
        assert_eq!(hard_limit(limits, "RLIMIT_CPU"), Some(u64::MAX));
        assert_eq!(hard_limit(limits, "RLIMIT_NOFILE"), Some(4096));
        let map = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        let text = "         0     100000       1000\n      1000       5000          1\n";
        assert!(same_maps(text, &[map(1000, 5000, 1), map(0, 100_000, 1000)]));
        assert!(!same_maps(text, &[map(0, 100_000, 1000)]));
        assert!(!same_maps("0 0 4294967295\n", &[map(0, 100_000, 1000)]));
    }

    #[test]
    fn what_this_process_holds_lies_on_its_own_mounts() {
        let own = std::process::id();
        files(i32::try_from(own).unwrap(), &stdio(&own.to_string())).unwrap();
    }
}
