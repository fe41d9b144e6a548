//! v1's files (Documentation/admin-guide/cgroup-v1).

use std::path::Path;

use super::{BlkioEntry, HugetlbStats, MemoryEntry, Stats, hugetlb_sizes, keyed, number, parse_list};
use crate::error::Result;
use crate::fsio;
use crate::location::Dir;

/// USER_HZ is 100 on every architecture that Linux still supports for containers.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

pub(super) fn read(dir: &Dir, stats: &mut Stats) -> Result<()> {
    for controller in &dir.controllers {
        match controller.as_str() {
            "cpu" => cpu(&dir.path, stats)?,
            "cpuacct" => cpuacct(&dir.path, stats)?,
            "cpuset" => cpuset(&dir.path, stats)?,
            "memory" => memory(&dir.path, stats)?,
            "pids" => super::v2::pids(&dir.path, stats)?,
            "blkio" => blkio(&dir.path, stats)?,
            "hugetlb" => hugetlb(dir, stats)?,
            _ => {}
        }
    }
    Ok(())
}

fn cpu(dir: &Path, stats: &mut Stats) -> Result<()> {
    let values = keyed(dir, "cpu.stat")?;
    let get = |key: &str| values.get(key).copied().unwrap_or(0);
    stats.cpu.throttling.periods = get("nr_periods");
    stats.cpu.throttling.throttled_periods = get("nr_throttled");
    stats.cpu.throttling.throttled_time = get("throttled_time");
    Ok(())
}

fn cpuacct(dir: &Path, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = number(dir, "cpuacct.usage")?;
    let ticks = keyed(dir, "cpuacct.stat")?;
    usage.user = ticks.get("user").copied().unwrap_or(0) * NANOSECONDS_PER_TICK;
    usage.kernel = ticks.get("system").copied().unwrap_or(0) * NANOSECONDS_PER_TICK;
    // "cpu user system", then a line per CPU.
    let all = fsio::read_if_there(&dir.join("cpuacct.usage_all"))?.unwrap_or_default();
    for line in all.lines().skip(1) {
        let mut words = line.split_whitespace().skip(1).map(|word| word.parse().unwrap_or(0));
        usage.percpu_user.push(words.next().unwrap_or(0));
        usage.percpu_kernel.push(words.next().unwrap_or(0));
    }
    let percpu = fsio::read_if_there(&dir.join("cpuacct.usage_percpu"))?.unwrap_or_default();
    usage.percpu = percpu.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Ok(())
}

fn cpuset(dir: &Path, stats: &mut Stats) -> Result<()> {
    let list = |file: &str| Ok(parse_list(&fsio::read_if_there(&dir.join(file))?.unwrap_or_default()));
    let set = &mut stats.cpuset;
    set.cpus = list("cpuset.cpus")?;
    set.mems = list("cpuset.mems")?;
    set.cpu_exclusive = number(dir, "cpuset.cpu_exclusive")?;
    set.mem_hardwall = number(dir, "cpuset.mem_hardwall")?;
    set.mem_exclusive = number(dir, "cpuset.mem_exclusive")?;
    set.memory_migrate = number(dir, "cpuset.memory_migrate")?;
    set.memory_spread_page = number(dir, "cpuset.memory_spread_page")?;
    set.memory_spread_slab = number(dir, "cpuset.memory_spread_slab")?;
    set.memory_pressure = number(dir, "cpuset.memory_pressure")?;
    set.sched_load_balance = number(dir, "cpuset.sched_load_balance")?;
    let level = fsio::read_if_there(&dir.join("cpuset.sched_relax_domain_level"))?;
    set.sched_relax_domain_level = level.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Ok(())
}

fn memory(dir: &Path, stats: &mut Stats) -> Result<()> {
    let entry = |name: &str| -> Result<MemoryEntry> {
        Ok(MemoryEntry {
            limit: number(dir, &format!("memory.{name}limit_in_bytes"))?,
            usage: number(dir, &format!("memory.{name}usage_in_bytes"))?,
            max: number(dir, &format!("memory.{name}max_usage_in_bytes"))?,
            failcnt: number(dir, &format!("memory.{name}failcnt"))?,
        })
    };
    let memory = &mut stats.memory;
    memory.usage = entry("")?;
    memory.swap = entry("memsw.")?;
    memory.kernel = entry("kmem.")?;
    memory.kernel_tcp = entry("kmem.tcp.")?;
    memory.raw = keyed(dir, "memory.stat")?;
    // The hierarchical value, which is the plain one unless v1's use_hierarchy is off (gone since 5.11).
    memory.cache = memory.raw.get("total_cache").or(memory.raw.get("cache")).copied().unwrap_or(0);
    memory.event_count.oom_kill = keyed(dir, "memory.oom_control")?.get("oom_kill").copied().unwrap_or(0);
    Ok(())
}

/// BFQ's files where the scheduler has them, else those of the throttling layer, which sees every device.
fn blkio(dir: &Path, stats: &mut Stats) -> Result<()> {
    let entries = |files: &[&str]| -> Result<Vec<BlkioEntry>> {
        for file in files {
            let found = parse_blkio(&fsio::read_if_there(&dir.join(file))?.unwrap_or_default());
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    };
    let io = &mut stats.blkio;
    io.io_service_bytes_recursive = entries(&["blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"])?;
    io.io_serviced_recursive = entries(&["blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"])?;
    io.io_queued_recursive = entries(&["blkio.bfq.io_queued_recursive"])?;
    io.io_service_time_recursive = entries(&["blkio.bfq.io_service_time_recursive"])?;
    io.io_wait_time_recursive = entries(&["blkio.bfq.io_wait_time_recursive"])?;
    io.io_merged_recursive = entries(&["blkio.bfq.io_merged_recursive"])?;
    io.io_time_recursive = entries(&["blkio.bfq.time_recursive"])?;
    io.sectors_recursive = entries(&["blkio.bfq.sectors_recursive"])?;
    Ok(())
}

/// `8:0 Read 4096`, `8:0 17`; the `Total N` line at the end has no device and is left out.
fn parse_blkio(text: &str) -> Vec<BlkioEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let second = words.next()?;
            let (op, value) = words.next().map_or(("", second), |value| (second, value));
            Some(BlkioEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, op: op.into(), value: value.parse().ok()? })
        })
        .collect()
}

fn hugetlb(dir: &Dir, stats: &mut Stats) -> Result<()> {
    for size in hugetlb_sizes(dir, "limit_in_bytes") {
        let file = |name: &str| number(&dir.path, &format!("hugetlb.{size}.{name}"));
        let entry = HugetlbStats { usage: file("usage_in_bytes")?, max: file("max_usage_in_bytes")?, failcnt: file("failcnt")? };
        stats.hugetlb.insert(size, entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blkio_lines_with_and_without_an_operation() {
        let found = parse_blkio("254:0 Read 4096\n254:0 Total 4096\n8:16 7\nTotal 4096\n");
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], BlkioEntry { major: 254, minor: 0, op: "Read".into(), value: 4096 });
        assert_eq!(found[2], BlkioEntry { major: 8, minor: 16, op: String::new(), value: 7 });
    }
}
