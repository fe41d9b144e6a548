//! Networks as list and inspect print them.

use proto_docker::network::{EndpointResource, Ipam, IpamConfig, Network as NetworkDto, NetworkCreateRequest};
use rcontainerd_core::networks::{CreateNetwork, IpamPool, Network, NetworkMember, PoolRequest};

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
        attachable: network.attachable,
        ingress: false,
        config_only: false,
        containers: network.containers.iter().map(|(id, member)| (id.clone(), endpoint(member))).collect(),
        options: Some(network.options.clone()),
        labels: Some(network.labels.clone()),
        ..NetworkDto::default()
    }
}

fn pool(pool: &IpamPool) -> IpamConfig {
    IpamConfig {
        subnet: pool.subnet.clone(),
        ip_range: pool.ip_range.clone(),
        gateway: pool.gateway.clone(),
        auxiliary_addresses: pool.auxiliary.clone(),
    }
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

/// The body of `POST /networks/create` as core's command; core refuses what it does not support, by name.
pub(crate) fn create(body: NetworkCreateRequest) -> CreateNetwork {
    let ipam = body.ipam.unwrap_or_default();
    let pool = |config: IpamConfig| PoolRequest {
        subnet: config.subnet,
        ip_range: config.ip_range,
        gateway: config.gateway,
        auxiliary: config.auxiliary_addresses,
    };
    CreateNetwork {
        name: body.name,
        driver: body.driver,
        internal: body.internal,
        attachable: body.attachable,
        enable_ipv4: body.enable_ipv4,
        enable_ipv6: body.enable_ipv6.unwrap_or_default(),
        ipam_driver: ipam.driver,
        ipam_options: ipam.options.map_or(0, |options| options.len()),
        pools: ipam.config.unwrap_or_default().into_iter().map(pool).collect(),
        options: body.options.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
        config_only: body.config_only || body.config_from.is_some_and(|from| !from.network.is_empty()),
        ingress: body.ingress,
        scope: body.scope,
    }
}
