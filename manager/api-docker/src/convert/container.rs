//! Containers as list and inspect print them.

use std::collections::BTreeMap;

use proto_docker::config::Config as ConfigDto;
use proto_docker::container::{self as dto, SummaryHostConfig, SummaryNetworkSettings};
use proto_docker::host_config::{HostConfig as HostConfigDto, PortBinding, PortMap};
use proto_docker::inspect::{ContainerInspect, ContainerState, GraphDriver, Health, HealthcheckResult, NetworkSettings};
use proto_docker::network::EndpointSettings;
use rcontainerd_core::containers::{
    Container, ContainerDetails, ContainerSummary, Endpoint, EndpointRequest, Health as CoreHealth, MountPoint, Outline, Probe,
    PublishedPort, State, Status,
};

use super::create::{config_dto, endpoint_dto};
use super::host_config;
use crate::wire::time::{rfc3339, rfc3339_or_never};

/// An element of the list.
pub(crate) fn summary(summary: &ContainerSummary) -> dto::ContainerSummary {
    let container = &summary.container;
    dto::ContainerSummary {
        id: container.id.clone(),
        names: std::iter::once(&container.name).chain(&summary.link_names).map(|name| format!("/{name}")).collect(),
        image: summary.image.clone(),
        image_id: container.image_id.clone(),
        command: command_line(container),
        created: container.created.as_second(),
        ports: summary.ports.iter().map(port).collect(),
        size_rw: signed(summary.size_rw.unwrap_or_default()),
        size_root_fs: signed(summary.size_root_fs.unwrap_or_default()),
        labels: container.config.labels.clone(),
        state: container.state.status.as_str().to_owned(),
        status: summary.status.clone(),
        host_config: SummaryHostConfig {
            network_mode: container.host_config.network_mode.clone(),
            annotations: container.host_config.annotations.clone(),
        },
        network_settings: SummaryNetworkSettings { networks: networks(&container.endpoints, &container.state.networks, &summary.networks) },
        mounts: container.mounts.iter().map(mount).collect(),
    }
}

/// Path and arguments, those with blanks quoted, as dockerd joins them.
fn command_line(container: &Outline) -> String {
    let words = std::iter::once(&container.path).chain(&container.args);
    let quoted = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    match container.args.is_empty() {
        true => container.path.clone(),
        false => words.map(quoted).collect::<Vec<_>>().join(" "),
    }
}

fn port(port: &PublishedPort) -> dto::Port {
    dto::Port { ip: port.host_ip.clone(), private_port: port.container_port, public_port: port.host_port, protocol: port.protocol.clone() }
}

fn mount(mount: &MountPoint) -> dto::MountPoint {
    dto::MountPoint {
        kind: mount.kind.as_str().to_owned(),
        name: mount.name.clone(),
        source: mount.source.clone(),
        destination: mount.destination.clone(),
        driver: mount.driver.clone(),
        mode: mount.mode.clone(),
        rw: mount.read_write,
        propagation: mount.propagation.clone(),
    }
}

/// Everything of one container.
pub(crate) fn inspect(details: &ContainerDetails) -> ContainerInspect {
    let container = &details.container;
    ContainerInspect {
        id: container.id.clone(),
        created: rfc3339(container.created),
        path: container.path.clone(),
        args: container.args.clone(),
        state: state(&container.state),
        image: container.image_id.clone(),
        resolv_conf_path: details.resolv_conf_path.clone(),
        hostname_path: details.hostname_path.clone(),
        hosts_path: details.hosts_path.clone(),
        log_path: details.log_path.clone(),
        name: format!("/{}", container.name),
        restart_count: container.state.restart_count.into(),
        driver: details.storage_driver.clone(),
        platform: container.platform.split('/').next().unwrap_or_default().to_owned(),
        mount_label: String::new(),
        process_label: String::new(),
        app_armor_profile: String::new(),
        exec_ids: (!details.exec_ids.is_empty()).then(|| details.exec_ids.clone()),
        host_config: host_config(container),
        graph_driver: GraphDriver { data: Some(details.graph_driver.clone()), name: details.storage_driver.clone() },
        size_rw: details.size_rw.map(signed),
        size_root_fs: details.size_root_fs.map(signed),
        mounts: container.mounts.iter().map(mount).collect(),
        config: config(container),
        network_settings: network_settings(details),
    }
}

fn config(container: &Container) -> ConfigDto {
    ConfigDto { hostname: container.hostname.clone(), ..config_dto(&container.config) }
}

fn host_config(container: &Container) -> HostConfigDto {
    host_config::to_dto(&container.host_config)
}

