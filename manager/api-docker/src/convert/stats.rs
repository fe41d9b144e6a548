//! A container's use of resources as `docker stats` reads it: each object carries the sample before it.

use proto_docker::stats::{BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, ThrottlingData};
use rcontainerd_core::containers::{NetworkStats as CoreNetworkStats, StatsSample};

use crate::wire::time::rfc3339_or_never;

/// `before`: the sample before this one, if there was one.
pub(crate) fn stats(id: &str, name: &str, sample: &StatsSample, before: Option<&StatsSample>) -> Stats {
    Stats {
        read: rfc3339_or_never(sample.read),
        preread: rfc3339_or_never(before.and_then(|before| before.read)),
        pids_stats: PidsStats { current: sample.pids, limit: sample.pids_limit },
        blkio_stats: blkio(sample),
        cpu_stats: cpu(sample),
        precpu_stats: before.map(cpu).unwrap_or_default(),
        memory_stats: MemoryStats {
            usage: sample.memory_usage,
            stats: sample.memory_stats.clone(),
            limit: sample.memory_limit,
            ..MemoryStats::default()
        },
        name: format!("/{name}"),
        id: id.to_owned(),
        networks: sample.networks.iter().map(|(interface, counters)| (interface.clone(), network(counters))).collect(),
        ..Stats::default()
    }
}

fn cpu(sample: &StatsSample) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: sample.cpu_total,
            percpu_usage: None,
            usage_in_kernelmode: sample.cpu_kernel,
            usage_in_usermode: sample.cpu_user,
        },
        system_cpu_usage: sample.system_cpu,
        online_cpus: sample.online_cpus,
        throttling_data: ThrottlingData {
            periods: sample.periods,
            throttled_periods: sample.throttled_periods,
            throttled_time: sample.throttled_time,
        },
    }
}

/// The sums over all devices, under device 0:0.
fn blkio(sample: &StatsSample) -> BlkioStats {
    if sample.read.is_none() {
        return BlkioStats::default();
    }
    let entry = |op: &str, value| BlkioEntry { major: 0, minor: 0, op: op.to_owned(), value };
    BlkioStats {
        io_service_bytes_recursive: Some(vec![entry("read", sample.blkio_read), entry("write", sample.blkio_write)]),
        ..BlkioStats::default()
    }
}

fn network(counters: &CoreNetworkStats) -> NetworkStats {
    NetworkStats {
        rx_bytes: counters.rx_bytes,
        rx_packets: counters.rx_packets,
        rx_errors: counters.rx_errors,
        rx_dropped: counters.rx_dropped,
        tx_bytes: counters.tx_bytes,
        tx_packets: counters.tx_packets,
        tx_errors: counters.tx_errors,
        tx_dropped: counters.tx_dropped,
    }
}
