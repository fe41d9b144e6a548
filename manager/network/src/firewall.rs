//! Our nftables table: masquerading, isolation, published ports. Every change is one `nft -f -` transaction (nft(8)), so isolation
//! never has a gap.
//!
//! ```text
//! table ip NAME
//!   set  bridges, internal          interfaces of our networks; those without a way out
//!   set  friends                    bridge . bridge where containers may reach each other
//!   map  ports        proto . port           : address . port     published on every address of the host
//!   map  ports_at     address . proto . port : address . port     published on one address
//!   martians (prerouting)  loopback addresses arriving from a bridge are dropped (route_localnet opens them)
//!   published (prerouting, output) look-ups in the two maps
//!   egress (postrouting)  egress, hairpin and connections from 127.0.0.1 are masqueraded
//!   forward (forward)  into a bridge: only replies and published ports; out of it: everything but other bridges
//! ```
//! A container without published ports costs no nft process: the table does not name containers.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use ipnet::Ipv4Net;
use rcontainerd_types::{Error, ErrorKind, Result};

use crate::model::{Attachment, BoundPort};

pub struct Firewall {
    table: String,
}

/// What the rules need of one network.
#[derive(Debug)]
pub struct BridgeRules<'a> {
    pub bridge: &'a str,
    pub subnet: Ipv4Net,
    pub internal: bool,
    pub inter_container: bool,
    pub masquerade: bool,
}

impl Firewall {
    pub fn new(table: &str) -> Result<Self> {
        let well_formed = table.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && table.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        if !well_formed {
            return Err(Error::invalid(format!("nftables table name {table:?} is invalid: expected letters, digits and '_'")));
        }
        Ok(Self { table: table.to_owned() })
    }

