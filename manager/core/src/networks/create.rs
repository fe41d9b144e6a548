//! From a request for a network to its record (pure), with Docker's option names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use jiff::Timestamp;
use rcontainerd_network::BridgeNetwork;
use rcontainerd_types::{Error, ErrorKind, Result};

use super::catalog::{BUILT_IN, Record};
use super::{CreateNetwork, PoolRequest};

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const INTER_CONTAINER: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";

/// # Errors
/// What Docker says of names, drivers and addresses; `Unsupported` for what this engine does not do yet.
pub(super) fn record(command: CreateNetwork, id: String) -> Result<Record> {
    check_name(&command.name)?;
    refuse(&command)?;
    let mut bridge = BridgeNetwork::new(id.clone(), format!("br-{}", rcontainerd_types::id::short(&id)));
    bridge.internal = command.internal;
    let mut auxiliary = BTreeMap::new();
    if let Some(pool) = command.pools.first() {
        apply_pool(&mut bridge, &mut auxiliary, pool)?;
    }
    let host_binding = apply_options(&mut bridge, &command.options)?;
    Ok(Record {
        id,
        name: command.name,
        created: Timestamp::now(),
        attachable: command.attachable,
        options: command.options,
        labels: command.labels,
        auxiliary,
        host_binding,
        bridge,
    })
}

fn check_name(name: &str) -> Result<()> {
    if BUILT_IN.iter().any(|(known, _)| *known == name) || name == "default" {
        return Err(predefined(name));
    }
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "invalid network name {name:?}: it needs a visible character and must have no control characters"
        )));
    }
    Ok(())
}

pub(super) fn predefined(name: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("operation is not permitted on predefined {name} network"))
}

fn refuse(command: &CreateNetwork) -> Result<()> {
    if !matches!(command.driver.as_str(), "" | "default" | "bridge") {
        let driver = &command.driver;
        return Err(match driver.as_str() {
            "host" | "null" => Error::new(ErrorKind::PermissionDenied, format!("only one instance of \"{driver}\" network is allowed")),
            "macvlan" | "ipvlan" | "overlay" => {
                Error::unsupported(format!("network driver {driver} is not supported; use the driver bridge"))
            }
            _ => Error::not_found(format!("plugin \"{driver}\" not found")),
        });
    }
    let unsupported = [
        ("IPv6 addresses of networks (--ipv6)", command.enable_ipv6),
        ("a network without IPv4 (--ipv4=false)", command.enable_ipv4 == Some(false)),
        ("an IPAM driver other than default (--ipam-driver)", !matches!(command.ipam_driver.as_str(), "" | "default")),
        ("options of an IPAM driver (--ipam-opt)", command.ipam_options > 0),
        ("more than one subnet of a network", command.pools.len() > 1),
        ("configuration-only networks (--config-only, --config-from)", command.config_only),
        ("swarm's networks (--ingress, --scope)", command.ingress || !matches!(command.scope.as_str(), "" | "local")),
    ];
    match unsupported.into_iter().find(|(_, set)| *set) {
        Some((what, _)) => Err(Error::unsupported(format!("{what}: not supported"))),
        None => Ok(()),
    }
}

fn apply_pool(bridge: &mut BridgeNetwork, auxiliary: &mut BTreeMap<String, Ipv4Addr>, pool: &PoolRequest) -> Result<()> {
    if pool.subnet.contains(':') {
        return Err(Error::unsupported(format!("IPv6 subnets of networks ({}): not supported", pool.subnet)));
    }
    bridge.subnet = optional(&pool.subnet, "subnet")?;
    bridge.gateway = optional(pool.gateway.split('/').next().unwrap_or_default(), "gateway")?;
    bridge.ip_range = optional(&pool.ip_range, "ip-range")?;
    for (name, address) in &pool.auxiliary {
        let address: Ipv4Addr = parse(address, "aux-address")?;
        auxiliary.insert(name.clone(), address);
        bridge.reserved.push(address);
    }
    Ok(())
}

