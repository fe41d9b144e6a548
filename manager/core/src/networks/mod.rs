//! Networks as Docker's API shows them: `bridge`, `host`, `none`, and those that users make.

pub(crate) mod catalog;
mod create;
mod service;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use service::Networks;

use crate::containers::config::EndpointRequest;

/// The bridges of all user-defined networks, for who removes everything.
///
/// # Errors
/// When the records cannot be read.
pub fn definitions(store: &rcontainerd_store::Store) -> rcontainerd_types::Result<Vec<rcontainerd_network::BridgeNetwork>> {
    Ok(catalog::Catalog::load(store)?.all().into_iter().map(|record| record.bridge).collect())
}

/// The id of a built-in network: stable over restarts, since clients remember it.
pub(crate) fn id_of(name: &str) -> String {
    rcontainerd_types::Digest::sha256(format!("rcontainerd network {name}").as_bytes()).hex().to_owned()
}

/// `network create`. Strings are as the user wrote them; empty ones were not given.
#[derive(Clone, Debug, Default)]
pub struct CreateNetwork {
    pub name: String,
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: bool,
    pub ipam_driver: String,
    /// How many were given.
    pub ipam_options: usize,
    pub pools: Vec<PoolRequest>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub config_only: bool,
    pub ingress: bool,
    pub scope: String,
}

#[derive(Clone, Debug, Default)]
pub struct PoolRequest {
    pub subnet: String,
    pub ip_range: String,
    pub gateway: String,
    /// Name → address.
    pub auxiliary: BTreeMap<String, String>,
}

/// `network connect`.
#[derive(Clone, Debug, Default)]
pub struct ConnectNetwork {
    pub network: String,
    pub container: String,
    pub endpoint: EndpointRequest,
}

/// `network disconnect`.
#[derive(Clone, Debug, Default)]
pub struct DisconnectNetwork {
    pub network: String,
    pub container: String,
    /// Also from a network that is there no more.
    pub force: bool,
}

#[derive(Clone, Debug)]
pub struct Network {
    pub name: String,
    /// 64 hex digits.
    pub id: String,
    pub created: Timestamp,
    /// `bridge`, `host`, `null`.
    pub driver: String,
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub ipam: Vec<IpamPool>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Running containers on it, by container id.
    pub containers: BTreeMap<String, NetworkMember>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpamPool {
    pub subnet: String,
    pub ip_range: String,
    pub gateway: String,
    pub auxiliary: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkMember {
    pub name: String,
    pub endpoint_id: String,
    pub mac_address: String,
    /// `172.17.0.2/16`.
    pub ipv4_address: String,
    pub ipv6_address: String,
}
