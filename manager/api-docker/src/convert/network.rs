//! Networks as list and inspect print them.

use proto_docker::network::{EndpointResource, Ipam, IpamConfig, Network as NetworkDto};
use rcontainerd_core::networks::{IpamPool, Network, NetworkMember};

use crate::wire::time::rfc3339;

pub(crate) fn network(network: &Network) -> NetworkDto {
    NetworkDto {
        name: network.name.clone(),
        id: network.id.clone(),
        created: rfc3339(network.created),
        scope: "local".to_owned(),
        driver: network.driver.clone(),
        enable_ipv4: Some(network.enable_ipv4),
        enable_ipv6: network.enable_ipv6,
        ipam: Ipam { driver: "default".to_owned(), options: None, config: Some(network.ipam.iter().map(pool).collect()) },
        internal: network.internal,
        attachable: false,
        ingress: false,
        config_only: false,
        containers: network.containers.iter().map(|(id, member)| (id.clone(), endpoint(member))).collect(),
        options: Some(network.options.clone()),
        labels: Some(network.labels.clone()),
        ..NetworkDto::default()
    }
}

fn pool(pool: &IpamPool) -> IpamConfig {
    IpamConfig { subnet: pool.subnet.clone(), gateway: pool.gateway.clone(), ..IpamConfig::default() }
}

fn endpoint(member: &NetworkMember) -> EndpointResource {
    EndpointResource {
        name: member.name.clone(),
        endpoint_id: member.endpoint_id.clone(),
        mac_address: member.mac_address.clone(),
        ipv4_address: member.ipv4_address.clone(),
        ipv6_address: member.ipv6_address.clone(),
    }
}
