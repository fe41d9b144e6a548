//! `HostConfig` both ways.

use proto_docker::config::StrSlice;
use proto_docker::container::UpdateRequest;
use proto_docker::host_config as dto;
use rcontainerd_core::containers as core;

use super::create::some_map;
use crate::wire::error::ApiError;

/// # Errors
/// 400 for the options of a mount that core has no word for.
pub(crate) fn to_core(host: dto::HostConfig) -> Result<core::HostConfig, ApiError> {
    let resources = resources_to_core(&host);
    Ok(core::HostConfig {
        binds: host.binds.unwrap_or_default(),
        mounts: host.mounts.unwrap_or_default().into_iter().map(mount_to_core).collect::<Result<_, _>>()?,
        tmpfs: host.tmpfs.unwrap_or_default(),
        volume_driver: host.volume_driver,
        volumes_from: host.volumes_from.unwrap_or_default(),
        network_mode: host.network_mode,
        port_bindings: port_bindings_to_core(host.port_bindings.unwrap_or_default()),
        publish_all_ports: host.publish_all_ports,
        restart_policy: restart_policy_to_core(host.restart_policy),
        auto_remove: host.auto_remove,
        log_config: core::LogConfig { driver: host.log_config.driver, options: host.log_config.config.unwrap_or_default() },
        cap_add: strings(host.cap_add),
        cap_drop: strings(host.cap_drop),
        privileged: host.privileged,
        security_opt: host.security_opt.unwrap_or_default(),
        readonly_rootfs: host.readonly_rootfs,
        masked_paths: host.masked_paths,
        readonly_paths: host.readonly_paths,
        init: host.init,
        group_add: host.group_add.unwrap_or_default(),
        cgroupns_mode: host.cgroupns_mode,
        ipc_mode: host.ipc_mode,
        pid_mode: host.pid_mode,
        uts_mode: host.uts_mode,
        userns_mode: host.userns_mode,
        shm_size: host.shm_size,
        sysctls: host.sysctls.unwrap_or_default(),
        dns: host.dns.unwrap_or_default(),
        dns_options: host.dns_options.unwrap_or_default(),
        dns_search: host.dns_search.unwrap_or_default(),
        extra_hosts: host.extra_hosts.unwrap_or_default(),
        links: host.links.unwrap_or_default(),
        oom_score_adj: host.oom_score_adj,
        annotations: host.annotations.unwrap_or_default(),
        runtime: host.runtime,
        storage_opt: host.storage_opt.unwrap_or_default(),
        container_id_file: host.container_id_file,
        console_size: console_size(host.console_size),
        isolation: host.isolation,
        cgroup: host.cgroup,
        resources,
    })
}

/// Rows and columns; zeros mean that the client has no terminal. Larger than any terminal is cut.
pub(crate) fn console_size(size: [u32; 2]) -> Option<(u16, u16)> {
    let cut = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    (size != [0, 0]).then(|| (cut(size[0]), cut(size[1])))
}

pub(crate) fn restart_policy_to_core(policy: dto::RestartPolicy) -> core::RestartPolicy {
    core::RestartPolicy { name: policy.name, maximum_retry_count: policy.maximum_retry_count }
}

fn strings(list: Option<StrSlice>) -> Vec<String> {
    list.map(|list| list.0).unwrap_or_default()
}

fn port_bindings_to_core(map: dto::PortMap) -> std::collections::BTreeMap<String, Vec<core::PortBinding>> {
    let binding = |b: dto::PortBinding| core::PortBinding { host_ip: b.host_ip, host_port: b.host_port };
    map.into_iter().map(|(port, list)| (port, list.unwrap_or_default().into_iter().map(binding).collect())).collect()
}

