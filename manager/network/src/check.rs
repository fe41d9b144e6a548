//! What this host offers for networks.

use std::process::{Command, Stdio};

use rcontainerd_types::{Finding, Severity};

/// Looks, changes nothing.
pub fn check() -> Vec<Finding> {
    vec![nftables(), forwarding()]
}

fn nftables() -> Finding {
    let listed = Command::new("nft").args(["list", "tables"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let (severity, observed, remedy) = match listed {
        Ok(output) if output.status.success() => (Severity::Ok, "nft answers".to_owned(), String::new()),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
            (Severity::Degraded, format!("nft cannot list tables: {why}"), "run as root on a kernel with nf_tables".to_owned())
        }
        Err(err) => (Severity::Degraded, format!("nft cannot be run: {err}"), "apt-get install nftables".to_owned()),
    };
    let cost = if severity == Severity::Ok { "" } else { "no default bridge and no published ports; --network none and host work" };
    Finding { severity, subject: "nftables".into(), observed, cost: cost.into(), remedy }
}

fn forwarding() -> Finding {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let value = std::fs::read_to_string(path).unwrap_or_default();
    let observed = match value.trim() {
        "1" => "on".to_owned(),
        "0" => "off; it is turned on with the first container on a bridge".to_owned(),
        _ => format!("{path} cannot be read"),
    };
    Finding { severity: Severity::Ok, subject: "IPv4 forwarding".into(), observed, cost: String::new(), remedy: String::new() }
}
