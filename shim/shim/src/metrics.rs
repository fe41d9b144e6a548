//! Resource usage in containerd's two message forms.

use prost_types::Any;
use proto_containerd::cgroups::{v1, v2};
use rrun_cgroup::{BlkioEntry, MemoryEntry, Stats};

/// Version 2's form on a host with cgroup v2 alone, version 1's elsewhere.
pub fn message(stats: &Stats, pure_v2: bool) -> Any {
    if pure_v2 { crate::any(&metrics_v2(stats)) } else { crate::any(&metrics_v1(stats)) }
}

fn metrics_v1(stats: &Stats) -> v1::Metrics {
    let raw = |key: &str| stats.memory.raw.get(key).copied().unwrap_or(0);
    let usage = &stats.cpu.usage;
    v1::Metrics {
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, usage)| v1::HugetlbStat { usage: usage.usage, max: usage.max, failcnt: usage.failcnt, pagesize: size.clone() })
            .collect(),
        pids: Some(v1::PidsStat { current: stats.pids.current, limit: stats.pids.limit }),
        cpu: Some(v1::CpuStat {
            usage: Some(v1::CpuUsage { total: usage.total, kernel: usage.kernel, user: usage.user, per_cpu: usage.percpu.clone() }),
            throttling: Some(v1::Throttle {
                periods: stats.cpu.throttling.periods,
                throttled_periods: stats.cpu.throttling.throttled_periods,
                throttled_time: stats.cpu.throttling.throttled_time,
            }),
        }),
        memory: Some(memory_v1(stats, raw)),
        blkio: Some(blkio_v1(stats)),
        memory_oom_control: None,
        rdma: None,
        network: Vec::new(),
        cgroup_stats: None,
    }
}

fn memory_v1(stats: &Stats, raw: impl Fn(&str) -> u64) -> v1::MemoryStat {
    let entry =
        |entry: &MemoryEntry| Some(v1::MemoryEntry { limit: entry.limit, usage: entry.usage, max: entry.max, failcnt: entry.failcnt });
    v1::MemoryStat {
        cache: raw("cache"),
        rss: raw("rss"),
        rss_huge: raw("rss_huge"),
        mapped_file: raw("mapped_file"),
        dirty: raw("dirty"),
        writeback: raw("writeback"),
        pg_pg_in: raw("pgpgin"),
        pg_pg_out: raw("pgpgout"),
        pg_fault: raw("pgfault"),
        pg_maj_fault: raw("pgmajfault"),
        inactive_anon: raw("inactive_anon"),
        active_anon: raw("active_anon"),
        inactive_file: raw("inactive_file"),
        active_file: raw("active_file"),
        unevictable: raw("unevictable"),
        hierarchical_memory_limit: raw("hierarchical_memory_limit"),
        hierarchical_swap_limit: raw("hierarchical_memsw_limit"),
        total_cache: raw("total_cache"),
        total_rss: raw("total_rss"),
        total_rss_huge: raw("total_rss_huge"),
        total_mapped_file: raw("total_mapped_file"),
        total_dirty: raw("total_dirty"),
        total_writeback: raw("total_writeback"),
        total_pg_pg_in: raw("total_pgpgin"),
        total_pg_pg_out: raw("total_pgpgout"),
        total_pg_fault: raw("total_pgfault"),
        total_pg_maj_fault: raw("total_pgmajfault"),
        total_inactive_anon: raw("total_inactive_anon"),
        total_active_anon: raw("total_active_anon"),
        total_inactive_file: raw("total_inactive_file"),
        total_active_file: raw("total_active_file"),
        total_unevictable: raw("total_unevictable"),
        usage: entry(&stats.memory.usage),
        swap: entry(&stats.memory.swap),
        kernel: entry(&stats.memory.kernel),
        kernel_tcp: entry(&stats.memory.kernel_tcp),
    }
}

fn blkio_v1(stats: &Stats) -> v1::BlkIoStat {
    let entries = |entries: &[BlkioEntry]| {
        entries
            .iter()
            .map(|entry| v1::BlkIoEntry {
                op: entry.op.clone(),
                device: String::new(),
                major: entry.major,
                minor: entry.minor,
                value: entry.value,
            })
            .collect()
    };
    let blkio = &stats.blkio;
    v1::BlkIoStat {
        io_service_bytes_recursive: entries(&blkio.io_service_bytes_recursive),
        io_serviced_recursive: entries(&blkio.io_serviced_recursive),
        io_queued_recursive: entries(&blkio.io_queued_recursive),
        io_service_time_recursive: entries(&blkio.io_service_time_recursive),
        io_wait_time_recursive: entries(&blkio.io_wait_time_recursive),
        io_merged_recursive: entries(&blkio.io_merged_recursive),
        io_time_recursive: entries(&blkio.io_time_recursive),
        sectors_recursive: entries(&blkio.sectors_recursive),
    }
}

