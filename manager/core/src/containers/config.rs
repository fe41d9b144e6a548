//! What a client asks for: Docker's `Config` and `HostConfig` as domain types.
//!
//! Every field that clients commonly send is here, also those that are not supported: [`crate::containers::resolve`]
//! is the one place that decides, and refuses by name what it does not support when it differs from the default.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::sparse::sparse;

sparse! {
    /// The image-like part of a container: what runs. `None` and empty mean "as the image says".
    #[derive(Eq)]
    pub struct Config {
        /// The image as the client wrote it (name, id or id prefix).
        pub image: String,
        pub hostname: String,
        pub domainname: String,
        /// `user[:group]`, names or numbers.
        pub user: String,
        pub attach_stdin: bool,
        pub attach_stdout: bool,
        pub attach_stderr: bool,
        pub tty: bool,
        /// Keep a stdin for the process.
        pub open_stdin: bool,
        /// Close it once the first attached client has closed its side.
        pub stdin_once: bool,
        /// `NAME=VALUE`; `NAME` alone removes a variable that the image sets.
        pub env: Vec<String>,
        pub entrypoint: Option<Vec<String>>,
        pub cmd: Option<Vec<String>>,
        pub working_dir: String,
        /// `80/tcp`.
        pub exposed_ports: BTreeSet<String>,
        /// Anonymous volumes: destinations.
        pub volumes: BTreeSet<String>,
        pub labels: BTreeMap<String, String>,
        /// Name or number; empty: the image's, else SIGTERM.
        pub stop_signal: String,
        /// Seconds; `None`: 10.
        pub stop_timeout: Option<i64>,
        pub healthcheck: Option<HealthCheck>,
        pub network_disabled: bool,
        pub mac_address: String,
        pub on_build: Vec<String>,
        pub shell: Vec<String>,
        pub args_escaped: bool,
    }
}

/// A health probe; durations in nanoseconds, 0 = inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// Empty: inherit; `["NONE"]`: off; `["CMD", …]`; `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i64,
}

sparse! {
    /// The host-dependent part of a container: how it runs.
    pub struct HostConfig {
        /// `source:destination[:options]`, `destination` alone for an anonymous volume.
        pub binds: Vec<String>,
        pub mounts: Vec<MountRequest>,
        /// Destination → options (`size=64m,mode=1777`).
        pub tmpfs: BTreeMap<String, String>,
        pub volume_driver: String,
        pub volumes_from: Vec<String>,
        /// `default`, `bridge`, `host`, `none`, `container:ID`, or a network's name.
        pub network_mode: String,
        /// `80/tcp` → where on the host.
        pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
        pub publish_all_ports: bool,
        pub restart_policy: RestartPolicy,
        pub auto_remove: bool,
        pub log_config: LogConfig,
        pub cap_add: Vec<String>,
        pub cap_drop: Vec<String>,
        pub privileged: bool,
        pub security_opt: Vec<String>,
        pub readonly_rootfs: bool,
        /// `None`: Docker's defaults; an empty list: none at all (as `systempaths=unconfined` sends).
        pub masked_paths: Option<Vec<String>>,
        pub readonly_paths: Option<Vec<String>>,
        pub init: Option<bool>,
        pub group_add: Vec<String>,
        pub cgroupns_mode: String,
        pub ipc_mode: String,
        pub pid_mode: String,
        pub uts_mode: String,
        pub userns_mode: String,
        /// Bytes; 0: 64 MiB.
        pub shm_size: i64,
        pub sysctls: BTreeMap<String, String>,
        pub dns: Vec<String>,
        pub dns_options: Vec<String>,
        pub dns_search: Vec<String>,
        /// `name:address`.
        pub extra_hosts: Vec<String>,
        pub links: Vec<String>,
        pub oom_score_adj: i64,
        pub annotations: BTreeMap<String, String>,
        pub runtime: String,
        pub storage_opt: BTreeMap<String, String>,
        pub container_id_file: String,
        /// Rows, columns of the client's terminal.
        pub console_size: Option<(u16, u16)>,
        pub isolation: String,
        pub cgroup: String,
        pub resources: Resources,
    }
}

