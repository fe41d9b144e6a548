//! Networks as Docker's API shows them: `bridge`, `host`, `none`.

mod service;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use service::Networks;

/// The id of a built-in network: stable over restarts, since clients remember it.
pub(crate) fn id_of(name: &str) -> String {
    rcontainerd_types::Digest::sha256(format!("rcontainerd network {name}").as_bytes()).hex().to_owned()
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
    pub ipam: Vec<IpamPool>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Running containers on it, by container id.
    pub containers: BTreeMap<String, NetworkMember>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpamPool {
    pub subnet: String,
    pub gateway: String,
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
