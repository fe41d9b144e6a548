//! What this engine does not do yet. Each field that a client may set is either honoured elsewhere or listed here.

use rcontainerd_types::{Error, Result};

use super::super::commands::CreateContainer;
use super::super::config::{Config, EndpointRequest, HostConfig, Resources};
use super::super::{links, network};

pub(super) fn unsupported(request: &CreateContainer) -> Result<()> {
    let host = &request.host_config;
    let resources = &host.resources;
    let mut set = config(&request.config);
    set.extend(host_config(host));
    set.extend(resource_fields(resources));
    first(set)?;
    request.endpoints.values().try_for_each(endpoint)
}

/// What a client asks of one network.
pub fn endpoint(request: &EndpointRequest) -> Result<()> {
    links::check(request)?;
    network::link_local(request)?;
    first(endpoint_fields(request))
}

fn first(set: Fields) -> Result<()> {
    match set.into_iter().find(|(_, set)| *set) {
        Some((option, _)) => Err(Error::unsupported(format!("{option} is not supported"))),
        None => Ok(()),
    }
}

type Fields = Vec<(&'static str, bool)>;

fn config(config: &Config) -> Fields {
    vec![("OnBuild in a container's configuration", !config.on_build.is_empty()), ("ArgsEscaped (a Windows option)", config.args_escaped)]
}

fn host_config(host: &HostConfig) -> Fields {
    vec![
        ("--userns", !matches!(host.userns_mode.as_str(), "" | "host")),
        ("--storage-opt", !host.storage_opt.is_empty()),
        ("--isolation", !matches!(host.isolation.as_str(), "" | "default")),
        ("the host config's Cgroup", !host.cgroup.is_empty()),
    ]
}

fn resource_fields(resources: &Resources) -> Fields {
    vec![
        ("--gpus (device requests)", !resources.device_requests.is_empty()),
        ("--kernel-memory", resources.kernel_memory != 0 || resources.kernel_memory_tcp != 0),
        ("--cpu-rt-period and --cpu-rt-runtime", resources.cpu_realtime_period != 0 || resources.cpu_realtime_runtime != 0),
        ("--cpu-count (a Windows option)", resources.cpu_count != 0),
        ("--cpu-percent (a Windows option)", resources.cpu_percent != 0),
        ("--io-maxiops and --io-maxbandwidth (Windows options)", resources.io_maximum_iops != 0 || resources.io_maximum_bandwidth != 0),
    ]
}

fn endpoint_fields(endpoint: &EndpointRequest) -> Fields {
    let driver_options = endpoint.driver_options.keys().any(|key| key.starts_with("com.docker.network."));
    vec![
        ("--ip6", !endpoint.ipv6_address.is_empty()),
        // Other words are labels that the bridge driver has no use for.
        ("a driver option of an endpoint that begins with com.docker.network.", driver_options),
        ("a gateway priority", endpoint.gateway_priority != 0),
    ]
}