fn resources_to_core(host: &dto::HostConfig) -> core::Resources {
    core::Resources {
        cpu_shares: host.cpu_shares,
        nano_cpus: host.nano_cpus,
        cpu_period: host.cpu_period,
        cpu_quota: host.cpu_quota,
        cpu_realtime_period: host.cpu_realtime_period,
        cpu_realtime_runtime: host.cpu_realtime_runtime,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        memory: host.memory,
        memory_reservation: host.memory_reservation,
        memory_swap: host.memory_swap,
        memory_swappiness: host.memory_swappiness,
        kernel_memory: host.kernel_memory,
        kernel_memory_tcp: host.kernel_memory_tcp,
        oom_kill_disable: host.oom_kill_disable,
        pids_limit: host.pids_limit,
        ulimits: list(host.ulimits.as_ref(), |u| core::Ulimit { name: u.name.clone(), soft: u.soft, hard: u.hard }),
        blkio_weight: host.blkio_weight,
        blkio_weight_device: list(host.blkio_weight_device.as_ref(), |d| core::WeightDevice { path: d.path.clone(), weight: d.weight }),
        blkio_device_read_bps: list(host.blkio_device_read_bps.as_ref(), throttle_to_core),
        blkio_device_write_bps: list(host.blkio_device_write_bps.as_ref(), throttle_to_core),
        blkio_device_read_iops: list(host.blkio_device_read_iops.as_ref(), throttle_to_core),
        blkio_device_write_iops: list(host.blkio_device_write_iops.as_ref(), throttle_to_core),
        devices: list(host.devices.as_ref(), device_to_core),
        device_cgroup_rules: host.device_cgroup_rules.clone().unwrap_or_default(),
        device_requests: list(host.device_requests.as_ref(), device_request_to_core),
        cgroup_parent: host.cgroup_parent.clone(),
        cpu_count: host.cpu_count,
        cpu_percent: host.cpu_percent,
        io_maximum_iops: host.io_maximum_iops,
        io_maximum_bandwidth: host.io_maximum_bandwidth,
    }
}

/// `POST /containers/{id}/update`: the host's fields that it has, and the policy if one is named.
pub(crate) fn update_to_core(id: String, body: UpdateRequest) -> core::UpdateContainer {
    let host = dto::HostConfig {
        cpu_shares: body.cpu_shares,
        memory: body.memory,
        nano_cpus: body.nano_cpus,
        cgroup_parent: body.cgroup_parent,
        blkio_weight: body.blkio_weight,
        blkio_weight_device: body.blkio_weight_device,
        blkio_device_read_bps: body.blkio_device_read_bps,
        blkio_device_write_bps: body.blkio_device_write_bps,
        blkio_device_read_iops: body.blkio_device_read_iops,
        blkio_device_write_iops: body.blkio_device_write_iops,
        cpu_period: body.cpu_period,
        cpu_quota: body.cpu_quota,
        cpu_realtime_period: body.cpu_realtime_period,
        cpu_realtime_runtime: body.cpu_realtime_runtime,
        cpuset_cpus: body.cpuset_cpus,
        cpuset_mems: body.cpuset_mems,
        devices: body.devices,
        device_cgroup_rules: body.device_cgroup_rules,
        device_requests: body.device_requests,
        kernel_memory: body.kernel_memory,
        kernel_memory_tcp: body.kernel_memory_tcp,
        memory_reservation: body.memory_reservation,
        memory_swap: body.memory_swap,
        memory_swappiness: body.memory_swappiness,
        oom_kill_disable: body.oom_kill_disable,
        pids_limit: body.pids_limit,
        ulimits: body.ulimits,
        cpu_count: body.cpu_count,
        cpu_percent: body.cpu_percent,
        io_maximum_iops: body.io_maximum_iops,
        io_maximum_bandwidth: body.io_maximum_bandwidth,
        ..dto::HostConfig::default()
    };
    let restart_policy = (!body.restart_policy.name.is_empty()).then(|| restart_policy_to_core(body.restart_policy));
    core::UpdateContainer { id, resources: resources_to_core(&host), restart_policy }
}

fn list<A, B>(items: Option<&Vec<A>>, convert: impl Fn(&A) -> B) -> Vec<B> {
    items.map(|items| items.iter().map(convert).collect()).unwrap_or_default()
}

fn throttle_to_core(device: &dto::ThrottleDevice) -> core::ThrottleDevice {
    core::ThrottleDevice { path: device.path.clone(), rate: device.rate }
}

fn device_to_core(device: &dto::DeviceMapping) -> core::DeviceMapping {
    core::DeviceMapping {
        path_on_host: device.path_on_host.clone(),
        path_in_container: device.path_in_container.clone(),
        cgroup_permissions: device.cgroup_permissions.clone(),
    }
}

fn device_request_to_core(request: &dto::DeviceRequest) -> core::DeviceRequest {
    core::DeviceRequest {
        driver: request.driver.clone(),
        count: request.count,
        device_ids: request.device_ids.clone().unwrap_or_default(),
        capabilities: request.capabilities.clone().unwrap_or_default(),
        options: request.options.clone().unwrap_or_default(),
    }
}

