//! Version, info and disk usage.

use std::collections::BTreeMap;

use proto_docker::system::{self as dto, Commit, ComponentVersion, IndexInfo, PluginsInfo, RegistryServiceConfig, SwarmInfo};
use rcontainerd_core::containers::resolve::LOG_DRIVERS;
use rcontainerd_core::system::{DiskUsage, Info, Version};

use super::container::signed;
use super::{container, image, volume};
use crate::wire::time::rfc3339;
use crate::wire::version::ApiVersion;

/// What stands where dockerd names its Go compiler.
const TOOLCHAIN: &str = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));
const INDEX: &str = "docker.io";

pub(crate) fn version(version: &Version) -> dto::Version {
    let engine = BTreeMap::from([
        ("ApiVersion".to_owned(), ApiVersion::MAX.to_string()),
        ("Arch".to_owned(), version.arch.clone()),
        ("BuildTime".to_owned(), version.build_time.clone()),
        ("Experimental".to_owned(), "false".to_owned()),
        ("GitCommit".to_owned(), version.git_commit.clone()),
        ("GoVersion".to_owned(), TOOLCHAIN.to_owned()),
        ("KernelVersion".to_owned(), version.kernel_version.clone()),
        ("MinAPIVersion".to_owned(), ApiVersion::MIN.to_string()),
        ("Os".to_owned(), version.os.clone()),
    ]);
    let mut components = vec![ComponentVersion { name: "Engine".to_owned(), version: version.version.clone(), details: engine }];
    components.extend(version.components.iter().map(|(name, version)| ComponentVersion {
        name: name.clone(),
        version: version.clone(),
        details: BTreeMap::from([("GitCommit".to_owned(), String::new())]),
    }));
    dto::Version {
        platform: dto::Platform { name: "rcontainerd".to_owned() },
        components,
        version: version.version.clone(),
        api_version: ApiVersion::MAX.to_string(),
        min_api_version: ApiVersion::MIN.to_string(),
        git_commit: version.git_commit.clone(),
        go_version: TOOLCHAIN.to_owned(),
        os: version.os.clone(),
        arch: version.arch.clone(),
        kernel_version: version.kernel_version.clone(),
        experimental: false,
        build_time: version.build_time.clone(),
    }
}

pub(crate) fn info(info: &Info) -> dto::Info {
    let head = dto::Info {
        id: info.id.clone(),
        containers: signed(info.containers),
        containers_running: signed(info.containers_running),
        containers_paused: signed(info.containers_paused),
        containers_stopped: signed(info.containers_stopped),
        images: signed(info.images),
        driver: info.storage_driver.clone(),
        driver_status: Some(info.storage_driver_status.iter().map(|(name, value)| [name.clone(), value.clone()]).collect()),
        plugins: PluginsInfo {
            volume: Some(vec!["local".to_owned()]),
            network: Some(["bridge", "host", "null"].map(str::to_owned).to_vec()),
            authorization: None,
            log: Some(LOG_DRIVERS.map(str::to_owned).to_vec()),
        },
        memory_limit: info.memory_limit,
        swap_limit: info.swap_limit,
        cpu_cfs_period: info.cpu_cfs,
        cpu_cfs_quota: info.cpu_cfs,
        cpu_shares: info.cpu_shares,
        cpu_set: info.cpuset,
        pids_limit: info.pids_limit,
        ipv4_forwarding: info.ipv4_forwarding,
        logging_driver: "json-file".to_owned(),
        cgroup_driver: info.cgroup_driver.clone(),
        cgroup_version: info.cgroup_version.clone(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: Some(registries(info)),
        default_runtime: info.default_runtime.clone(),
        runtimes: info.runtimes.iter().map(|(name, path)| (name.clone(), runtime(path))).collect(),
        swarm: SwarmInfo { local_node_state: "inactive".to_owned(), ..SwarmInfo::default() },
        live_restore_enabled: true,
        init_binary: info.init_binary.clone(),
        containerd_commit: commit(&info.version.version),
        runc_commit: commit(info.version.components.get(&info.default_runtime).map_or("", String::as_str)),
        init_commit: commit(&info.version.version),
        security_options: info.security_options.clone(),
        labels: info.labels.clone(),
        warnings: (!info.warnings.is_empty()).then(|| info.warnings.clone()),
        ..dto::Info::default()
    };
    with_host(head, info)
}

fn with_host(head: dto::Info, info: &Info) -> dto::Info {
    dto::Info {
        n_fd: signed(info.open_files),
        n_goroutines: signed(info.active_tasks),
        n_events_listener: signed(info.event_listeners),
        system_time: rfc3339(info.system_time),
        kernel_version: info.version.kernel_version.clone(),
        operating_system: info.operating_system.clone(),
        os_version: info.os_version.clone(),
        os_type: info.os_type.clone(),
        architecture: info.architecture.clone(),
        ncpu: signed(info.cpus),
        mem_total: signed(info.memory),
        docker_root_dir: info.root_dir.display().to_string(),
        name: info.hostname.clone(),
        server_version: info.version.version.clone(),
        ..head
    }
}

fn runtime(path: &std::path::Path) -> dto::Runtime {
    dto::Runtime { path: path.display().to_string(), ..dto::Runtime::default() }
}

fn commit(id: &str) -> Commit {
    Commit { id: id.to_owned(), expected: String::new() }
}

fn registries(info: &Info) -> RegistryServiceConfig {
    let index = |name: &String, secure, official, mirrors: &[String]| {
        (name.clone(), IndexInfo { name: name.clone(), mirrors: mirrors.to_vec(), secure, official })
    };
    let mut index_configs: BTreeMap<_, _> = info.insecure_registries.iter().map(|name| index(name, false, false, &[])).collect();
    index_configs.extend([index(&INDEX.to_owned(), true, true, &info.registry_mirrors)]);
    RegistryServiceConfig {
        insecure_registry_cidrs: vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()],
        index_configs,
        mirrors: Some(info.registry_mirrors.clone()),
        ..RegistryServiceConfig::default()
    }
}

pub(crate) fn disk_usage(usage: &DiskUsage) -> dto::DiskUsage {
    dto::DiskUsage {
        layers_size: signed(usage.layers_size),
        images: Some(usage.images.iter().map(|found| image_usage(found, usage)).collect()),
        containers: Some(usage.containers.iter().map(container::summary).collect()),
        volumes: Some(usage.volumes.iter().map(|(found, size, references)| volume::with_usage(found, *size, *references)).collect()),
        build_cache: Some(Vec::new()),
        builder_size: None,
    }
}

fn image_usage(found: &rcontainerd_core::images::ListedImage, usage: &DiskUsage) -> proto_docker::image::ImageSummary {
    let id = found.id.to_string();
    let shared_size = signed(usage.shared.get(&found.id).copied().unwrap_or_default());
    let users = usage.containers.iter().filter(|summary| summary.container.image_id == id).count();
    proto_docker::image::ImageSummary { containers: i64::try_from(users).unwrap_or(i64::MAX), shared_size, ..image::summary(found.clone()) }
}
