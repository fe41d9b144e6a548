//! `--network` in both forms (`NAME`, `name=NAME,alias=…`), `--ip`, `--network-alias` and the like.

use proto_docker::network::{EndpointIpamConfig, EndpointSettings};
use std::collections::BTreeMap;

use crate::cmdline::Matches;

/// The main network's name and the endpoints asked for.
pub type Networks = (String, BTreeMap<String, Option<EndpointSettings>>);

/// # Errors
/// In docker's words.
pub fn parse(matches: &Matches) -> Result<Networks, String> {
    let mut given: Vec<String> = matches.list_owned("network");
    given.extend(matches.list_owned("net"));
    let mut targets = given.iter().map(|text| attachment(text)).collect::<Result<Vec<_>, _>>()?;
    if targets.is_empty() {
        targets.push(("default".to_owned(), EndpointSettings::default()));
    }
    container_options(&mut targets[0], matches)?;
    let mut endpoints = BTreeMap::new();
    let main = targets[0].0.clone();
    let several = targets.len() > 1;
    for (name, settings) in targets {
        let own = is_own(&name);
        if several && !own {
            return Err(format!("conflicting options: cannot attach both user-defined and non-user-defined network-modes ({name})"));
        }
        if settings == EndpointSettings::default() && !(own && several) {
            continue;
        }
        if !own && settings.aliases.is_some() {
            return Err("network-scoped aliases are only supported for user-defined networks".to_owned());
        }
        if endpoints.insert(name.clone(), Some(settings)).is_some() {
            return Err(format!("network {name:?} is specified multiple times"));
        }
    }
    Ok((main, endpoints))
}

fn is_own(name: &str) -> bool {
    !matches!(name, "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}

fn attachment(text: &str) -> Result<(String, EndpointSettings), String> {
    if !text.contains('=') {
        return Ok((text.to_owned(), EndpointSettings::default()));
    }
    let (mut name, mut settings) = (String::new(), EndpointSettings::default());
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => name = value.to_owned(),
            "alias" => settings.aliases.get_or_insert_default().push(value.to_owned()),
            "ip" => ipam(&mut settings).ipv4_address = value.to_owned(),
            "ip6" => ipam(&mut settings).ipv6_address = value.to_owned(),
            "mac-address" => settings.mac_address = value.to_owned(),
            "link-local-ip" => ipam(&mut settings).link_local_ips.push(value.to_owned()),
            "gw-priority" => settings.gw_priority = value.parse().map_err(|_| format!("invalid gw-priority: {value}"))?,
            "driver-opt" => {
                let (key, value) = value.split_once('=').ok_or_else(|| "invalid key value pair format in driver options".to_owned())?;
                settings.driver_opts.get_or_insert_default().insert(key.to_owned(), value.to_owned());
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if name.is_empty() { Err("network name/id is not specified".to_owned()) } else { Ok((name, settings)) }
}

fn ipam(settings: &mut EndpointSettings) -> &mut EndpointIpamConfig {
    settings.ipam_config.get_or_insert_default()
}

/// Flags of the container that belong to its first network.
fn container_options((name, settings): &mut (String, EndpointSettings), matches: &Matches) -> Result<(), String> {
    let mut aliases = matches.list_owned("network-alias");
    aliases.extend(matches.list_owned("net-alias"));
    if !aliases.is_empty() {
        if settings.aliases.is_some() {
            return Err("conflicting options: cannot specify both --network-alias and per-network alias".to_owned());
        }
        settings.aliases = Some(aliases);
    }
    for (flag, is_v6) in [("ip", false), ("ip6", true)] {
        let Some(address) = matches.str(flag) else { continue };
        let valid = if is_v6 { address.parse::<std::net::Ipv6Addr>().is_ok() } else { address.parse::<std::net::Ipv4Addr>().is_ok() };
        if !valid {
            return Err(format!("invalid --{flag}: {address:?} is not an address of that kind"));
        }
        let slot = if is_v6 { &mut ipam(settings).ipv6_address } else { &mut ipam(settings).ipv4_address };
        address.clone_into(slot);
    }
    let local = matches.list_owned("link-local-ip");
    if !local.is_empty() {
        ipam(settings).link_local_ips = local;
    }
    if let Some(mac) = matches.str("mac-address") {
        let octets: Vec<&str> = mac.trim().split([':', '-']).collect();
        if octets.len() != 6 || octets.iter().any(|octet| octet.len() != 2 || u8::from_str_radix(octet, 16).is_err()) {
            return Err(format!("{mac} is not a valid mac address"));
        }
        mac.trim().clone_into(&mut settings.mac_address);
    }
    let links = matches.list_owned("link");
    if is_own(name) && !links.is_empty() {
        settings.links = Some(links);
    }
    Ok(())
}
