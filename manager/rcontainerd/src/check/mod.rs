//! `rcontainerd check`: what this host offers and lacks, and what each lack costs.

mod host;

use std::fmt::Write as _;

use anyhow::{Context, Result};
use rcontainerd_types::{Finding, Severity};

use crate::programs;

/// Prints the report; `false` when something that is needed is missing.
pub fn run(json: bool) -> Result<bool> {
    let findings = gather();
    let text = if json { serde_json::to_string_pretty(&findings).context("write JSON")? + "\n" } else { table(&findings) };
    print!("{text}");
    Ok(findings.iter().all(|finding| finding.severity != Severity::Broken))
}

fn gather() -> Vec<Finding> {
    let mut findings = host::probe();
    findings.extend(["rrun", "containerd-shim-rrun-v2", "rcontainerd-init"].map(program));
    findings.extend(rcontainerd_network::Network::check());
    findings
}

fn program(name: &str) -> Finding {
    let needed = name != "rcontainerd-init";
    let (severity, observed) = match programs::find(name) {
        Some(path) => (Severity::Ok, path.display().to_string()),
        None if needed => (Severity::Broken, "neither beside rcontainerd nor on PATH".into()),
        None => (Severity::Degraded, "neither beside rcontainerd nor on PATH".into()),
    };
    let lacking = severity != Severity::Ok;
    let cost = if needed { "no container can be started" } else { "no --init, and no shipped image" };
    Finding {
        severity,
        subject: name.into(),
        observed,
        cost: if lacking { cost.into() } else { String::new() },
        remedy: if lacking { format!("install {name} beside rcontainerd") } else { String::new() },
    }
}

/// A line each: mark, subject, what was seen; what it costs and what mends it below.
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
        let _infallible = writeln!(text, "{mark} {:width$}  {}", finding.subject, finding.observed);
        for (label, what) in [("costs", &finding.cost), ("remedy", &finding.remedy)] {
            if !what.is_empty() {
                let _infallible = writeln!(text, "         {:width$}  {label}: {what}", "");
            }
        }
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
        assert_eq!(table(&[finding]), "less     nft  absent\n              costs: no ports\n              remedy: install it\n");
    }
}
