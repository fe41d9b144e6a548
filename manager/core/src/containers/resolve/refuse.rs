//! What this engine does not do yet. Each field that a client may set is either honoured elsewhere or listed here.

use rcontainerd_types::{Error, Result};

use super::super::commands::CreateContainer;
use super::super::config::{Config, EndpointRequest, HostConfig, Resources};

pub(super) fn unsupported(request: &CreateContainer) -> Result<()> {
    let host = &request.host_config;
    let resources = &host.resources;
    let mut set = config(&request.config);
    set.extend(host_config(host));
    set.extend(resource_fields(resources));
    for endpoint in request.endpoints.values() {
        set.extend(endpoint_fields(endpoint));
    }
    match set.into_iter().find(|(_, set)| *set) {
        Some((option, _)) => Err(Error::unsupported(format!("{option} is not supported"))),
        None => Ok(()),
    }
}

type Fields = Vec<(&'static str, bool)>;

fn config(config: &Config) -> Fields {
    let health = config.healthcheck.as_ref().is_some_and(|health| !matches!(health.test.first().map(String::as_str), None | Some("NONE")));
    vec![
        ("a health check (--health-cmd)", health),
        ("OnBuild in a container's configuration", !config.on_build.is_empty()),
        ("ArgsEscaped (a Windows option)", config.args_escaped),
    ]
}

fn host_config(host: &HostConfig) -> Fields {
    vec![
        ("a volume driver (--volume-driver) other than local", !matches!(host.volume_driver.as_str(), "" | "local")),
        ("--volumes-from", !host.volumes_from.is_empty()),
        ("--userns", !matches!(host.userns_mode.as_str(), "" | "host")),
        ("--link", !host.links.is_empty()),
        ("a runtime (--runtime) other than rrun", !matches!(host.runtime.as_str(), "" | "rrun" | "io.containerd.rrun.v2")),
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
    vec![
        ("--ip6", !endpoint.ipv6_address.is_empty()),
        ("--link-local-ip", !endpoint.link_local_ips.is_empty()),
        ("--link", !endpoint.links.is_empty()),
        ("--network-alias on the default network", !endpoint.aliases.is_empty()),
        ("driver options of an endpoint", !endpoint.driver_options.is_empty()),
        ("a gateway priority", endpoint.gateway_priority != 0),
    ]
}
