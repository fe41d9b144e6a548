//! `network connect|create|disconnect|inspect|ls|rm`.

use std::collections::BTreeMap;

use proto_docker::network::{
    ConfigReference, EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, Network, NetworkConnectRequest, NetworkCreateRequest,
    NetworkCreateResponse, NetworkDisconnectRequest,
};

use super::common::{filters, for_each, format_flag, json_format_flag, print_rows};
use super::{inspect, prune};
use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{
    Args, Command, Entry, Flag, Matches, Outcome, Section, check, entry, filter, group, int, leaf, list, many, string, switch,
};
use crate::failure::Failure;
use crate::output;
use crate::output::template::{Columns, Row, Value};
use crate::output::units;
use crate::spec::env::key_values;

static ENTRIES: &[Entry] = &[
    entry("connect", &CONNECT),
    entry("create", &CREATE),
    entry("disconnect", &DISCONNECT),
    entry("inspect", &INSPECT),
    Entry { name: "ls", aliases: &["list"], command: &LS },
    entry("prune", &prune::NETWORK),
    Entry { name: "rm", aliases: &["remove"], command: &RM },
];

pub static COMMAND: Command = group("Manage networks", &[Section { title: "Commands", entries: ENTRIES }]);

static CONNECT_FLAGS: &[Flag] = &[
    many("alias", "", "strings", "Add a name for the container in the network"),
    many("driver-opt", "", "strings", "Options of the network's driver"),
    int("gw-priority", "", "The network with the highest one gives the default gateway"),
    string("ip", "", "IPv4 address (e.g., \"172.30.100.104\")"),
    string("ip6", "", "IPv6 address (e.g., \"2001:db8::33\")"),
    list("link", "", "Add a link to another container"),
    many("link-local-ip", "", "strings", "Link-local addresses of the container"),
];

static CONNECT: Command = Command {
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    flags: &[CONNECT_FLAGS],
    args: Args::Exactly(2),
    ..leaf(|cli, matches| Box::pin(connect(cli, matches)))
};

static CREATE_FLAGS: &[Flag] = &[
    switch("attachable", "", "Let containers be attached by hand"),
    many("aux-address", "", "map", "Further addresses that the network's driver uses").check(check::key_value),
    string("config-from", "", "Network whose configuration is copied"),
    switch("config-only", "", "Create a configuration only"),
    string("driver", "d", "Driver of the network").default("\"bridge\""),
    many("gateway", "", "strings", "Gateway of the subnet"),
    switch("ingress", "", "Create swarm routing-mesh network"),
    switch("internal", "", "No access to the outside"),
    many("ip-range", "", "strings", "Range within the subnet from which addresses are given"),
    string("ipam-driver", "", "Driver that gives addresses").default("\"default\""),
    many("ipam-opt", "", "map", "Options of the driver that gives addresses").check(check::key_value),
    switch("ipv4", "", "Give IPv4 addresses").default("true"),
    switch("ipv6", "", "Give IPv6 addresses"),
    list("label", "", "Set metadata on the network").check(check::label),
    many("opt", "o", "map", "Options of the driver").check(check::key_value),
    string("scope", "", "Scope of the network"),
    many("subnet", "", "strings", "Subnet in CIDR form"),
];

static CREATE: Command = Command {
    usage: "[OPTIONS] NETWORK",
    about: "Create a network",
    flags: &[CREATE_FLAGS],
    args: Args::Exactly(1),
    ..leaf(|cli, matches| Box::pin(create(cli, matches)))
};

static DISCONNECT_FLAGS: &[Flag] = &[switch("force", "f", "Disconnect the container whatever its state")];

static DISCONNECT: Command = Command {
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    flags: &[DISCONNECT_FLAGS],
    args: Args::Exactly(2),
    ..leaf(|cli, matches| Box::pin(disconnect(cli, matches)))
};

static INSPECT_FLAGS: &[Flag] = &[json_format_flag("f"), switch("verbose", "v", "Show what helps to find faults")];