sparse! {
    /// Limits; 0, empty or `None` mean no limit.
    pub struct Resources {
        pub cpu_shares: i64,
        /// Billionths of a CPU (`--cpus`).
        pub nano_cpus: i64,
        /// Microseconds.
        pub cpu_period: i64,
        pub cpu_quota: i64,
        pub cpu_realtime_period: i64,
        pub cpu_realtime_runtime: i64,
        pub cpuset_cpus: String,
        pub cpuset_mems: String,
        /// Bytes.
        pub memory: i64,
        pub memory_reservation: i64,
        /// Memory plus swap; -1: unlimited.
        pub memory_swap: i64,
        pub memory_swappiness: Option<i64>,
        pub kernel_memory: i64,
        pub kernel_memory_tcp: i64,
        pub oom_kill_disable: Option<bool>,
        pub pids_limit: Option<i64>,
        pub ulimits: Vec<Ulimit>,
        pub blkio_weight: u16,
        pub blkio_weight_device: Vec<WeightDevice>,
        pub blkio_device_read_bps: Vec<ThrottleDevice>,
        pub blkio_device_write_bps: Vec<ThrottleDevice>,
        pub blkio_device_read_iops: Vec<ThrottleDevice>,
        pub blkio_device_write_iops: Vec<ThrottleDevice>,
        pub devices: Vec<DeviceMapping>,
        pub device_cgroup_rules: Vec<String>,
        pub device_requests: Vec<DeviceRequest>,
        pub cgroup_parent: String,
        /// Windows only; refused when set.
        pub cpu_count: i64,
        pub cpu_percent: i64,
        pub io_maximum_iops: u64,
        pub io_maximum_bandwidth: u64,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightDevice {
    pub path: String,
    pub weight: u16,
}

/// Bytes or operations per second on one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleDevice {
    pub path: String,
    pub rate: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    pub path_on_host: String,
    pub path_in_container: String,
    /// Any of `rwm`.
    pub cgroup_permissions: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    pub driver: String,
    pub count: i64,
    pub device_ids: Vec<String>,
    pub capabilities: Vec<Vec<String>>,
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    pub host_ip: String,
    /// A port, a range `8000-8010`, or empty for any free one.
    pub host_port: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Empty or `no`, `always`, `unless-stopped`, `on-failure`.
    pub name: String,
    pub maximum_retry_count: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// Empty: `json-file`.
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

/// One `--mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountRequest {
    /// `bind`, `volume`, `tmpfs`; `image`, `npipe`, `cluster` are refused.
    pub kind: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub consistency: String,
    pub bind: Option<BindOptions>,
    pub volume: Option<VolumeOptions>,
    pub tmpfs: Option<TmpfsOptions>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindOptions {
    pub propagation: String,
    pub non_recursive: bool,
    pub create_mountpoint: bool,
    pub read_only_non_recursive: bool,
    pub read_only_force_recursive: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    pub no_copy: bool,
    pub labels: BTreeMap<String, String>,
    pub subpath: String,
    pub driver: String,
    pub driver_options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    /// Bytes; 0: the kernel's default.
    pub size: i64,
    pub mode: u32,
    pub options: Vec<Vec<String>>,
}

sparse! {
    /// What the client says about one network at creation (`NetworkingConfig.EndpointsConfig`).
    #[derive(Eq)]
    pub struct EndpointRequest {
        pub ipv4_address: String,
        pub ipv6_address: String,
        pub link_local_ips: Vec<String>,
        pub aliases: Vec<String>,
        pub links: Vec<String>,
        pub mac_address: String,
        pub driver_options: BTreeMap<String, String>,
        pub gateway_priority: i64,
    }
}
