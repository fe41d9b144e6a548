//! Top: ps(1) of the host, narrowed to the container's processes.

use std::collections::BTreeSet;
use std::sync::Arc;

use rcontainerd_types::{Error, Result};

use super::commands::{ProcessTable, TopContainer};
use super::registry::Entry;
use super::stop;

pub(super) async fn top(entry: &Arc<Entry>, command: &TopContainer) -> Result<ProcessTable> {
    let task = entry.task_once_started().await?;
    let pids = stop::unless_ended(entry, &task, task.pids().await).await?;
    let pids: BTreeSet<u32> = pids.into_iter().map(|process| process.pid).collect();
    let arguments: Vec<&str> = match command.ps_args.as_str() {
        "" => vec!["-ef"],
        own => own.split_whitespace().collect(),
    };
    let output = tokio::process::Command::new("ps").args(&arguments).output().await;
    let output = output.map_err(|err| Error::io("run ps (install procps on the host)", err))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(Error::invalid(format!("ps {}: {}", arguments.join(" "), told.lines().next().unwrap_or("failed"))));
    }
    narrow(&String::from_utf8_lossy(&output.stdout), &pids)
}

/// The rows whose PID is one of `pids`; the last column takes the rest of the line.
fn narrow(text: &str, pids: &BTreeSet<u32>) -> Result<ProcessTable> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles.iter().position(|title| title == "PID").ok_or_else(|| Error::invalid("Couldn't find PID field in ps output"))?;
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let pid = words.get(column)?.parse().ok()?;
        if !pids.contains(&pid) {
            return None;
        }
        let last = titles.len() - 1;
        let mut cells: Vec<String> = words.iter().take(last).map(|word| (*word).to_owned()).collect();
        cells.push(words.get(last..).unwrap_or_default().join(" "));
        Some(cells)
    };
    Ok(ProcessTable { processes: lines.filter_map(row).collect(), titles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_container_s_rows_with_the_command_whole() {
        let text = "UID   PID  CMD\nroot    1  /sbin/init\nroot   42  sleep 1000 x\n";
        let table = narrow(text, &BTreeSet::from([42])).expect("table");
        assert_eq!(table.titles, ["UID", "PID", "CMD"]);
        assert_eq!(table.processes, [["root", "42", "sleep 1000 x"]]);
        assert!(narrow("UID CMD\n", &BTreeSet::new()).is_err());
    }
}
