//! `rcontainerd check`: what this host offers and lacks, and what each lack costs.

mod firewall;
mod host;

use std::fmt::Write as _;

use anyhow::{Context, Result};
use rcontainerd_types::{Finding, Severity};

use crate::config::Config;
use crate::programs;

/// Prints the report; `false` when something that is needed is missing.
pub fn run(config: &Config, json: bool) -> Result<bool> {
    let findings = gather(config);
    let text = if json { serde_json::to_string_pretty(&findings).context("write JSON")? + "\n" } else { table(&findings) };
    print!("{text}");
    Ok(findings.iter().all(|finding| finding.severity != Severity::Broken))
}

fn gather(config: &Config) -> Vec<Finding> {
    let mut findings = host::probe();
    findings.extend(snapshots(config));
    findings.extend(["rrun", "containerd-shim-rrun-v2", "rcontainerd-init"].map(program));
    findings.extend(rcontainerd_network::Network::check());
    findings.extend(firewall::probe(&config.network.bridge));
    findings
}

/// Whether overlay works where the snapshots lie, or will lie: on the nearest directory that is there already.
fn snapshots(config: &Config) -> Vec<Finding> {
    let there = config.root.ancestors().find(|dir| dir.is_dir());
    there.map(rcontainerd_store::snapshot::check_overlay).unwrap_or_default()
}

/// A finding that nothing is wrong with.
fn ok(subject: &str, observed: impl Into<String>) -> Finding {
    finding(Severity::Ok, subject, observed, "", "")
}

fn finding(severity: Severity, subject: &str, observed: impl Into<String>, cost: &str, remedy: &str) -> Finding {
    Finding { severity, subject: subject.into(), observed: observed.into(), cost: cost.into(), remedy: remedy.into() }
}

fn program(name: &str) -> Finding {
    if let Some(path) = programs::find(name) {
        return ok(name, path.display().to_string());
    }
    let (severity, cost) = match name {
        "rcontainerd-init" => (Severity::Degraded, "no --init, and no shipped image"),
        _ => (Severity::Broken, "no container can be started"),
    };
    finding(severity, name, "neither beside rcontainerd nor on PATH", cost, &format!("install {name} beside rcontainerd"))
}

/// A line each: mark, subject, what was seen, what it costs, what mends it.
fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.severity {
            Severity::Ok => "ok      ",
            Severity::Degraded => "less    ",
            Severity::Broken => "MISSING ",
        };
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{mark} {:width$}  {}", finding.subject, finding.observed);
        for (label, what) in [("costs", &finding.cost), ("remedy", &finding.remedy)] {
            if !what.is_empty() {
                let _infallible = write!(text, "; {label}: {what}");
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_is_told_with_its_cost_and_remedy() {
        let finding = Finding {
            severity: Severity::Degraded,
            subject: "nft".into(),
            observed: "absent".into(),
            cost: "no ports".into(),
            remedy: "install it".into(),
        };
        assert_eq!(table(&[finding]), "less     nft  absent; costs: no ports; remedy: install it\n");
    }
}