static INSPECT: Command = Command {
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Display detailed information on one or more networks",
    flags: &[INSPECT_FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(inspect::one_kind(cli, matches, inspect::Kind::Network)))
};

static LS_FLAGS: &[Flag] = &[
    filter("f", "Show only what fits the conditions (e.g. \"driver=bridge\")"),
    format_flag(),
    switch("no-trunc", "", "Don't truncate output"),
    switch("quiet", "q", "Only display network IDs"),
];

static LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List networks",
    names: &["network ls", "network list"],
    flags: &[LS_FLAGS],
    ..leaf(|cli, matches| Box::pin(ls(cli, matches)))
};

static RM_FLAGS: &[Flag] = &[switch("force", "f", "Do not fail if the network does not exist")];

static RM: Command = Command {
    usage: "NETWORK [NETWORK...]",
    about: "Remove one or more networks",
    names: &["network rm", "network remove"],
    flags: &[RM_FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(rm(cli, matches)))
};

/// Comma-separated values of repeated flags.
fn strings(matches: &Matches, name: &str) -> Vec<String> {
    matches.list(name).iter().flat_map(|text| text.split(',')).map(str::to_owned).collect()
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

async fn connect(cli: &Cli, matches: &Matches) -> Outcome {
    let options = strings(matches, "driver-opt");
    if options.iter().any(|pair| !pair.contains('=')) {
        return Err(Failure::message("invalid key/value pair format in driver options"));
    }
    let ipam = EndpointIpamConfig {
        ipv4_address: matches.string("ip"),
        ipv6_address: matches.string("ip6"),
        link_local_ips: strings(matches, "link-local-ip"),
    };
    let endpoint = EndpointSettings {
        ipam_config: Some(ipam),
        links: some(matches.list_owned("link")),
        aliases: some(strings(matches, "alias")),
        driver_opts: (!options.is_empty()).then(|| key_values(&options)),
        gw_priority: matches.int_or("gw-priority", 0),
        ..EndpointSettings::default()
    };
    let request = NetworkConnectRequest { container: matches.arg(1).to_owned(), endpoint_config: Some(endpoint) };
    Ok(cli.client()?.post(format!("/networks/{}/connect", path_segment(matches.arg(0)))).json(&request).done().await?)
}

async fn disconnect(cli: &Cli, matches: &Matches) -> Outcome {
    let request = NetworkDisconnectRequest { container: matches.arg(1).to_owned(), force: matches.bool("force") };
    Ok(cli.client()?.post(format!("/networks/{}/disconnect", path_segment(matches.arg(0)))).json(&request).done().await?)
}

async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let ipam = Ipam {
        driver: matches.str("ipam-driver").unwrap_or("default").to_owned(),
        options: Some(key_values(matches.list("ipam-opt"))),
        config: Some(subnets(matches).map_err(Failure::message)?),
    };
    let request = NetworkCreateRequest {
        name: matches.arg(0).to_owned(),
        check_duplicate: true,
        driver: matches.str("driver").unwrap_or("bridge").to_owned(),
        scope: matches.string("scope"),
        enable_ipv4: matches.changed("ipv4").then(|| matches.bool("ipv4")),
        enable_ipv6: matches.changed("ipv6").then(|| matches.bool("ipv6")),
        ipam: Some(ipam),
        internal: matches.bool("internal"),
        attachable: matches.bool("attachable"),
        ingress: matches.bool("ingress"),
        config_only: matches.bool("config-only"),
        config_from: matches.str("config-from").map(|name| ConfigReference { network: name.to_owned() }),
        options: Some(key_values(matches.list("opt"))),
        labels: Some(key_values(matches.list("label"))),
    };
    let answer: NetworkCreateResponse = cli.client()?.post("/networks/create").json(&request).fetch().await?;
    if !answer.warning.is_empty() {
        eprintln!("WARNING: {}", answer.warning);
    }
    output::line(&answer.id)
}

