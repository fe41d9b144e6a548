//! Our nftables table: masquerading, isolation, published ports. Every change is one `nft -f -` transaction (nft(8)).
//!
//! ```text
//! table ip NAME
//!   map  ports        proto . port           : address . port     published on every address of the host
//!   map  ports_at     address . proto . port : address . port     published on one address
//!   martians (prerouting)  loopback addresses arriving from the bridge are dropped (route_localnet opens them)
//!   published (prerouting, output) look-ups in the two maps
//!   egress (postrouting)  egress, hairpin and connections from 127.0.0.1 are masqueraded
//!   forward (forward)  into the bridge: only replies and published ports; out of it: everything
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

impl Firewall {
    pub fn new(table: &str) -> Result<Self> {
        let well_formed = table.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && table.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        if !well_formed {
            return Err(Error::invalid(format!("nftables table name {table:?} is invalid: expected letters, digits and '_'")));
        }
        Ok(Self { table: table.to_owned() })
    }

    /// Makes the table anew, without published ports.
    pub fn install(&self, bridge: &str, subnet: Ipv4Net) -> Result<()> {
        apply(&base_rules(&self.table, bridge, subnet))
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

    /// Publishes the ports of all `live` attachments in one transaction.
    pub fn restore(&self, live: &[Attachment]) -> Result<()> {
        let script: String = live.iter().map(|attachment| elements("add", &self.table, attachment, &attachment.ports)).collect();
        apply_unless_empty(&script)
    }

    pub fn remove(&self) -> Result<()> {
        // `add` first makes `delete` succeed whether or not the table is there.
        apply(&format!("add table ip {0}\ndelete table ip {0}\n", self.table))
    }
}

fn base_rules(table: &str, bridge: &str, subnet: Ipv4Net) -> String {
    format!(
        r#"add table ip {table}
delete table ip {table}
table ip {table} {{
  map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain martians {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
    iifname "{bridge}" ip saddr 127.0.0.0/8 drop
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
    ip saddr {subnet} oifname != "{bridge}" masquerade
    ip saddr {subnet} ip daddr {subnet} ct status dnat masquerade
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{bridge}" ct state established,related accept
    iifname "{bridge}" accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
  }}
}}
"#
    )
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

fn apply(script: &str) -> Result<()> {
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
    if stderr.contains("Operation not supported") || stderr.contains("Protocol not supported") {
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
    fn table_names_that_could_smuggle_rules_are_refused() {
        for bad in ["", "a b", "a;b", "1a", "a}"] {
            assert!(Firewall::new(bad).is_err(), "{bad:?} should be refused");
        }
    }
}
