//! Published ports: forms and conflicts.

use std::collections::BTreeMap;

use rcontainerd_network::{PortRequest, Protocol};
use rcontainerd_types::{Error, Result};

use super::super::config::{Config, HostConfig, PortBinding};

/// Forms only: ports that are published in a mode without a network of the container's own are ignored without a word, as in Docker.
pub(super) fn check(config: &Config, host: &HostConfig) -> Result<()> {
    for port in &config.exposed_ports {
        parse_port(port)?;
    }
    requests(config, host).map(drop)
}

/// Every port to publish.
pub fn requests(config: &Config, host: &HostConfig) -> Result<Vec<PortRequest>> {
    let mut all = Vec::new();
    let mut bindings: BTreeMap<&str, &[PortBinding]> =
        host.port_bindings.iter().map(|(port, list)| (port.as_str(), list.as_slice())).collect();
    if host.publish_all_ports {
        for port in &config.exposed_ports {
            bindings.entry(port).or_insert(&[]);
        }
    }
    for (port, list) in bindings {
        let (container_port, protocol) = parse_port(port)?;
        if list.is_empty() {
            all.push(PortRequest { container_port, protocol, host_ip: None, host_port: None });
        }
        for binding in list {
            let host_ip = match binding.host_ip.trim_matches(['[', ']']) {
                "" => None,
                text => Some(text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?),
            };
            all.push(PortRequest { container_port, protocol, host_ip, host_port: parse_range(&binding.host_port)? });
        }
    }
    Ok(all)
}

/// `80/tcp`, `80`.
pub fn parse_port(text: &str) -> Result<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 =
        port.parse().ok().filter(|number| *number != 0).ok_or_else(|| Error::invalid(format!("invalid containerPort: {text}")))?;
    Ok((number, protocol.parse()?))
}

fn parse_range(text: &str) -> Result<Option<(u16, u16)>> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let bad = || Error::invalid(format!("invalid hostPort: {text}"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first == 0 || last < first { Err(bad()) } else { Ok(Some((first, last))) }
}
