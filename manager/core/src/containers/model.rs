//! The persisted record of a container and its state.
//!
//! Written as JSON with `written_by`/`min_reader` by the store's codec; a field added later has a serde default,
//! a field removed stays readable.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::{Config, EndpointRequest, HostConfig};
use super::sparse::sparse;

/// One Docker container, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    pub created: Timestamp,
    /// The image's id (digest of its config), `sha256:…`; empty for a container without image.
    pub image_id: String,
    /// The manifest's digest, if known.
    #[serde(default)]
    pub manifest_digest: String,
    /// `linux/amd64`.
    pub platform: String,
    /// The request merged with the image's configuration.
    pub config: Config,
    pub host_config: HostConfig,
    /// What the client asked of each network, by network name.
    #[serde(default)]
    pub endpoints: BTreeMap<String, EndpointRequest>,
    /// The network of the mode was left by `network disconnect`: only `endpoints` counts from then on.
    #[serde(default)]
    pub left_mode: bool,
    /// Program and arguments as resolved from entrypoint and command.
    pub path: String,
    pub args: Vec<String>,
    /// Mounts as resolved (named and anonymous volumes, binds, tmpfs).
    #[serde(default)]
    pub mounts: Vec<MountPoint>,
    /// The writable snapshot's key.
    pub snapshot_key: String,
    pub snapshotter: String,
    pub hostname: String,
    /// What was given up at creation, in plain words.
    #[serde(default)]
    pub warnings: Vec<String>,
    pub state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    /// Between an exit and the restart that the policy orders.
    Restarting,
    /// Being removed.
    Removing,
    Exited,
    /// Removal failed half-way; `rm` again.
    Dead,
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether a process lives (a paused one does, a restarting one counts as Docker counts it).
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

sparse! {
    pub struct State {
        pub status: Status,
        /// 0 when no process lives.
        pub pid: u32,
        pub exit_code: i64,
        /// Why the last start failed; empty when it did not.
        pub error: String,
        pub oom_killed: bool,
        pub started_at: Option<Timestamp>,
        pub finished_at: Option<Timestamp>,
        /// Starts by the restart policy since the last start by a client.
        pub restart_count: u32,
        /// A client stopped it: `unless-stopped` and `always` respect that.
        pub manually_stopped: bool,
        /// The address on each network, while running.
        pub networks: BTreeMap<String, Endpoint>,
        /// Published ports as bound, while running.
        pub ports: Vec<PublishedPort>,
        /// Counts the starts; tells one run's exit from the next one's.
        pub run: u64,
        /// Of containers with a health check, since their start.
        pub health: Option<Health>,
    }
}

/// What the probes found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    pub status: HealthStatus,
    /// Failures without a success in between.
    pub failing_streak: u32,
    /// The last five, oldest first.
    pub log: Vec<Probe>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No probe has succeeded yet, nor enough have failed.
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One run of the check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub start: Timestamp,
    pub end: Timestamp,
    /// 0: healthy; -1: it took too long or could not be run.
    pub exit_code: i64,
    /// Its first 4096 bytes.
    pub output: String,
}

sparse! {
    /// One network's view of a running container.
    #[derive(Eq)]
    pub struct Endpoint {
        pub network_id: String,
        pub endpoint_id: String,
        pub ipv4_address: String,
        pub ipv4_prefix_len: u8,
        pub ipv4_gateway: String,
        pub ipv6_address: String,
        pub ipv6_prefix_len: u8,
        pub ipv6_gateway: String,
        pub mac_address: String,
        pub aliases: Vec<String>,
        pub dns_names: Vec<String>,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Empty and 0 for a port that is only exposed.
    pub host_ip: String,
    pub host_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
}

impl MountKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// A mount as resolved; what `inspect` lists under `Mounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    pub kind: MountKind,
    /// The volume's name; empty for others.
    #[serde(default)]
    pub name: String,
    /// Path on the host; empty for tmpfs.
    #[serde(default)]
    pub source: String,
    pub destination: String,
    /// `local` for volumes.
    #[serde(default)]
    pub driver: String,
    /// The options as written (`ro`, `z`).
    #[serde(default)]
    pub mode: String,
    pub read_write: bool,
    #[serde(default)]
    pub propagation: String,
    /// An anonymous volume, removed by `rm -v` and `--rm`.
    #[serde(default)]
    pub anonymous: bool,
    #[serde(default)]
    pub no_copy: bool,
    #[serde(default)]
    pub non_recursive: bool,
    /// Mount options of a tmpfs, as for mount(8).
    #[serde(default)]
    pub tmpfs_options: Vec<String>,
}