fn mount_to_core(mount: dto::Mount) -> Result<core::MountRequest, ApiError> {
    let foreign = [(mount.image_options.is_some(), "ImageOptions"), (mount.cluster_options.is_some(), "ClusterOptions")];
    if let Some((_, name)) = foreign.iter().find(|(given, _)| *given) {
        return Err(ApiError::bad_request(format!("invalid mount config for type \"{}\": {name} is not supported", mount.kind)));
    }
    Ok(core::MountRequest {
        kind: mount.kind,
        source: mount.source,
        target: mount.target,
        read_only: mount.read_only,
        consistency: mount.consistency,
        bind: mount.bind_options.map(|bind| core::BindOptions {
            propagation: bind.propagation,
            non_recursive: bind.non_recursive,
            create_mountpoint: bind.create_mountpoint,
            read_only_non_recursive: bind.read_only_non_recursive,
            read_only_force_recursive: bind.read_only_force_recursive,
        }),
        volume: mount.volume_options.map(|volume| {
            let driver = volume.driver_config.unwrap_or_default();
            core::VolumeOptions {
                no_copy: volume.no_copy,
                labels: volume.labels.unwrap_or_default(),
                subpath: volume.subpath,
                driver: driver.name,
                driver_options: driver.options.unwrap_or_default(),
            }
        }),
        tmpfs: mount.tmpfs_options.map(|tmpfs| core::TmpfsOptions { size: tmpfs.size_bytes, mode: tmpfs.mode, options: tmpfs.options }),
    })
}

/// As `inspect` prints it: the lists that dockerd prints as `[]` are there, the others `null` when empty.
pub(crate) fn to_dto(host: &core::HostConfig) -> dto::HostConfig {
    let head = dto::HostConfig {
        binds: some(&host.binds),
        container_id_file: host.container_id_file.clone(),
        log_config: dto::LogConfig { driver: host.log_config.driver.clone(), config: Some(host.log_config.options.clone()) },
        network_mode: host.network_mode.clone(),
        port_bindings: Some(port_bindings_to_dto(&host.port_bindings)),
        restart_policy: dto::RestartPolicy {
            name: host.restart_policy.name.clone(),
            maximum_retry_count: host.restart_policy.maximum_retry_count,
        },
        auto_remove: host.auto_remove,
        volume_driver: host.volume_driver.clone(),
        volumes_from: some(&host.volumes_from),
        console_size: host.console_size.map_or([0, 0], |(rows, columns)| [rows.into(), columns.into()]),
        annotations: some_map(&host.annotations),
        cap_add: some(&host.cap_add).map(StrSlice),
        cap_drop: some(&host.cap_drop).map(StrSlice),
        cgroupns_mode: host.cgroupns_mode.clone(),
        dns: Some(host.dns.clone()),
        dns_options: Some(host.dns_options.clone()),
        dns_search: Some(host.dns_search.clone()),
        extra_hosts: some(&host.extra_hosts),
        group_add: some(&host.group_add),
        ipc_mode: host.ipc_mode.clone(),
        cgroup: host.cgroup.clone(),
        links: some(&host.links),
        oom_score_adj: host.oom_score_adj,
        pid_mode: host.pid_mode.clone(),
        privileged: host.privileged,
        publish_all_ports: host.publish_all_ports,
        readonly_rootfs: host.readonly_rootfs,
        security_opt: some(&host.security_opt),
        storage_opt: some_map(&host.storage_opt),
        tmpfs: some_map(&host.tmpfs),
        uts_mode: host.uts_mode.clone(),
        userns_mode: host.userns_mode.clone(),
        shm_size: host.shm_size,
        sysctls: some_map(&host.sysctls),
        runtime: host.runtime.clone(),
        isolation: host.isolation.clone(),
        mounts: some(&host.mounts).map(|mounts| mounts.iter().map(mount_to_dto).collect()),
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        init: host.init,
        ..dto::HostConfig::default()
    };
    with_resources(head, &host.resources)
}