fn state(state: &State) -> ContainerState {
    ContainerState {
        status: state.status.as_str().to_owned(),
        running: state.status.is_running(),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        dead: state.status == Status::Dead,
        pid: state.pid.into(),
        exit_code: state.exit_code,
        error: state.error.clone(),
        started_at: rfc3339_or_never(state.started_at),
        finished_at: rfc3339_or_never(state.finished_at),
        health: state.health.as_ref().map(health),
    }
}

fn health(health: &CoreHealth) -> Health {
    let result = |probe: &Probe| HealthcheckResult {
        start: rfc3339(probe.start),
        end: rfc3339(probe.end),
        exit_code: probe.exit_code,
        output: probe.output.clone(),
    };
    Health {
        status: health.status.as_str().to_owned(),
        failing_streak: health.failing_streak.into(),
        log: health.log.iter().map(result).collect(),
    }
}

fn network_settings(details: &ContainerDetails) -> NetworkSettings {
    let container = &details.container;
    let networks = networks(&container.endpoints, &container.state.networks, &details.networks);
    let main = networks.get("bridge").cloned().unwrap_or_default();
    NetworkSettings {
        sandbox_id: if details.sandbox_key.is_empty() { String::new() } else { container.id.clone() },
        sandbox_key: details.sandbox_key.clone(),
        ports: port_map(&details.ports),
        endpoint_id: main.endpoint_id,
        gateway: main.gateway,
        global_ipv6_address: main.global_ipv6_address,
        global_ipv6_prefix_len: main.global_ipv6_prefix_len,
        ip_address: main.ip_address,
        ip_prefix_len: main.ip_prefix_len,
        ipv6_gateway: main.ipv6_gateway,
        mac_address: main.mac_address,
        networks,
        ..NetworkSettings::default()
    }
}

/// `80/tcp` → where; `null` for a port that is only exposed.
fn port_map(ports: &[PublishedPort]) -> PortMap {
    let mut map = PortMap::new();
    for port in ports {
        let bindings = map.entry(format!("{}/{}", port.container_port, port.protocol)).or_default();
        if port.host_port != 0 {
            let binding = PortBinding { host_ip: port.host_ip.clone(), host_port: port.host_port.to_string() };
            bindings.get_or_insert_default().push(binding);
        }
    }
    map
}

/// The networks a container is on, or will be once it runs; `ids` by their names.
fn networks(
    asked: &BTreeMap<String, EndpointRequest>,
    given: &BTreeMap<String, Endpoint>,
    ids: &BTreeMap<String, String>,
) -> BTreeMap<String, EndpointSettings> {
    let asked = asked.iter().map(|(name, request)| (name.clone(), endpoint_dto(request)));
    let mut networks: BTreeMap<String, EndpointSettings> = asked.collect();
    for (name, endpoint) in given {
        let entry = networks.entry(name.clone()).or_default();
        fill(entry, endpoint);
    }
    // Also one that does not run tells which networks it is on: docker compose makes it anew otherwise.
    for (name, id) in ids {
        networks.entry(name.clone()).or_default().network_id.clone_from(id);
    }
    networks
}

fn fill(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    settings.network_id.clone_from(&endpoint.network_id);
    settings.endpoint_id.clone_from(&endpoint.endpoint_id);
    settings.gateway.clone_from(&endpoint.ipv4_gateway);
    settings.ip_address.clone_from(&endpoint.ipv4_address);
    settings.ip_prefix_len = endpoint.ipv4_prefix_len;
    settings.ipv6_gateway.clone_from(&endpoint.ipv6_gateway);
    settings.global_ipv6_address.clone_from(&endpoint.ipv6_address);
    settings.global_ipv6_prefix_len = endpoint.ipv6_prefix_len;
    settings.mac_address.clone_from(&endpoint.mac_address);
    settings.dns_names = (!endpoint.dns_names.is_empty()).then(|| endpoint.dns_names.clone());
    if !endpoint.aliases.is_empty() {
        settings.aliases = Some(endpoint.aliases.clone());
    }
}

pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(container_port: u16, host_ip: &str, host_port: u16) -> PublishedPort {
        PublishedPort { container_port, protocol: "tcp".into(), host_ip: host_ip.into(), host_port }
    }

    #[test]
    fn exposed_ports_are_null_and_published_ones_are_grouped() {
        let map = port_map(&[published(80, "0.0.0.0", 8080), published(80, "::", 8080), published(443, "", 0)]);
        assert_eq!(
            serde_json::to_string(&map).expect("a map"),
            r#"{"443/tcp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]}"#
        );
    }
}