    /// Makes the table anew with these networks and the published ports of all that is `live`.
    pub fn install(&self, bridges: &[BridgeRules<'_>], live: &[&Attachment]) -> Result<()> {
        let ports: String = live.iter().map(|attachment| elements("add", &self.table, attachment, &attachment.ports)).collect();
        apply(&(base_rules(&self.table, bridges) + &ports))
    }

    pub fn publish(&self, attachment: &Attachment) -> Result<()> {
        apply_unless_empty(&elements("add", &self.table, attachment, &attachment.ports))
    }

    pub fn unpublish(&self, attachment: &Attachment) -> Result<()> {
        match apply_unless_empty(&elements("delete", &self.table, attachment, &attachment.ports)) {
            // The table was flushed by somebody: what should be gone is gone.
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Whether the table is there.
    pub fn stands(&self) -> Result<bool> {
        crate::watch::table_exists(&self.table)
    }

    pub fn remove(&self) -> Result<()> {
        // `add` first makes `delete` succeed whether or not the table is there.
        apply(&format!("add table ip {0}\ndelete table ip {0}\n", self.table))
    }
}

fn base_rules(table: &str, bridges: &[BridgeRules<'_>]) -> String {
    let names = |wanted: fn(&BridgeRules<'_>) -> bool| {
        let names: Vec<String> = bridges.iter().filter(|rules| wanted(rules)).map(|rules| format!("\"{}\"", rules.bridge)).collect();
        names
    };
    let friends: Vec<String> = names(|rules| rules.inter_container).iter().map(|name| format!("{name} . {name}")).collect();
    let masquerade: String = bridges.iter().map(masquerading).collect();
    format!(
        r#"add table ip {table}
delete table ip {table}
table ip {table} {{
  set bridges {{ type ifname; {bridges} }}
  set internal {{ type ifname; {internal} }}
  set friends {{ type ifname . ifname; {friends} }}
  map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain martians {{
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges ip saddr 127.0.0.0/8 drop
  }}
  chain published {{
    fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports_at
    fib daddr type local dnat ip to meta l4proto . th dport map @ports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump published
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump published
  }}
  chain egress {{
    type nat hook postrouting priority srcnat; policy accept;
{masquerade}    ip saddr 127.0.0.0/8 oifname @bridges masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname @bridges ct state established,related accept
    iifname . oifname @friends accept
    iifname @internal drop
    oifname @internal drop
    oifname @bridges ct status dnat accept
    oifname @bridges drop
    iifname @bridges accept
  }}
}}
"#,
        bridges = set(&names(|_| true)),
        internal = set(&names(|rules| rules.internal)),
        friends = set(&friends),
    )
}

/// Egress unless it is not wanted, and the hairpin of a container that asks for its own network's published port.
fn masquerading(rules: &BridgeRules<'_>) -> String {
    let BridgeRules { bridge, subnet, .. } = rules;
    let egress = if rules.masquerade && !rules.internal {
        format!("    ip saddr {subnet} oifname != \"{bridge}\" masquerade\n")
    } else {
        String::new()
    };
    egress + &format!("    ip saddr {subnet} oifname \"{bridge}\" ct status dnat masquerade\n")
}

/// nft refuses an empty list of elements.
fn set(elements: &[String]) -> String {
    if elements.is_empty() { String::new() } else { format!("elements = {{ {} }}", elements.join(", ")) }
}

fn elements(verb: &str, table: &str, attachment: &Attachment, ports: &[BoundPort]) -> String {
    let mut script = String::new();
    for port in ports {
        let (map, address) =
            if port.host_ip.is_unspecified() { ("ports", String::new()) } else { ("ports_at", format!("{} . ", port.host_ip)) };
        let target = attachment.address.addr();
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            script,
            "{verb} element ip {table} {map} {{ {address}{} . {} : {target} . {} }}",
            port.protocol, port.host_port, port.container_port
        );
    }
    script
}

fn apply_unless_empty(script: &str) -> Result<()> {
    if script.is_empty() { Ok(()) } else { apply(script) }
}

/// One transaction in the calling thread's network namespace.
pub fn apply(script: &str) -> Result<()> {
    let missing = "install nftables, or use --network none|host";
    let child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|err| Error::new(ErrorKind::Unavailable, format!("run nft: {err}; {missing}")))?;
    let mut stdin = child.stdin.take().ok_or_else(|| Error::internal("nft has no standard input"))?;
    let written = stdin.write_all(script.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|err| Error::io("wait for nft", err))?;
    if !output.status.success() {
        return Err(nft_error(&String::from_utf8_lossy(&output.stderr)));
    }
    written.map_err(|err| Error::io("write rules to nft", err))
}

fn nft_error(stderr: &str) -> Error {
    let line = stderr.lines().find(|line| line.contains("Error")).unwrap_or(stderr).trim();
    if stderr.contains("No such file or directory") {
        return Error::not_found(format!("nft: {line}"));
    }
    // The third is what nft says where the kernel has no nf_tables at all.
    if ["Operation not supported", "Protocol not supported", "cache initialization failed"].iter().any(|said| stderr.contains(said)) {
        return Error::unsupported(format!("nft: {line}; this kernel has no netfilter: use --network none|host"));
    }
    Error::internal(format!("nft: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use std::net::{IpAddr, Ipv4Addr};

    fn attachment() -> Attachment {
        let port = |host_ip: IpAddr, host_port| BoundPort { container_port: 80, protocol: Protocol::Tcp, host_ip, host_port };
        Attachment {
            container: "c".into(),
            network: "bridge".into(),
            interface: "eth0".into(),
            netns: "/run/x".into(),
            bridge: "br".into(),
            host_link: "vethc".into(),
            address: "172.17.0.2/16".parse().expect("address"),
            gateway: Ipv4Addr::new(172, 17, 0, 1),
            mac: [2, 0x42, 172, 17, 0, 2],
            ports: vec![port(Ipv4Addr::UNSPECIFIED.into(), 8080), port(Ipv4Addr::LOCALHOST.into(), 8081)],
        }
    }

    #[test]
    fn ports_become_map_elements() {
        let attachment = attachment();
        assert_eq!(
            elements("add", "t", &attachment, &attachment.ports),
            "add element ip t ports { tcp . 8080 : 172.17.0.2 . 80 }\nadd element ip t ports_at { 127.0.0.1 . tcp . 8081 : 172.17.0.2 . 80 }\n"
        );
    }

    #[test]
    fn a_kernel_without_netfilter_is_told_with_the_way_around() {
        for said in [
            "netlink: Error: cache initialization failed: Invalid argument\n",
            "/dev/stdin:1:1-5: Error: Could not process rule: Operation not supported\n",
        ] {
            let err = nft_error(said);
            assert_eq!(err.kind(), ErrorKind::Unsupported);
            assert!(err.message().contains("use --network none|host"), "{err}");
        }
    }

    #[test]
    fn table_names_that_could_smuggle_rules_are_refused() {
        for bad in ["", "a b", "a;b", "1a", "a}"] {
            assert!(Firewall::new(bad).is_err(), "{bad:?} should be refused");
        }
    }
}
