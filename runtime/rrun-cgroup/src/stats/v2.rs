//! v2's files (Documentation/admin-guide/cgroup-v2.rst).

use std::path::Path;

use super::{BlkioEntry, HugetlbStats, MemoryEntry, MemoryEvents, Pressure, PressureLine, Stats, hugetlb_sizes, keyed, number, parse_list};
use crate::error::Result;
use crate::fsio;
use crate::location::Dir;

/// `all`: this tree is the only one; else only hugetlb can be here and not on v1.
pub(super) fn read(dir: &Dir, stats: &mut Stats, all: bool) -> Result<()> {
    if all {
        cpu(&dir.path, stats)?;
        memory(&dir.path, stats)?;
        pids(&dir.path, stats)?;
        io(&dir.path, stats)?;
        let list = |file: &str| Ok(parse_list(&fsio::read_if_there(&dir.path.join(file))?.unwrap_or_default()));
        stats.cpuset.cpus = list("cpuset.cpus.effective")?;
        stats.cpuset.mems = list("cpuset.mems.effective")?;
    }
    for size in hugetlb_sizes(dir, "max") {
        let events = keyed(&dir.path, &format!("hugetlb.{size}.events"))?;
        let entry = HugetlbStats {
            usage: number(&dir.path, &format!("hugetlb.{size}.current"))?,
            max: 0,
            failcnt: events.get("max").copied().unwrap_or(0),
        };
        stats.hugetlb.insert(size, entry);
    }
    Ok(())
}

fn cpu(dir: &Path, stats: &mut Stats) -> Result<()> {
    let values = keyed(dir, "cpu.stat")?;
    let nanoseconds = |key: &str| values.get(key).copied().unwrap_or(0) * 1000;
    stats.cpu.usage.total = nanoseconds("usage_usec");
    stats.cpu.usage.user = nanoseconds("user_usec");
    stats.cpu.usage.kernel = nanoseconds("system_usec");
    stats.cpu.throttling.periods = values.get("nr_periods").copied().unwrap_or(0);
    stats.cpu.throttling.throttled_periods = values.get("nr_throttled").copied().unwrap_or(0);
    stats.cpu.throttling.throttled_time = nanoseconds("throttled_usec");
    stats.cpu.psi = pressure(dir, "cpu.pressure")?;
    Ok(())
}

fn memory(dir: &Path, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    memory.raw = keyed(dir, "memory.stat")?;
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let events = keyed(dir, "memory.events")?;
    let event = |key: &str| events.get(key).copied().unwrap_or(0);
    memory.event_count =
        MemoryEvents { low: event("low"), high: event("high"), max: event("max"), oom: event("oom"), oom_kill: event("oom_kill") };
    memory.usage = MemoryEntry {
        limit: number(dir, "memory.max")?,
        usage: number(dir, "memory.current")?,
        max: number(dir, "memory.peak")?,
        failcnt: event("max"),
    };
    let swap_limit = number(dir, "memory.swap.max")?;
    memory.swap = MemoryEntry {
        limit: swap_limit.saturating_add(memory.usage.limit),
        usage: number(dir, "memory.swap.current")?.saturating_add(memory.usage.usage),
        max: 0,
        failcnt: keyed(dir, "memory.swap.events")?.get("fail").copied().unwrap_or(0),
    };
    memory.psi = pressure(dir, "memory.pressure")?;
    Ok(())
}

pub(super) fn pids(dir: &Path, stats: &mut Stats) -> Result<()> {
    stats.pids.current = number(dir, "pids.current")?;
    let limit = number(dir, "pids.max")?;
    stats.pids.limit = if limit == u64::MAX { 0 } else { limit };
    Ok(())
}

fn io(dir: &Path, stats: &mut Stats) -> Result<()> {
    let text = fsio::read_if_there(&dir.join("io.stat"))?.unwrap_or_default();
    let io = &mut stats.blkio;
    for (entry, bytes) in parse_io(&text) {
        let list = if bytes { &mut io.io_service_bytes_recursive } else { &mut io.io_serviced_recursive };
        list.push(entry);
    }
    io.psi = pressure(dir, "io.pressure")?;
    Ok(())
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`; true: bytes, false: operations. `Read`, `Write`, `Discard` as v1 names them.
fn parse_io(text: &str) -> Vec<(BlkioEntry, bool)> {
    const KEYS: [(&str, &str, bool); 6] = [
        ("rbytes", "Read", true),
        ("wbytes", "Write", true),
        ("dbytes", "Discard", true),
        ("rios", "Read", false),
        ("wios", "Write", false),
        ("dios", "Discard", false),
    ];
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (major, minor) = (major.parse().unwrap_or(0), minor.parse().unwrap_or(0));
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            if let Some((_, op, bytes)) = KEYS.iter().find(|(name, ..)| *name == key) {
                found.push((BlkioEntry { major, minor, op: (*op).into(), value: value.parse().unwrap_or(0) }, *bytes));
            }
        }
    }
    found
}

/// None if the kernel keeps no pressure information (EOPNOTSUPP with psi=0).
fn pressure(dir: &Path, file: &str) -> Result<Option<Pressure>> {
    match fsio::read_io(&dir.join(file)) {
        Ok(text) => Ok(Some(parse_pressure(&text))),
        Err(e) if fsio::is_gone(&e) || e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(e) => Err(crate::Error::io("read", &dir.join(file), e)),
    }
}

fn parse_pressure(text: &str) -> Pressure {
    let line = |name: &str| {
        let words = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let value = |key: &str| words.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let percent = |key: &str| value(key).and_then(|v| v.parse().ok()).unwrap_or(0.0);
        PressureLine {
            avg10: percent("avg10"),
            avg60: percent("avg60"),
            avg300: percent("avg300"),
            total: value("total").and_then(|v| v.parse().ok()).unwrap_or(0),
        }
    };
    Pressure { some: line("some "), full: line("full ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_stat_becomes_v1_entries() {
        let found = parse_io("254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:1 \n");
        assert_eq!(found.len(), 6);
        assert_eq!(found[1], (BlkioEntry { major: 254, minor: 0, op: "Write".into(), value: 20 }, true));
        assert!(!found[2].1);
    }

    #[test]
    fn pressure_lines() {
        let psi = parse_pressure("some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n");
        assert_eq!((psi.some.avg10, psi.some.avg60, psi.some.total, psi.full.total), (1.5, 0.25, 77, 5));
    }
}
