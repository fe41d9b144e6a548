//! Version, info and disk usage.

use crate::StringMap;
use crate::container::ContainerSummary;
use crate::image::ImageSummary;
use crate::null::{dto, is_default};
use crate::volume::Volume;
use std::collections::BTreeMap;

dto! {
    /// `GET /version`.
    pub struct Version {
        pub platform: Platform,
        pub components: Vec<ComponentVersion>,
        /// The engine's version.
        pub version: String,
        pub api_version: String,
        #[serde(rename = "MinAPIVersion")]
        pub min_api_version: String,
        pub git_commit: String,
        /// Toolchain that built the engine; clients print it in this place.
        pub go_version: String,
        pub os: String,
        pub arch: String,
        pub kernel_version: String,
        #[serde(skip_serializing_if = "is_default")]
        pub experimental: bool,
        #[serde(skip_serializing_if = "is_default")]
        pub build_time: String,
    }

    pub struct Platform {
        pub name: String,
    }

    pub struct ComponentVersion {
        pub name: String,
        pub version: String,
        #[serde(skip_serializing_if = "is_default")]
        pub details: StringMap,
    }

    /// `GET /info`.
    pub struct Info {
        #[serde(rename = "ID")]
        pub id: String,
        pub containers: i64,
        pub containers_running: i64,
        pub containers_paused: i64,
        pub containers_stopped: i64,
        pub images: i64,
        /// Storage driver.
        pub driver: String,
        /// Pairs of name and value.
        pub driver_status: Option<Vec<[String; 2]>>,
        pub plugins: PluginsInfo,
        pub memory_limit: bool,
        pub swap_limit: bool,
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_default")]
        pub kernel_memory_tcp: bool,
        #[serde(rename = "CpuCfsPeriod")]
        pub cpu_cfs_period: bool,
        #[serde(rename = "CpuCfsQuota")]
        pub cpu_cfs_quota: bool,
        #[serde(rename = "CPUShares")]
        pub cpu_shares: bool,
        #[serde(rename = "CPUSet")]
        pub cpu_set: bool,
        pub pids_limit: bool,
        #[serde(rename = "IPv4Forwarding")]
        pub ipv4_forwarding: bool,
        pub bridge_nf_iptables: bool,
        #[serde(rename = "BridgeNfIp6tables")]
        pub bridge_nf_ip6tables: bool,
        pub debug: bool,
        #[serde(rename = "NFd")]
        pub n_fd: i64,
        pub oom_kill_disable: bool,
        pub n_goroutines: i64,
        /// RFC 3339 with nanoseconds.
        pub system_time: String,
        pub logging_driver: String,
        pub cgroup_driver: String,
        /// `1` or `2`.
        #[serde(skip_serializing_if = "is_default")]
        pub cgroup_version: String,
        pub n_events_listener: i64,
        pub kernel_version: String,
        pub operating_system: String,
        #[serde(rename = "OSVersion")]
        pub os_version: String,
        #[serde(rename = "OSType")]
        pub os_type: String,
        /// As `uname -m` has it.
        pub architecture: String,
        pub index_server_address: String,
        pub registry_config: Option<RegistryServiceConfig>,
        #[serde(rename = "NCPU")]
        pub ncpu: i64,
        /// Bytes.
        pub mem_total: i64,
        pub generic_resources: Option<Vec<serde_json::Value>>,
        pub docker_root_dir: String,
        pub http_proxy: String,
        pub https_proxy: String,
        pub no_proxy: String,
        /// Host name.
        pub name: String,
        pub labels: Vec<String>,
        pub experimental_build: bool,
        pub server_version: String,
        pub runtimes: BTreeMap<String, Runtime>,
        pub default_runtime: String,
        pub swarm: SwarmInfo,
        pub live_restore_enabled: bool,
        pub isolation: String,
        pub init_binary: String,
        pub containerd_commit: Commit,
        pub runc_commit: Commit,
        pub init_commit: Commit,
        pub security_options: Vec<String>,
        #[serde(skip_serializing_if = "is_default")]
        pub product_license: String,
        #[serde(skip_serializing_if = "is_default")]
        pub default_address_pools: Vec<AddressPool>,
        pub warnings: Option<Vec<String>>,
        #[serde(rename = "CDISpecDirs", skip_serializing_if = "Option::is_none")]
        pub cdi_spec_dirs: Option<Vec<String>>,
    }

    pub struct PluginsInfo {
        pub volume: Option<Vec<String>>,
        pub network: Option<Vec<String>>,
        pub authorization: Option<Vec<String>>,
        pub log: Option<Vec<String>>,
    }

    pub struct RegistryServiceConfig {
        #[serde(rename = "AllowNondistributableArtifactsCIDRs")]
        pub allow_nondistributable_artifacts_cidrs: Option<Vec<String>>,
        pub allow_nondistributable_artifacts_hostnames: Option<Vec<String>>,
        #[serde(rename = "InsecureRegistryCIDRs")]
        pub insecure_registry_cidrs: Vec<String>,
        pub index_configs: BTreeMap<String, IndexInfo>,
        pub mirrors: Option<Vec<String>>,
    }

    pub struct IndexInfo {
        pub name: String,
        pub mirrors: Vec<String>,
        pub secure: bool,
        pub official: bool,
    }

    pub struct Runtime {
        #[serde(rename = "path", skip_serializing_if = "is_default")]
        pub path: String,
        #[serde(rename = "runtimeArgs", skip_serializing_if = "is_default")]
        pub args: Vec<String>,
        #[serde(rename = "status", skip_serializing_if = "is_default")]
        pub status: StringMap,
    }

    pub struct SwarmInfo {
        #[serde(rename = "NodeID")]
        pub node_id: String,
        pub node_addr: String,
        /// `inactive`, always.
        pub local_node_state: String,
        pub control_available: bool,
        pub error: String,
        pub remote_managers: Option<Vec<serde_json::Value>>,
    }

    pub struct Commit {
        #[serde(rename = "ID")]
        pub id: String,
        #[serde(skip_serializing_if = "is_default")]
        pub expected: String,
    }

    pub struct AddressPool {
        pub base: String,
        pub size: u8,
    }

    /// `GET /system/df`.
    pub struct DiskUsage {
        /// Bytes of all layers.
        pub layers_size: i64,
        pub images: Option<Vec<ImageSummary>>,
        pub containers: Option<Vec<ContainerSummary>>,
        pub volumes: Option<Vec<Volume>>,
        pub build_cache: Option<Vec<serde_json::Value>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub builder_size: Option<i64>,
    }
}
