//! What the engine says of itself and of its host.

mod service;
mod usage;

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

pub use service::System;
pub(crate) use service::docker_driver_name;

use crate::containers::ContainerSummary;
use crate::images::ListedImage;
use crate::volumes::Volume;

#[derive(Clone, Debug)]
pub struct Version {
    /// Of the manager.
    pub version: String,
    /// Empty when not built from a checkout.
    pub git_commit: String,
    pub os: String,
    /// Go's word: `amd64`.
    pub arch: String,
    pub kernel_version: String,
    pub build_time: String,
    /// The low-level runtime: name → version.
    pub components: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct Info {
    /// Stable over restarts.
    pub id: String,
    pub version: Version,
    pub containers: u64,
    pub containers_running: u64,
    pub containers_paused: u64,
    pub containers_stopped: u64,
    pub images: u64,
    /// The snapshotter.
    pub storage_driver: String,
    pub storage_driver_status: Vec<(String, String)>,
    pub root_dir: PathBuf,
    pub state_dir: PathBuf,
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    pub operating_system: String,
    pub os_version: String,
    pub os_type: String,
    /// uname's word: `x86_64`.
    pub architecture: String,
    pub cpus: u64,
    /// Bytes.
    pub memory: u64,
    pub hostname: String,
    /// `name=seccomp,profile=builtin`, …
    pub security_options: Vec<String>,
    pub default_runtime: String,
    /// Name → path.
    pub runtimes: BTreeMap<String, PathBuf>,
    pub init_binary: String,
    pub system_time: Timestamp,
    pub insecure_registries: Vec<String>,
    pub registry_mirrors: Vec<String>,
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub cpu_cfs: bool,
    pub cpu_shares: bool,
    pub cpuset: bool,
    pub pids_limit: bool,
    pub ipv4_forwarding: bool,
    pub active_tasks: u64,
    pub open_files: u64,
    pub event_listeners: u64,
    pub labels: Vec<String>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct DiskUsage {
    /// Bytes of all that is neither a container's nor a volume's: layers (shared ones once), blobs, the database.
    pub layers_size: u64,
    pub images: Vec<ListedImage>,
    /// Bytes of each image's layers that other images have too.
    pub shared: BTreeMap<rcontainerd_types::Digest, u64>,
    /// `size_rw` is what each takes on disk, its logs too.
    pub containers: Vec<ContainerSummary>,
    /// With bytes used and the number of containers that refer to it.
    pub volumes: Vec<(Volume, u64, u64)>,
}
