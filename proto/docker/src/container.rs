//! Containers: create, list, wait, top, update, prune. Inspect has a module of its own.

use crate::StringMap;
use crate::config::Config;
use crate::host_config::{DeviceMapping, DeviceRequest, HostConfig, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice};
use crate::network::{EndpointSettings, NetworkingConfig};
use crate::null::{dto, is_default};
use std::collections::BTreeMap;

/// `POST /containers/create`: [`Config`] with two more members.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CreateRequest {
    #[serde(flatten)]
    pub config: Config,
    /// Where Docker's SDK for Python says it; the host configuration's comes first.
    #[serde(rename = "Runtime", default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    #[serde(rename = "HostConfig", default)]
    pub host_config: Option<HostConfig>,
    #[serde(rename = "NetworkingConfig", default)]
    pub networking_config: Option<NetworkingConfig>,
}

dto! {
    pub struct CreateResponse {
        pub id: String,
        pub warnings: Vec<String>,
    }

    /// An element of `GET /containers/json`.
    pub struct ContainerSummary {
        pub id: String,
        /// With a leading slash.
        pub names: Vec<String>,
        /// As the user wrote it.
        pub image: String,
        #[serde(rename = "ImageID")]
        pub image_id: String,
        pub command: String,
        /// Seconds since the epoch.
        pub created: i64,
        pub ports: Vec<Port>,
        /// Bytes; only with `size=1`.
        #[serde(skip_serializing_if = "is_default")]
        pub size_rw: i64,
        /// Bytes; only with `size=1`.
        #[serde(skip_serializing_if = "is_default")]
        pub size_root_fs: i64,
        pub labels: StringMap,
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
        pub state: String,
        /// For people: `Up 3 minutes`.
        pub status: String,
        pub host_config: SummaryHostConfig,
        pub network_settings: SummaryNetworkSettings,
        pub mounts: Vec<MountPoint>,
    }

    pub struct Port {
        #[serde(rename = "IP", skip_serializing_if = "is_default")]
        pub ip: String,
        pub private_port: u16,
        #[serde(skip_serializing_if = "is_default")]
        pub public_port: u16,
        /// `tcp`, `udp` or `sctp`.
        #[serde(rename = "Type")]
        pub protocol: String,
    }

    pub struct SummaryHostConfig {
        #[serde(skip_serializing_if = "is_default")]
        pub network_mode: String,
        #[serde(skip_serializing_if = "is_default")]
        pub annotations: StringMap,
    }

    pub struct SummaryNetworkSettings {
        pub networks: BTreeMap<String, EndpointSettings>,
    }

    /// A mount as list and inspect show it.
    pub struct MountPoint {
        #[serde(rename = "Type", skip_serializing_if = "is_default")]
        pub kind: String,
        #[serde(skip_serializing_if = "is_default")]
        pub name: String,
        pub source: String,
        pub destination: String,
        #[serde(skip_serializing_if = "is_default")]
        pub driver: String,
        pub mode: String,
        #[serde(rename = "RW")]
        pub rw: bool,
        pub propagation: String,
    }

    /// `POST /containers/{id}/wait`.
    pub struct WaitResponse {
        /// Always printed; `null` unless waiting itself failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub error: Option<WaitError>,
        pub status_code: i64,
    }

    pub struct WaitError {
        pub message: String,
    }

    /// `GET /containers/{id}/top`.
    pub struct TopResponse {
        pub titles: Vec<String>,
        pub processes: Vec<Vec<String>>,
    }

    /// An element of `GET /containers/{id}/changes`.
    pub struct Change {
        pub path: String,
        /// 0 modified, 1 added, 2 deleted.
        pub kind: u8,
    }

    /// `POST /containers/{id}/update`: resources with the restart policy; zero leaves as it is.
    pub struct UpdateRequest {
        pub cpu_shares: i64,
        pub memory: i64,
        pub nano_cpus: i64,
        pub cgroup_parent: String,
        pub blkio_weight: u16,
        pub blkio_weight_device: Option<Vec<WeightDevice>>,
        pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
        pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
        #[serde(rename = "BlkioDeviceReadIOps")]
        pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
        #[serde(rename = "BlkioDeviceWriteIOps")]
        pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
        pub cpu_period: i64,
        pub cpu_quota: i64,
        pub cpu_realtime_period: i64,
        pub cpu_realtime_runtime: i64,
        pub cpuset_cpus: String,
        pub cpuset_mems: String,
        pub devices: Option<Vec<DeviceMapping>>,
        pub device_cgroup_rules: Option<Vec<String>>,
        pub device_requests: Option<Vec<DeviceRequest>>,
        pub kernel_memory: i64,
        #[serde(rename = "KernelMemoryTCP")]
        pub kernel_memory_tcp: i64,
        pub memory_reservation: i64,
        pub memory_swap: i64,
        pub memory_swappiness: Option<i64>,
        pub oom_kill_disable: Option<bool>,
        pub pids_limit: Option<i64>,
        pub ulimits: Option<Vec<Ulimit>>,
        pub cpu_count: i64,
        pub cpu_percent: i64,
        #[serde(rename = "IOMaximumIOps")]
        pub io_maximum_iops: u64,
        #[serde(rename = "IOMaximumBandwidth")]
        pub io_maximum_bandwidth: u64,
        pub restart_policy: RestartPolicy,
    }

    pub struct UpdateResponse {
        pub warnings: Option<Vec<String>>,
    }

    /// `POST /containers/prune`.
    pub struct PruneResponse {
        pub containers_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }

    /// `POST /commit`.
    pub struct IdResponse {
        pub id: String,
    }
}

crate::null::camel_dto! {
    /// The `X-Docker-Container-Path-Stat` header of the archive endpoints, in base64.
    pub struct PathStat {
        pub name: String,
        pub size: i64,
        /// Go's `os.FileMode`.
        pub mode: u32,
        pub mtime: String,
        pub link_target: String,
    }
}
