//! Stats: the cgroup's own files and the interface counters.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcontainerd_types::Result;

use super::commands::{NetworkStats, StatsSample};
use super::registry::Entry;
use crate::engine::Engine;
use crate::host::CgroupVersion;

const ROOT: &str = "/sys/fs/cgroup";

pub(super) fn sample(engine: &Engine, entry: &Entry) -> Result<StatsSample> {
    let pid = entry.view().state.pid;
    if entry.live().is_none() || pid == 0 {
        return Ok(StatsSample::default());
    }
    let mut sample = StatsSample { read: Some(Timestamp::now()), online_cpus: engine.host.cpus, ..StatsSample::default() };
    sample.system_cpu = system_cpu();
    match engine.host.cgroup {
        CgroupVersion::V2 => unified(&mut sample, &cgroup_of(pid, "")),
        CgroupVersion::V1 => legacy(&mut sample, pid),
    }
    if sample.memory_limit == 0 {
        sample.memory_limit = engine.host.memory;
    }
    sample.networks = interfaces(pid);
    Ok(sample)
}

/// The directory of a process's cgroup in a hierarchy (`""`: v2), by /proc/PID/cgroup (cgroups(7)).
fn cgroup_of(pid: u32, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1)?;
        controllers.split(',').any(|name| name == controller).then(|| fields.next().unwrap_or("/"))
    });
    Path::new(ROOT).join(controller).join(path.unwrap_or("/").trim_start_matches('/'))
}

fn unified(sample: &mut StatsSample, dir: &Path) {
    let cpu = table(&dir.join("cpu.stat"));
    let micro = |key: &str| cpu.get(key).copied().unwrap_or(0) * 1000;
    (sample.cpu_total, sample.cpu_user, sample.cpu_kernel) = (micro("usage_usec"), micro("user_usec"), micro("system_usec"));
    sample.periods = cpu.get("nr_periods").copied().unwrap_or(0);
    sample.throttled_periods = cpu.get("nr_throttled").copied().unwrap_or(0);
    sample.throttled_time = micro("throttled_usec");
    sample.memory_usage = number(&dir.join("memory.current"));
    sample.memory_limit = number(&dir.join("memory.max"));
    sample.memory_stats = table(&dir.join("memory.stat"));
    sample.pids = number(&dir.join("pids.current"));
    sample.pids_limit = number(&dir.join("pids.max"));
    for line in fs::read_to_string(dir.join("io.stat")).unwrap_or_default().lines() {
        let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).unwrap_or(0);
        sample.blkio_read += value("rbytes=");
        sample.blkio_write += value("wbytes=");
    }
}

fn legacy(sample: &mut StatsSample, pid: u32) {
    let (cpuacct, cpu, memory) = (cgroup_of(pid, "cpuacct"), cgroup_of(pid, "cpu"), cgroup_of(pid, "memory"));
    sample.cpu_total = number(&cpuacct.join("cpuacct.usage"));
    sample.cpu_user = number(&cpuacct.join("cpuacct.usage_user"));
    sample.cpu_kernel = number(&cpuacct.join("cpuacct.usage_sys"));
    let throttling = table(&cpu.join("cpu.stat"));
    sample.periods = throttling.get("nr_periods").copied().unwrap_or(0);
    sample.throttled_periods = throttling.get("nr_throttled").copied().unwrap_or(0);
    sample.throttled_time = throttling.get("throttled_time").copied().unwrap_or(0);
    sample.memory_usage = number(&memory.join("memory.usage_in_bytes"));
    // v1 shows "no limit" as a number near the end of the address space.
    sample.memory_limit = Some(number(&memory.join("memory.limit_in_bytes"))).filter(|limit| *limit < 1 << 62).unwrap_or(0);
    sample.memory_stats = table(&memory.join("memory.stat"));
    let pids = cgroup_of(pid, "pids");
    sample.pids = number(&pids.join("pids.current"));
    sample.pids_limit = number(&pids.join("pids.max"));
    for line in fs::read_to_string(cgroup_of(pid, "blkio").join("blkio.throttle.io_service_bytes")).unwrap_or_default().lines() {
        let mut words = line.split_whitespace().skip(1);
        let (kind, bytes) = (words.next().unwrap_or_default(), words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0));
        match kind {
            "Read" => sample.blkio_read += bytes,
            "Write" => sample.blkio_write += bytes,
            _ => {}
        }
    }
}

/// 0 for `max` and for a file that is not there: the controller is off.
fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn table(path: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// Nanoseconds of all CPUs since boot, from /proc/stat's first line in ticks of 10 ms.
fn system_cpu() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: u64 =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8).filter_map(|word| word.parse::<u64>().ok()).sum();
    ticks * 10_000_000
}

/// The counters as the process sees them.
fn interfaces(pid: u32) -> BTreeMap<String, NetworkStats> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let parse = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let values: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = values[..] else {
            return None;
        };
        let stats = NetworkStats { rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped };
        Some((name.trim().to_owned(), stats)).filter(|(name, _)| name != "lo")
    };
    text.lines().skip(2).filter_map(parse).collect()
}
