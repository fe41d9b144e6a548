//! The body of `POST /containers/create` as core's command.

use std::collections::BTreeMap;

use proto_docker::config::{Config as ConfigDto, HealthConfig, StrSlice};
use proto_docker::container::CreateRequest;
use proto_docker::network::{EndpointIpamConfig, EndpointSettings};
use proto_docker::{Empty, StringSet};
use rcontainerd_core::containers::{Config, CreateContainer, EndpointRequest, HealthCheck};

use super::host_config;
use crate::wire::error::ApiError;

/// Translates everything the body says; what core does not support it refuses itself, by name.
///
/// # Errors
/// 400 for the options of a mount that core has no word for (`image`, `cluster`).
pub(crate) fn command(name: Option<String>, platform: Option<String>, body: CreateRequest) -> Result<CreateContainer, ApiError> {
    let mut host_config = host_config::to_core(body.host_config.unwrap_or_default())?;
    if host_config.runtime.is_empty() {
        host_config.runtime = body.runtime.unwrap_or_default();
    }
    let endpoints = body.networking_config.and_then(|networking| networking.endpoints_config).unwrap_or_default();
    Ok(CreateContainer {
        name,
        platform,
        config: config(body.config),
        host_config,
        endpoints: endpoints.into_iter().map(|(network, settings)| (network, endpoint(settings.unwrap_or_default()))).collect(),
    })
}

fn config(dto: ConfigDto) -> Config {
    Config {
        image: dto.image,
        hostname: dto.hostname,
        domainname: dto.domainname,
        user: dto.user,
        attach_stdin: dto.attach_stdin,
        attach_stdout: dto.attach_stdout,
        attach_stderr: dto.attach_stderr,
        tty: dto.tty,
        open_stdin: dto.open_stdin,
        stdin_once: dto.stdin_once,
        env: dto.env.unwrap_or_default(),
        entrypoint: dto.entrypoint.map(|list| list.0),
        cmd: dto.cmd.map(|list| list.0),
        working_dir: dto.working_dir,
        exposed_ports: dto.exposed_ports.unwrap_or_default().into_keys().collect(),
        volumes: dto.volumes.unwrap_or_default().into_keys().collect(),
        labels: dto.labels.unwrap_or_default(),
        stop_signal: dto.stop_signal,
        stop_timeout: dto.stop_timeout,
        healthcheck: dto.healthcheck.map(healthcheck),
        network_disabled: dto.network_disabled,
        mac_address: dto.mac_address,
        on_build: dto.on_build.unwrap_or_default(),
        shell: dto.shell.map(|list| list.0).unwrap_or_default(),
        args_escaped: dto.args_escaped,
    }
}

/// A container's configuration as `inspect` prints it.
pub(crate) fn config_dto(config: &Config) -> ConfigDto {
    ConfigDto {
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        user: config.user.clone(),
        attach_stdin: config.attach_stdin,
        attach_stdout: config.attach_stdout,
        attach_stderr: config.attach_stderr,
        exposed_ports: Some(set(&config.exposed_ports)),
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        env: Some(config.env.clone()),
        cmd: config.cmd.clone().map(StrSlice),
        healthcheck: config.healthcheck.as_ref().map(healthcheck_dto),
        args_escaped: config.args_escaped,
        image: config.image.clone(),
        volumes: (!config.volumes.is_empty()).then(|| set(&config.volumes)),
        working_dir: config.working_dir.clone(),
        entrypoint: config.entrypoint.clone().map(StrSlice),
        network_disabled: config.network_disabled,
        mac_address: config.mac_address.clone(),
        on_build: (!config.on_build.is_empty()).then(|| config.on_build.clone()),
        labels: Some(config.labels.clone()),
        stop_signal: config.stop_signal.clone(),
        stop_timeout: config.stop_timeout,
        shell: (!config.shell.is_empty()).then(|| StrSlice(config.shell.clone())),
    }
}

fn set<'a>(names: impl IntoIterator<Item = &'a String>) -> StringSet {
    names.into_iter().map(|name| (name.clone(), Empty {})).collect()
}

fn healthcheck(dto: HealthConfig) -> HealthCheck {
    HealthCheck {
        test: dto.test,
        interval: dto.interval,
        timeout: dto.timeout,
        start_period: dto.start_period,
        start_interval: dto.start_interval,
        retries: dto.retries,
    }
}

fn healthcheck_dto(check: &HealthCheck) -> HealthConfig {
    HealthConfig {
        test: check.test.clone(),
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    }
}

