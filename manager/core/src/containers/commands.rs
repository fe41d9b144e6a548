//! The operations on containers: one plain struct each, and what they return.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::config::{Config, EndpointRequest, HostConfig, Resources, RestartPolicy};
use super::model::{Container, PublishedPort};
use super::outline::Outline;
use crate::filters::Filters;

/// Names, id prefixes and full ids all name a container (`id` in every command below).
#[derive(Clone, Debug, Default)]
pub struct CreateContainer {
    /// Without or with leading slash; `None`: a random one.
    pub name: Option<String>,
    /// `os/arch[/variant]`; `None`: whatever the image is.
    pub platform: Option<String>,
    pub config: Config,
    pub host_config: HostConfig,
    pub endpoints: BTreeMap<String, EndpointRequest>,
}

#[derive(Clone, Debug)]
pub struct Created {
    pub id: String,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct StartContainer {
    pub id: String,
    /// Rows, columns: the terminal starts with this size.
    pub console_size: Option<(u16, u16)>,
}

#[derive(Clone, Debug, Default)]
pub struct StopContainer {
    pub id: String,
    /// Seconds; `None`: the container's own, else 10; -1: wait for ever.
    pub timeout: Option<i64>,
    /// Name or number; `None`: the container's stop signal.
    pub signal: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct RestartContainer {
    pub id: String,
    pub timeout: Option<i64>,
    pub signal: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct KillContainer {
    pub id: String,
    /// Name (with or without `SIG`) or number; `None`: SIGKILL.
    pub signal: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct RemoveContainer {
    pub id: String,
    pub force: bool,
    /// Anonymous volumes too.
    pub volumes: bool,
}

#[derive(Clone, Debug, Default)]
pub struct RenameContainer {
    pub id: String,
    pub name: String,
}

/// Changes limits and restart policy; what is zero, empty or `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct UpdateContainer {
    pub id: String,
    pub resources: Resources,
    pub restart_policy: Option<RestartPolicy>,
}

/// Makes an image of a container's changes.
#[derive(Clone, Debug, Default)]
pub struct CommitContainer {
    pub id: String,
    /// `None`: the image has no name.
    pub reference: Option<rcontainerd_types::Reference>,
    pub comment: String,
    pub author: String,
    /// Freeze the processes meanwhile.
    pub pause: bool,
    /// Instructions of a Dockerfile that change the configuration.
    pub changes: Vec<String>,
    /// What is set here is the image's; the rest is the container's.
    pub config: crate::images::ImageConfig,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Answers at once if it is not running.
    #[default]
    NotRunning,
    NextExit,
    Removed,
}

#[derive(Clone, Debug, Default)]
pub struct WaitContainer {
    pub id: String,
    pub condition: WaitCondition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    pub exit_code: i64,
    /// Why the start failed or waiting did, if so.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct ResizeTty {
    pub id: String,
    pub rows: u16,
    pub columns: u16,
}

/// Which streams a client takes part in.
#[derive(Clone, Debug, Default)]
pub struct AttachContainer {
    pub id: String,
    /// Replay what was logged before.
    pub logs: bool,
    /// Stay attached.
    pub stream: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Clone, Debug, Default)]
pub struct LogsQuery {
    pub id: String,
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    /// Inclusive.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// The last so many lines; `None`: all.
    pub tail: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct TopContainer {
    pub id: String,
    /// Arguments for ps(1); empty: `-ef`.
    pub ps_args: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessTable {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

#[derive(Clone, Debug, Default)]
pub struct ListContainers {
    /// Stopped ones too.
    pub all: bool,
    /// The newest so many, running or not.
    pub limit: Option<usize>,
    /// Compute sizes.
    pub size: bool,
    pub filters: Filters,
}

#[derive(Clone, Debug)]
pub struct ContainerSummary {
    pub container: Arc<Outline>,
    /// The image's name as the container was created with, its id when the name now means another image.
    pub image: String,
    /// Its names in links of others: `other/alias`.
    pub link_names: Vec<String>,
    /// Networks that it is on, or will be once it runs: name → id.
    pub networks: BTreeMap<String, String>,
    pub ports: Vec<PublishedPort>,
    /// Docker's sentence: `Up 3 minutes`, `Exited (0) 2 hours ago`.
    pub status: String,
    pub size_rw: Option<u64>,
    pub size_root_fs: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct InspectContainer {
    pub id: String,
    pub size: bool,
}

/// Everything `docker inspect` shows.
#[derive(Clone, Debug)]
pub struct ContainerDetails {
    pub container: Container,
    /// Empty when the driver writes no file.
    pub log_path: String,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub exec_ids: Vec<String>,
    /// Networks that it is on, or will be once it runs: name → id.
    pub networks: BTreeMap<String, String>,
    /// Where the container's namespace is bound; empty when not running or without its own.
    pub sandbox_key: String,
    /// Docker's name for the snapshotter, as `info` has it.
    pub storage_driver: String,
    /// Docker's `GraphDriver.Data` (`LowerDir`, `UpperDir`, …).
    pub graph_driver: BTreeMap<String, String>,
    pub ports: Vec<PublishedPort>,
    pub size_rw: Option<u64>,
    pub size_root_fs: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct PruneReport {
    pub deleted: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// A raw sample of a container's use of resources.
#[derive(Clone, Debug, Default)]
pub struct StatsSample {
    pub read: Option<Timestamp>,
    pub pids: u64,
    /// 0: unlimited.
    pub pids_limit: u64,
    /// Nanoseconds.
    pub cpu_total: u64,
    pub cpu_user: u64,
    pub cpu_kernel: u64,
    /// Nanoseconds of all CPUs of the host.
    pub system_cpu: u64,
    pub online_cpus: u32,
    pub throttled_periods: u64,
    pub periods: u64,
    pub throttled_time: u64,
    /// Bytes.
    pub memory_usage: u64,
    pub memory_limit: u64,
    /// The kernel's `memory.stat`.
    pub memory_stats: BTreeMap<String, u64>,
    pub blkio_read: u64,
    pub blkio_write: u64,
    /// By interface name inside the container.
    pub networks: BTreeMap<String, NetworkStats>,
}

#[derive(Clone, Debug, Default)]
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

/// How long `stop` waits before SIGKILL; `None` for ever.
pub(crate) fn stop_wait(timeout: Option<i64>, configured: Option<i64>) -> Option<Duration> {
    let seconds = timeout.or(configured).unwrap_or(10);
    u64::try_from(seconds).ok().map(Duration::from_secs)
}