/// Sets what the options say, and returns the address for published ports.
fn apply_options(bridge: &mut BridgeNetwork, options: &BTreeMap<String, String>) -> Result<Option<IpAddr>> {
    let mut host_binding = None;
    for (option, value) in options {
        match option.as_str() {
            BRIDGE_NAME => bridge.bridge.clone_from(value),
            INTER_CONTAINER => bridge.inter_container = truth(option, value)?,
            MASQUERADE => bridge.masquerade = truth(option, value)?,
            HOST_BINDING => host_binding = Some(parse(value, option)?),
            MTU => bridge.mtu = Some(parse(value, option)?),
            other if other.starts_with("com.docker.network.") => {
                return Err(Error::unsupported(format!("network option {option:?} is not supported")));
            }
            // Other words are labels that the bridge driver has no use for.
            _ => {}
        }
    }
    Ok(host_binding)
}

fn truth(option: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(Error::invalid(format!("invalid value {value:?} of network option {option}: expected true or false"))),
    }
}

fn optional<T: FromStr>(text: &str, what: &str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { parse(text, what).map(Some) }
}

fn parse<T: FromStr>(text: &str, what: &str) -> Result<T> {
    text.parse().map_err(|_| Error::invalid(format!("invalid {what} {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn told(change: impl FnOnce(&mut CreateNetwork)) -> Result<Record, String> {
        let mut command = CreateNetwork { name: "mine".into(), ..CreateNetwork::default() };
        change(&mut command);
        record(command, ID.into()).map_err(|err| err.message().to_owned())
    }

    #[test]
    fn a_plain_request_is_docker_s_default() {
        let record = told(|_| {}).expect("a record");
        assert_eq!(record.bridge, BridgeNetwork::new(ID, "br-0123456789ab"));
    }

    #[test]
    fn everything_asked_is_in_the_record() {
        let record = told(|command| {
            command.internal = true;
            command.pools = vec![PoolRequest {
                subnet: "10.5.0.0/16".into(),
                ip_range: "10.5.1.0/24".into(),
                gateway: "10.5.0.9".into(),
                auxiliary: BTreeMap::from([("router".into(), "10.5.1.1".into())]),
            }];
            let options =
                [(BRIDGE_NAME, "br-mine"), (INTER_CONTAINER, "false"), (MASQUERADE, "0"), (HOST_BINDING, "127.0.0.1"), (MTU, "1400")];
            command.options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        })
        .expect("a record");
        let expected = BridgeNetwork {
            subnet: Some("10.5.0.0/16".parse().expect("net")),
            gateway: Some(Ipv4Addr::new(10, 5, 0, 9)),
            ip_range: Some("10.5.1.0/24".parse().expect("net")),
            reserved: vec![Ipv4Addr::new(10, 5, 1, 1)],
            internal: true,
            inter_container: false,
            masquerade: false,
            mtu: Some(1400),
            ..BridgeNetwork::new(ID, "br-mine")
        };
        assert_eq!(record.bridge, expected);
        assert_eq!(record.host_binding, Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn names_have_blanks_and_foreign_options_are_kept() {
        assert_eq!(told(|c| c.name = "test 01".into()).expect("a record").name, "test 01");
        let options = BTreeMap::from([("x.y".to_owned(), "1".to_owned())]);
        assert_eq!(told(|c| c.options.clone_from(&options)).expect("a record").options, options);
    }

    #[test]
    fn what_cannot_be_is_told() {
        assert!(told(|c| c.name = "host".into()).expect_err("refused").contains("predefined host network"));
        assert!(told(|c| c.name = "a\nb".into()).expect_err("refused").contains("a\\nb"));
        assert!(told(|c| c.name = " ".into()).is_err());
        assert!(told(|c| c.name = String::new()).is_err());
        assert!(told(|c| c.driver = "weave".into()).expect_err("refused").contains("plugin \"weave\" not found"));
        assert!(told(|c| c.driver = "macvlan".into()).expect_err("refused").contains("macvlan"));
        assert!(told(|c| c.enable_ipv6 = true).expect_err("refused").contains("IPv6"));
        assert!(
            told(|c| c.options = BTreeMap::from([("com.docker.network.x".into(), "1".into())])).expect_err("refused").contains("network.x")
        );
        let pool = |subnet: &str| vec![PoolRequest { subnet: subnet.into(), ..PoolRequest::default() }];
        assert!(told(|c| c.pools = pool("10.0.0.0")).expect_err("refused").contains("invalid subnet"));
        assert!(told(|c| c.pools = pool("2001:db8::/64")).expect_err("refused").contains("IPv6"));
    }
}
