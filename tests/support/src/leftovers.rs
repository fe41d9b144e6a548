//! What a manager may have left on the host: processes, mounts, cgroups, files that carry its directory's name.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Processes whose command line mentions `needle`.
pub fn processes(needle: &str) -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = std::process::id().cast_signed();
    pids.filter(|pid| *pid != own)
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(needle).then_some((pid, line))
        })
        .collect()
}

/// Mount points below `dir`, deepest first.
pub fn mounts(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    below.reverse();
    below
}

/// Directories named `name` in any cgroup hierarchy's root, with everything below them, deepest first.
pub fn cgroups(name: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|entry| entry.path());
    let roots = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|hierarchy| hierarchy.join(name)).filter(|path| path.is_dir());
    let mut found = Vec::new();
    for root in roots {
        collect_dirs(&root, &mut found);
    }
    found
}

/// Ends every process of a cgroup; one that ended meanwhile is what we want.
pub fn kill_all(cgroup: &Path) {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
}

/// Ends what runs in the cgroups of that name and removes them, in all hierarchies; what does not go within `patience` stays.
pub fn end_cgroups(name: &str, patience: Duration) {
    let end = Instant::now() + patience;
    loop {
        let left = cgroups(name);
        if left.is_empty() || Instant::now() > end {
            return;
        }
        for cgroup in left {
            kill_all(&cgroup);
            // Refused as long as a process of it is on its way out.
            drop(fs::remove_dir(cgroup));
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn collect_dirs(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_dirs(&entry.path(), found);
        }
    }
    found.push(dir.to_owned());
}
