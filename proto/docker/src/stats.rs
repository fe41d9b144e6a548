//! `GET /containers/{id}/stats`. Names are snake case on the wire.

use crate::null::{is_default, snake_dto};
use std::collections::BTreeMap;

snake_dto! {
    /// One sample with the one before it.
    pub struct Stats {
        /// RFC 3339 with nanoseconds.
        pub read: String,
        /// RFC 3339; `0001-01-01T00:00:00Z` in a first sample.
        pub preread: String,
        pub pids_stats: PidsStats,
        pub blkio_stats: BlkioStats,
        pub num_procs: u32,
        pub storage_stats: crate::Empty,
        pub cpu_stats: CpuStats,
        pub precpu_stats: CpuStats,
        pub memory_stats: MemoryStats,
        /// With a leading slash.
        pub name: String,
        pub id: String,
        /// Interface → counters.
        #[serde(skip_serializing_if = "is_default")]
        pub networks: BTreeMap<String, NetworkStats>,
    }

    pub struct PidsStats {
        #[serde(skip_serializing_if = "is_default")]
        pub current: u64,
        #[serde(skip_serializing_if = "is_default")]
        pub limit: u64,
    }

    pub struct BlkioStats {
        pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
        pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
        pub io_queue_recursive: Option<Vec<BlkioEntry>>,
        pub io_service_time_recursive: Option<Vec<BlkioEntry>>,
        pub io_wait_time_recursive: Option<Vec<BlkioEntry>>,
        pub io_merged_recursive: Option<Vec<BlkioEntry>>,
        pub io_time_recursive: Option<Vec<BlkioEntry>>,
        pub sectors_recursive: Option<Vec<BlkioEntry>>,
    }

    pub struct BlkioEntry {
        pub major: u64,
        pub minor: u64,
        pub op: String,
        pub value: u64,
    }

    pub struct CpuStats {
        pub cpu_usage: CpuUsage,
        /// Nanoseconds of all CPUs of the host together.
        #[serde(skip_serializing_if = "is_default")]
        pub system_cpu_usage: u64,
        #[serde(skip_serializing_if = "is_default")]
        pub online_cpus: u32,
        pub throttling_data: ThrottlingData,
    }

    /// Nanoseconds.
    pub struct CpuUsage {
        pub total_usage: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub percpu_usage: Option<Vec<u64>>,
        pub usage_in_kernelmode: u64,
        pub usage_in_usermode: u64,
    }

    pub struct ThrottlingData {
        pub periods: u64,
        pub throttled_periods: u64,
        /// Nanoseconds.
        pub throttled_time: u64,
    }

    /// Bytes.
    pub struct MemoryStats {
        #[serde(skip_serializing_if = "is_default")]
        pub usage: u64,
        #[serde(skip_serializing_if = "is_default")]
        pub max_usage: u64,
        /// The fields of the kernel's memory.stat.
        #[serde(skip_serializing_if = "is_default")]
        pub stats: BTreeMap<String, u64>,
        #[serde(skip_serializing_if = "is_default")]
        pub failcnt: u64,
        #[serde(skip_serializing_if = "is_default")]
        pub limit: u64,
    }

    pub struct NetworkStats {
        pub rx_bytes: u64,
        pub rx_packets: u64,
        pub rx_errors: u64,
        pub rx_dropped: u64,
        pub tx_bytes: u64,
        pub tx_packets: u64,
        pub tx_errors: u64,
        pub tx_dropped: u64,
    }
}