/// What a client asks of one network.
pub(crate) fn endpoint(dto: EndpointSettings) -> EndpointRequest {
    let ipam = dto.ipam_config.unwrap_or_default();
    EndpointRequest {
        ipv4_address: ipam.ipv4_address,
        ipv6_address: ipam.ipv6_address,
        link_local_ips: ipam.link_local_ips,
        aliases: dto.aliases.unwrap_or_default(),
        links: dto.links.unwrap_or_default(),
        mac_address: dto.mac_address,
        driver_options: dto.driver_opts.unwrap_or_default(),
        gateway_priority: dto.gw_priority,
    }
}

/// The asked-for part of an endpoint as `inspect` prints it; addresses are filled in by the caller.
pub(crate) fn endpoint_dto(request: &EndpointRequest) -> EndpointSettings {
    let ipam = EndpointIpamConfig {
        ipv4_address: request.ipv4_address.clone(),
        ipv6_address: request.ipv6_address.clone(),
        link_local_ips: request.link_local_ips.clone(),
    };
    EndpointSettings {
        ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
        links: (!request.links.is_empty()).then(|| request.links.clone()),
        aliases: (!request.aliases.is_empty()).then(|| request.aliases.clone()),
        mac_address: request.mac_address.clone(),
        driver_opts: some_map(&request.driver_options),
        gw_priority: request.gateway_priority,
        ..EndpointSettings::default()
    }
}

/// Go's nil for an empty map.
pub(crate) fn some_map(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A body in which every member has a value of its own: the whole, `Config` alone and `HostConfig` alone.
    fn full() -> (Value, Value, Value) {
        let body: Value = serde_json::from_str(include_str!("../../tests/bodies/create-full.json")).expect("JSON");
        let mut config = body.clone();
        let host = config.as_object_mut().expect("a map").shift_remove("HostConfig").expect("there");
        (body, config, host)
    }

    fn changed(before: &Value, after: &Value) -> Vec<String> {
        let (before, after) = (before.as_object().expect("a map"), after.as_object().expect("a map"));
        before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
    }

    #[test]
    fn nothing_a_client_says_is_dropped() {
        let (body, full_config, full_host) = full();
        let sent: CreateRequest = serde_json::from_value(body).expect("a body");
        let command = command(Some("n".into()), Some("linux/amd64".into()), sent).expect("translated");
        assert_eq!(command.name.as_deref(), Some("n"));
        assert_eq!(command.platform.as_deref(), Some("linux/amd64"));
        let config = serde_json::to_value(config_dto(&command.config)).expect("JSON");
        assert_eq!(changed(&full_config, &config), [""; 0], "{config}");
        let host = serde_json::to_value(host_config::to_dto(&command.host_config)).expect("JSON");
        assert_eq!(changed(&full_host, &host), [""; 0], "{host}");
    }

    #[test]
    fn endpoints_go_both_ways_and_null_ones_count() {
        let asked = json!({
            "IPAMConfig": {"IPv4Address": "172.20.0.5", "IPv6Address": "fd00::5", "LinkLocalIPs": ["169.254.1.1"]},
            "Links": ["l:m"], "Aliases": ["a"], "MacAddress": "02:00:00:00:00:02", "DriverOpts": {"o": "p"}, "GwPriority": 3
        });
        let body = json!({"Image": "i", "NetworkingConfig": {"EndpointsConfig": {"one": asked, "two": null}}});
        let command = command(None, None, serde_json::from_value(body).expect("a body")).expect("translated");
        assert_eq!(command.endpoints.keys().collect::<Vec<_>>(), ["one", "two"]);
        let printed = serde_json::to_value(endpoint_dto(&command.endpoints["one"])).expect("JSON");
        assert!(asked.as_object().expect("a map").iter().all(|(key, value)| printed.get(key) == Some(value)), "{printed}");
    }

    #[test]
    fn a_runtime_beside_the_host_configuration_counts() {
        let runtime =
            |body: Value| command(None, None, serde_json::from_value(body).expect("a body")).expect("translated").host_config.runtime;
        assert_eq!(runtime(json!({"Image": "i", "Runtime": "runc"})), "runc");
        assert_eq!(runtime(json!({"Image": "i", "Runtime": "runc", "HostConfig": {"Runtime": "crun"}})), "crun");
    }

    #[test]
    fn mount_options_without_a_word_in_core_are_refused() {
        let body = json!({"Image": "i", "HostConfig": {"Mounts": [{"Type": "image", "Target": "/x", "ImageOptions": {"Subpath": "y"}}]}});
        let error = command(None, None, serde_json::from_value(body).expect("a body")).expect_err("refused");
        assert_eq!(error.message(), "invalid mount config for type \"image\": ImageOptions is not supported");
    }
}
