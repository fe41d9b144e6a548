//! `container:ID` modes: a namespace that another container has.

use rcontainerd_types::{Error, Result};

use super::super::config::{Config, HostConfig};

/// The container whose namespace is joined, if the mode says so.
pub fn other(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
}

/// `container:ID`, or one of the words.
pub(super) fn mode(what: &str, value: &str, words: &[&str]) -> Result<()> {
    match other(value) {
        Some("") => Err(Error::invalid(format!("invalid {what}: {value}"))),
        Some(_) => Ok(()),
        None => super::one_of(what, value, words),
    }
}

/// What belongs to the other container cannot be set by this one.
pub(super) fn check_shared_network(config: &Config, host: &HostConfig) -> Result<()> {
    let set = [
        ("hostname and the network mode", !config.hostname.is_empty()),
        ("links and the network mode", !host.links.is_empty()),
        ("dns and the network mode", !host.dns.is_empty()),
        ("custom host-to-IP mapping and the network mode", !host.extra_hosts.is_empty()),
        ("mac-address and the network mode", !config.mac_address.is_empty()),
        ("port publishing and the container type network mode", !host.port_bindings.is_empty() || host.publish_all_ports),
        ("port exposing and the container type network mode", !config.exposed_ports.is_empty()),
    ];
    match set.into_iter().find(|(_, set)| *set) {
        Some((what, _)) => Err(Error::invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}