fn metrics_v2(stats: &Stats) -> v2::Metrics {
    let throttling = &stats.cpu.throttling;
    let events = &stats.memory.event_count;
    v2::Metrics {
        pids: Some(v2::PidsStat { current: stats.pids.current, limit: stats.pids.limit }),
        cpu: Some(v2::CpuStat {
            usage_usec: stats.cpu.usage.total / 1000,
            user_usec: stats.cpu.usage.user / 1000,
            system_usec: stats.cpu.usage.kernel / 1000,
            nr_periods: throttling.periods,
            nr_throttled: throttling.throttled_periods,
            throttled_usec: throttling.throttled_time / 1000,
            ..v2::CpuStat::default()
        }),
        memory: Some(memory_v2(stats)),
        io: Some(io_v2(stats)),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, usage)| v2::HugeTlbStat { current: usage.usage, max: usage.max, pagesize: size.clone(), failcnt: usage.failcnt })
            .collect(),
        memory_events: Some(v2::MemoryEvents {
            low: events.low,
            high: events.high,
            max: events.max,
            oom: events.oom,
            oom_kill: events.oom_kill,
            ..v2::MemoryEvents::default()
        }),
        rdma: None,
        network: Vec::new(),
    }
}

fn memory_v2(stats: &Stats) -> v2::MemoryStat {
    let raw = |key: &str| stats.memory.raw.get(key).copied().unwrap_or(0);
    let memory = &stats.memory;
    v2::MemoryStat {
        anon: raw("anon"),
        file: raw("file"),
        kernel_stack: raw("kernel_stack"),
        slab: raw("slab"),
        sock: raw("sock"),
        shmem: raw("shmem"),
        file_mapped: raw("file_mapped"),
        file_dirty: raw("file_dirty"),
        file_writeback: raw("file_writeback"),
        anon_thp: raw("anon_thp"),
        inactive_anon: raw("inactive_anon"),
        active_anon: raw("active_anon"),
        inactive_file: raw("inactive_file"),
        active_file: raw("active_file"),
        unevictable: raw("unevictable"),
        slab_reclaimable: raw("slab_reclaimable"),
        slab_unreclaimable: raw("slab_unreclaimable"),
        pgfault: raw("pgfault"),
        pgmajfault: raw("pgmajfault"),
        workingset_refault: raw("workingset_refault"),
        workingset_activate: raw("workingset_activate"),
        workingset_nodereclaim: raw("workingset_nodereclaim"),
        pgrefill: raw("pgrefill"),
        pgscan: raw("pgscan"),
        pgsteal: raw("pgsteal"),
        pgactivate: raw("pgactivate"),
        pgdeactivate: raw("pgdeactivate"),
        pglazyfree: raw("pglazyfree"),
        pglazyfreed: raw("pglazyfreed"),
        thp_fault_alloc: raw("thp_fault_alloc"),
        thp_collapse_alloc: raw("thp_collapse_alloc"),
        usage: memory.usage.usage,
        usage_limit: memory.usage.limit,
        // This form counts swap alone.
        swap_usage: memory.swap.usage.saturating_sub(memory.usage.usage),
        swap_limit: if memory.swap.limit == u64::MAX { u64::MAX } else { memory.swap.limit.saturating_sub(memory.usage.limit) },
        max_usage: memory.usage.max,
        ..v2::MemoryStat::default()
    }
}

fn io_v2(stats: &Stats) -> v2::IoStat {
    let mut usage: Vec<v2::IoEntry> = Vec::new();
    let all = stats.blkio.io_service_bytes_recursive.iter().map(|entry| (entry, true));
    for (entry, bytes) in all.chain(stats.blkio.io_serviced_recursive.iter().map(|entry| (entry, false))) {
        let at = usage.iter().position(|line| (line.major, line.minor) == (entry.major, entry.minor)).unwrap_or_else(|| {
            usage.push(v2::IoEntry { major: entry.major, minor: entry.minor, ..v2::IoEntry::default() });
            usage.len() - 1
        });
        let line = &mut usage[at];
        match (entry.op.to_ascii_lowercase().as_str(), bytes) {
            ("read", true) => line.rbytes = entry.value,
            ("write", true) => line.wbytes = entry.value,
            ("read", false) => line.rios = entry.value,
            ("write", false) => line.wios = entry.value,
            _ => {}
        }
    }
    v2::IoStat { usage, psi: None }
}
