//! `rcontainerd fsck`: by the manager that serves the root, or alone where none does.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rcontainerd_core::fsck::{Alone, Fsck, FsckCommand, REPAIRED};
use rcontainerd_core::images::ImagesConfig;
use rcontainerd_store::Store;
use rcontainerd_types::{ErrorKind, Finding, Severity};

use crate::args::FsckArgs;
use crate::compose;
use crate::config::Config;
use crate::programs::Programs;

/// Prints what was found; `true` when nothing is wrong, or nothing any more.
pub fn run(config: &Config, args: &FsckArgs) -> Result<bool> {
    if !config.root.is_dir() {
        bail!("no root directory {}: nothing to check; --root names another", config.root.display());
    }
    if args.refetch && !args.repair {
        bail!("--refetch fetches what --repair drops: give both");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start the async runtime")?;
    let command = FsckCommand { quick: args.quick, repair: args.repair, refetch: args.refetch };
    let checker = runtime.block_on(async { Checker::find(config) })?;
    let (found, left) = runtime.block_on(async {
        let found = checker.run(command).await?;
        // What was mended is worth a second look, which need not read every blob again.
        let left = if found.is_empty() || !args.repair {
            Vec::new()
        } else {
            checker.run(FsckCommand { quick: true, ..FsckCommand::default() }).await?
        };
        anyhow::Ok((found, left))
    })?;
    let clean = if args.repair { left.is_empty() } else { found.is_empty() };
    checker.leave(clean)?;
    if args.json {
        let report = serde_json::json!({"clean": clean, "found": found, "left": left});
        println!("{}", serde_json::to_string_pretty(&report).context("write JSON")?);
    } else {
        print!("{}", text(&found, &left, clean));
    }
    Ok(clean)
}

enum Checker {
    Manager(std::path::PathBuf),
    Alone(Store, Fsck),
}

impl Checker {
    /// Whoever holds the root's lock checks: two writers there must never be.
    fn find(config: &Config) -> Result<Self> {
        match compose::store(config) {
            Ok(store) => {
                let programs = Programs::find()?;
                let images = ImagesConfig { registry: compose::registry(config)?, on_event: Arc::new(|_| {}), ..ImagesConfig::default() };
                let alone = Alone {
                    state_dir: config.state.clone(),
                    cgroup_parent: config.cgroup_parent.clone(),
                    runtime: programs.runtime,
                    images,
                };
                Ok(Self::Alone(store.clone(), Fsck::alone(store, alone)?))
            }
            Err(err) if err.kind() == ErrorKind::Conflict => Ok(Self::Manager(config.state.join("rcontainerd.sock"))),
            Err(err) => Err(err.into()),
        }
    }

    async fn run(&self, command: FsckCommand) -> Result<Vec<Finding>> {
        match self {
            Self::Alone(_, fsck) => Ok(fsck.run(command).await?),
            Self::Manager(socket) => {
                let asked = rcontainerd_api_containerd::admin::fsck(socket, command).await;
                asked.context("the root is in use; its manager must answer, or be stopped first (--state names where it listens)")
            }
        }
    }
}

impl Checker {
    /// A root that an earlier manager left in a hurry counts as such until a check finds it clean.
    fn leave(self, clean: bool) -> Result<()> {
        match self {
            Self::Alone(store, _) if clean || !store.was_abandoned() => Ok(store.say_farewell()?),
            _ => Ok(()),
        }
    }
}

/// A line each, then a verdict.
fn text(found: &[Finding], left: &[Finding], clean: bool) -> String {
    let mut text = String::new();
    let still = left.iter().filter(|finding| !found.contains(finding));
    for finding in found.iter().chain(still) {
        let mark = match finding.severity {
            _ if finding.remedy == REPAIRED => "repaired",
            Severity::Ok => "ok      ",
            Severity::Degraded => "rubbish ",
            Severity::Broken => "BROKEN  ",
        };
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{mark}  {}: {}", finding.subject, finding.observed);
        for (label, what) in [("costs", &finding.cost), ("remedy", &finding.remedy)] {
            if !what.is_empty() && finding.remedy != REPAIRED {
                let _infallible = write!(text, "; {label}: {what}");
            }
        }
        text.push('\n');
    }
    let repaired = found.iter().filter(|finding| finding.remedy == REPAIRED).count();
    let verdict = match (clean, repaired) {
        (true, 0) => "clean".to_owned(),
        (true, _) => format!("clean now: {repaired} repaired"),
        (false, 0) => format!("{} found", found.len()),
        (false, _) => format!("{repaired} repaired, {} left", left.len()),
    };
    text + &verdict + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, remedy: &str) -> Finding {
        Finding { severity, subject: "cgroup /x".into(), observed: "nobody's".into(), cost: "memory".into(), remedy: remedy.into() }
    }

    #[test]
    fn each_finding_is_a_line_and_the_last_tells_how_it_stands() {
        assert_eq!(text(&[], &[], true), "clean\n");
        let told = "rubbish   cgroup /x: nobody's; costs: memory; remedy: do it\n1 found\n";
        assert_eq!(text(&[finding(Severity::Degraded, "do it")], &[], false), told);
        assert_eq!(text(&[finding(Severity::Degraded, REPAIRED)], &[], true), "repaired  cgroup /x: nobody's\nclean now: 1 repaired\n");
        let broken = finding(Severity::Broken, "pull");
        let both = text(&[broken.clone(), finding(Severity::Degraded, REPAIRED)], &[broken], false);
        assert!(both.ends_with("1 repaired, 1 left\n") && both.matches("BROKEN").count() == 1, "{both}");
    }
}