/// Subnets with the ranges, gateways and further addresses that lie in each.
fn subnets(matches: &Matches) -> Result<Vec<IpamConfig>, String> {
    let subnets = strings(matches, "subnet");
    let (ranges, gateways) = (strings(matches, "ip-range"), strings(matches, "gateway"));
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err("every ip-range or gateway must have a corresponding subnet".to_owned());
    }
    let mut configs: Vec<(Cidr, IpamConfig)> = Vec::new();
    for subnet in subnets {
        let cidr = Cidr::parse(&subnet).ok_or_else(|| format!("invalid subnet {subnet}: invalid CIDR block notation"))?;
        configs.push((cidr, IpamConfig { subnet, ..IpamConfig::default() }));
    }
    let find = |configs: &mut Vec<(Cidr, IpamConfig)>, address: &str| {
        let bare = address.split('/').next().unwrap_or_default().parse().ok();
        configs.iter().position(|(cidr, _)| bare.is_some_and(|ip| cidr.contains(ip)))
    };
    for range in ranges {
        let at = find(&mut configs, &range).ok_or_else(|| format!("no matching subnet for range {range}"))?;
        configs[at].1.ip_range = range;
    }
    for gateway in gateways {
        let at = find(&mut configs, &gateway).ok_or_else(|| format!("no matching subnet for gateway {gateway}"))?;
        configs[at].1.gateway = gateway;
    }
    let auxiliary: BTreeMap<String, String> = key_values(matches.list("aux-address"));
    for (name, address) in auxiliary {
        let at = find(&mut configs, &address).ok_or_else(|| format!("no matching subnet for aux-address {address}"))?;
        configs[at].1.auxiliary_addresses.insert(name, address);
    }
    Ok(configs.into_iter().map(|(_, config)| config).collect())
}

/// An address range.
struct Cidr {
    base: std::net::IpAddr,
    bits: u32,
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (base, bits): (std::net::IpAddr, u32) = (address.parse().ok()?, bits.parse().ok()?);
        (bits <= if base.is_ipv4() { 32 } else { 128 }).then_some(Self { base, bits })
    }

    fn contains(&self, ip: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        let (one, other, width) = match (self.base, ip) {
            (V4(a), V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (V6(a), V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let shift = width - self.bits;
        one.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
    }
}

const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
    headers: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    type_name: "network.networkContext",
};

async fn ls(cli: &Cli, matches: &Matches) -> Outcome {
    let mut networks: Vec<Network> = cli.client()?.get("/networks").query_set("filters", filters(matches.list("filter"))).fetch().await?;
    networks.sort_by(|a, b| super::common::natural(&a.name, &b.name));
    let truncate = !matches.bool("no-trunc");
    let row = |network: &Network| {
        Row::new()
            .set("ID", if truncate { units::short_id(&network.id) } else { network.id.clone() })
            .set("Name", network.name.as_str())
            .set("Driver", network.driver.as_str())
            .set("Scope", network.scope.as_str())
            .set("IPv4", network.enable_ipv4.unwrap_or(true).to_string())
            .set("IPv6", network.enable_ipv6.to_string())
            .set("Internal", network.internal.to_string())
            .set("CreatedAt", Value::Time(network.created.as_str().into()).show())
            .labels(&network.labels.clone().unwrap_or_default())
    };
    print_rows(cli, matches, "networksFormat", &COLUMNS, networks.iter().map(row).collect())
}

async fn rm(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let force = matches.bool("force");
    for_each(&matches.args, async |name| match client.delete(format!("/networks/{}", path_segment(name))).done().await {
        Ok(()) => Ok(Some(name.to_owned())),
        Err(error) if force && error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_their_addresses() {
        let contains = |cidr: &str, ip: &str| Cidr::parse(cidr).is_some_and(|cidr| ip.parse().is_ok_and(|ip| cidr.contains(ip)));
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && contains("fd00::/64", "fd00::1") && !contains("10.0.0.0/8", "fd00::1"));
        assert!(Cidr::parse("10.0.0.0").is_none() && Cidr::parse("10.0.0.0/33").is_none());
    }
}
