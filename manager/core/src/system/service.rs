//! The system service.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_types::{Digest, Platform, Result};

use super::{DiskUsage, Info, Version};
use crate::containers::Status;
use crate::engine::{Engine, NAMESPACE};
use crate::host::CgroupVersion;
use crate::images::ImageFilters;

/// Cheap to clone.
#[derive(Clone)]
pub struct System {
    engine: Arc<Engine>,
}

impl System {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// # Errors
    /// None today; kept so that a version asked of another program can fail.
    pub async fn version(&self) -> Result<Version> {
        let config = &self.engine.config;
        let runtime = config.runtime.file_name().map_or_else(|| "rrun".to_owned(), |name| name.to_string_lossy().into_owned());
        Ok(Version {
            version: config.version.clone(),
            git_commit: config.git_commit.clone(),
            os: "linux".to_owned(),
            arch: Platform::host().architecture,
            kernel_version: self.engine.host.kernel.clone(),
            build_time: String::new(),
            components: BTreeMap::from([(runtime, config.version.clone()), ("rcontainerd".to_owned(), config.version.clone())]),
        })
    }

    /// # Errors
    /// When images or the store cannot be read.
    pub async fn info(&self) -> Result<Info> {
        let engine = &self.engine;
        let host = &engine.host;
        let states: Vec<Status> = engine.registry.all().iter().map(|entry| entry.view().state.status).collect();
        let count = |wanted: &dyn Fn(Status) -> bool| states.iter().filter(|status| wanted(**status)).count() as u64;
        let images = engine.images.list(ImageFilters::default()).await?.len() as u64;
        let release = os_release();
        let field = |key: &str| release.get(key).cloned().unwrap_or_default();
        Ok(Info {
            id: self.id(),
            version: self.version().await?,
            containers: states.len() as u64,
            containers_running: count(&|status| matches!(status, Status::Running | Status::Restarting)),
            containers_paused: count(&|status| status == Status::Paused),
            containers_stopped: count(&|status| !status.is_running()),
            images,
            storage_driver: docker_driver_name(engine.store.snapshots(NAMESPACE).name()).to_owned(),
            storage_driver_status: Vec::new(),
            root_dir: engine.store.root().to_owned(),
            state_dir: engine.config.state_dir.clone(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: if host.cgroup == CgroupVersion::V2 { "2" } else { "1" }.to_owned(),
            operating_system: field("PRETTY_NAME"),
            os_version: field("VERSION_ID"),
            os_type: "linux".to_owned(),
            architecture: host.machine.clone(),
            cpus: host.cpus.into(),
            memory: host.memory,
            hostname: host.hostname.clone(),
            security_options: self.security_options(),
            default_runtime: "rrun".to_owned(),
            runtimes: self.runtimes(),
            init_binary: engine.config.init.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            system_time: Timestamp::now(),
            insecure_registries: engine.config.registry.insecure_registries.clone(),
            registry_mirrors: engine.config.registry.mirrors.clone(),
            memory_limit: host.has_controller("memory"),
            swap_limit: host.has_controller("memory"),
            cpu_cfs: host.has_controller("cpu"),
            cpu_shares: host.has_controller("cpu"),
            cpuset: host.has_controller("cpuset"),
            pids_limit: host.has_controller("pids"),
            ipv4_forwarding: fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1"),
            active_tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
            open_files: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            event_listeners: engine.events.listeners() as u64,
            labels: Vec::new(),
            warnings: self.warnings(),
        })
    }

    /// Of the root directory: another root is another engine.
    fn id(&self) -> String {
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let digest = Digest::sha256(format!("{}{}", machine.trim(), self.engine.store.root().display()).as_bytes());
        let hex = digest.hex();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
    }

    fn runtimes(&self) -> BTreeMap<String, std::path::PathBuf> {
        let config = &self.engine.config;
        let path = |runtime: &crate::RuntimeConfig| runtime.binary.clone().or_else(|| runtime.shim.clone());
        let configured = config.runtimes.iter().filter_map(|(name, runtime)| Some((name.clone(), path(runtime)?)));
        configured.chain([("rrun".to_owned(), config.runtime.clone())]).collect()
    }

    fn security_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.engine.host.seccomp {
            options.push("name=seccomp,profile=builtin".to_owned());
        }
        if self.engine.host.cgroup == CgroupVersion::V2 {
            options.push("name=cgroupns".to_owned());
        }
        options
    }

    fn warnings(&self) -> Vec<String> {
        let missing = ["memory", "cpu", "pids"].into_iter().filter(|name| !self.engine.host.has_controller(name));
        missing.map(|name| format!("WARNING: No {name} limit support")).collect()
    }

    /// # Errors
    /// When a layer or volume cannot be measured.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        super::usage::measure(&self.engine).await
    }
}

/// Docker's word for what containerd calls a snapshotter.
pub(crate) fn docker_driver_name(snapshotter: &str) -> &str {
    match snapshotter {
        "overlayfs" => "overlay2",
        "native" => "vfs",
        other => other,
    }
}

/// os-release(5).
fn os_release() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect()
}