fn with_resources(head: dto::HostConfig, resources: &core::Resources) -> dto::HostConfig {
    dto::HostConfig {
        cpu_shares: resources.cpu_shares,
        memory: resources.memory,
        nano_cpus: resources.nano_cpus,
        cgroup_parent: resources.cgroup_parent.clone(),
        blkio_weight: resources.blkio_weight,
        blkio_weight_device: Some(list(Some(&resources.blkio_weight_device), |d| dto::WeightDevice {
            path: d.path.clone(),
            weight: d.weight,
        })),
        blkio_device_read_bps: throttles(&resources.blkio_device_read_bps),
        blkio_device_write_bps: throttles(&resources.blkio_device_write_bps),
        blkio_device_read_iops: throttles(&resources.blkio_device_read_iops),
        blkio_device_write_iops: throttles(&resources.blkio_device_write_iops),
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_realtime_period: resources.cpu_realtime_period,
        cpu_realtime_runtime: resources.cpu_realtime_runtime,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        devices: Some(list(Some(&resources.devices), device_to_dto)),
        device_cgroup_rules: some(&resources.device_cgroup_rules),
        device_requests: some(&resources.device_requests).map(|list| list.iter().map(device_request_to_dto).collect()),
        kernel_memory: resources.kernel_memory,
        kernel_memory_tcp: resources.kernel_memory_tcp,
        memory_reservation: resources.memory_reservation,
        memory_swap: resources.memory_swap,
        memory_swappiness: resources.memory_swappiness,
        oom_kill_disable: resources.oom_kill_disable,
        pids_limit: resources.pids_limit,
        ulimits: Some(list(Some(&resources.ulimits), |u| dto::Ulimit { name: u.name.clone(), hard: u.hard, soft: u.soft })),
        cpu_count: resources.cpu_count,
        cpu_percent: resources.cpu_percent,
        io_maximum_iops: resources.io_maximum_iops,
        io_maximum_bandwidth: resources.io_maximum_bandwidth,
        ..head
    }
}

fn some<T: Clone>(items: &[T]) -> Option<Vec<T>> {
    (!items.is_empty()).then(|| items.to_vec())
}

fn throttles(devices: &[core::ThrottleDevice]) -> Option<Vec<dto::ThrottleDevice>> {
    let device = |d: &core::ThrottleDevice| dto::ThrottleDevice { path: d.path.clone(), rate: d.rate };
    (!devices.is_empty()).then(|| devices.iter().map(device).collect())
}

fn port_bindings_to_dto(map: &std::collections::BTreeMap<String, Vec<core::PortBinding>>) -> dto::PortMap {
    let binding = |b: &core::PortBinding| dto::PortBinding { host_ip: b.host_ip.clone(), host_port: b.host_port.clone() };
    map.iter().map(|(port, list)| (port.clone(), Some(list.iter().map(binding).collect()))).collect()
}

fn device_to_dto(device: &core::DeviceMapping) -> dto::DeviceMapping {
    dto::DeviceMapping {
        path_on_host: device.path_on_host.clone(),
        path_in_container: device.path_in_container.clone(),
        cgroup_permissions: device.cgroup_permissions.clone(),
    }
}

fn device_request_to_dto(request: &core::DeviceRequest) -> dto::DeviceRequest {
    dto::DeviceRequest {
        driver: request.driver.clone(),
        count: request.count,
        device_ids: some(&request.device_ids),
        capabilities: some(&request.capabilities),
        options: Some(request.options.clone()),
    }
}

fn mount_to_dto(mount: &core::MountRequest) -> dto::Mount {
    dto::Mount {
        kind: mount.kind.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
        consistency: mount.consistency.clone(),
        bind_options: mount.bind.as_ref().map(|bind| dto::BindOptions {
            propagation: bind.propagation.clone(),
            non_recursive: bind.non_recursive,
            create_mountpoint: bind.create_mountpoint,
            read_only_non_recursive: bind.read_only_non_recursive,
            read_only_force_recursive: bind.read_only_force_recursive,
        }),
        volume_options: mount.volume.as_ref().map(|volume| dto::VolumeOptions {
            no_copy: volume.no_copy,
            labels: some_map(&volume.labels),
            subpath: volume.subpath.clone(),
            driver_config: (!volume.driver.is_empty() || !volume.driver_options.is_empty())
                .then(|| dto::VolumeDriver { name: volume.driver.clone(), options: some_map(&volume.driver_options) }),
        }),
        image_options: None,
        tmpfs_options: mount.tmpfs.as_ref().map(|tmpfs| dto::TmpfsOptions {
            size_bytes: tmpfs.size,
            mode: tmpfs.mode,
            options: tmpfs.options.clone(),
        }),
        cluster_options: None,
    }
}
