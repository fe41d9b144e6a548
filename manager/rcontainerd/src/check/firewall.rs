//! Other people's firewalls: what they drop, our own rules cannot let through (nft(8): a drop in any base chain is final).

use std::process::{Command, Stdio};

use rcontainerd_types::{Finding, Severity};
use serde_json::Value;

use super::{finding, ok};

const SUBJECT: &str = "other firewalls";

/// Nothing where nft cannot be asked: that has a finding of its own.
pub fn probe(bridge: &str) -> Option<Finding> {
    let chains: Value = serde_json::from_str(&said("nft", &["-j", "list", "chains"])?).ok()?;
    let rules = said("nft", &["list", "ruleset"])?;
    let mut dropping: Vec<String> = dropping(&chains).into_iter().filter(|chain| !lets_through(&rules, chain, bridge)).collect();
    if said("iptables-legacy", &["-S", "FORWARD"]).is_some_and(|said| said.contains("-P FORWARD DROP") && !said.contains(bridge)) {
        dropping.push("the legacy iptables FORWARD chain".to_owned());
    }
    Some(judge(&dropping, rules.contains("chain DOCKER-USER"), bridge))
}

fn judge(dropping: &[String], docker: bool, bridge: &str) -> Finding {
    let Some(chain) = dropping.first() else { return ok(SUBJECT, "none drops what containers send") };
    let observed = format!("{chain} drops what is forwarded, and names no {bridge}");
    let cost = "containers on the default bridge do not reach the network, published ports are not reached; --network host works";
    let remedy = match docker {
        true => format!("iptables -I DOCKER-USER -i {bridge} -j ACCEPT; iptables -I DOCKER-USER -o {bridge} -j ACCEPT"),
        false => format!("let that chain accept what comes from and goes to {bridge}"),
    };
    finding(Severity::Degraded, SUBJECT, observed, cost, &remedy)
}

/// Base chains at the forward hook whose policy is to drop, as `FAMILY TABLE CHAIN`.
fn dropping(chains: &Value) -> Vec<String> {
    let listed = chains["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let chains = listed.iter().map(|entry| &entry["chain"]);
    let ours = |chain: &&Value| chain["hook"] == "forward" && chain["policy"] == "drop" && chain["family"] != "ip6";
    let text = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    chains.filter(ours).map(|chain| format!("{} {} {}", text(chain, "family"), text(chain, "table"), text(chain, "name"))).collect()
}

/// Whether the table of a chain has a rule that accepts what comes from the bridge.
fn lets_through(rules: &str, chain: &str, bridge: &str) -> bool {
    let Some((table, _)) = chain.rsplit_once(' ') else { return false };
    let from = format!("iifname \"{bridge}\"");
    let body = rules.lines().skip_while(|line| !line.starts_with(&format!("table {table} {{"))).take_while(|line| *line != "}");
    body.filter(|line| line.contains(&from)).any(|line| line.trim_end().ends_with("accept"))
}

/// What a command prints, if it can be run and succeeds.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_docker() -> Value {
        json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "rcontainerd", "name": "forward", "hook": "forward", "prio": 0, "policy": "accept"}},
        ]})
    }

    #[test]
    fn a_forward_chain_that_drops_is_told_with_its_cost() {
        let chains = dropping(&with_docker());
        assert_eq!(chains, ["ip filter FORWARD"]);
        let finding = judge(&chains, true, "br0");
        assert_eq!(finding.severity, Severity::Degraded);
        assert!(finding.remedy.contains("DOCKER-USER -i br0"), "{}", finding.remedy);
        assert_eq!(judge(&[], true, "br0").severity, Severity::Ok);
    }

    #[test]
    fn a_rule_for_our_bridge_in_that_table_counts() {
        let accepting = "table ip filter {\n\tchain DOCKER-USER {\n\t\tiifname \"br0\" counter packets 0 bytes 0 accept\n\t}\n}\n";
        assert!(lets_through(accepting, "ip filter FORWARD", "br0"));
        assert!(!lets_through(accepting, "ip filter FORWARD", "br1"));
        assert!(!lets_through(accepting, "inet filter FORWARD", "br0"));
    }
}
