//! Commands that only look: state, list, ps; and the names of signals.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rrun_core::lifecycle::cgroup_of;
use rrun_core::state::{Entry, State, Status, Store};
use serde_json::{Value, json};

use crate::cli::{Format, List};

/// `rrun state`.
pub fn state(store: &Store, id: &str) -> Result<i32> {
    let entry = store.entry(id, false)?;
    let document = describe(&entry, &entry.load()?)?;
    super::print(&serde_json::to_string_pretty(&document)?)?;
    Ok(0)
}

/// runc's document of one container.
fn describe(entry: &Entry, state: &State) -> Result<Value> {
    let status = entry.status(state)?;
    let pid = if status == Status::Stopped { 0 } else { state.init.pid };
    let mut document = json!({
        "ociVersion": state.oci_version, "id": state.id, "pid": pid, "status": status.name(),
        "bundle": state.bundle, "rootfs": state.rootfs, "created": state.created,
    });
    if !state.annotations.is_empty() {
        document["annotations"] = json!(state.annotations);
    }
    document["owner"] = json!(owner(entry)?);
    Ok(document)
}

/// The name of who made it, read from /etc/passwd without NSS; empty if it has none.
fn owner(entry: &Entry) -> Result<String> {
    let uid = std::fs::metadata(&entry.path).with_context(|| entry.path.display().to_string())?.uid();
    if uid == 0 {
        return Ok("root".to_string());
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
    });
    Ok(name.unwrap_or_else(|| format!("#{uid}")))
}

/// `rrun list`.
pub fn list(store: &Store, args: &List, must_exist: bool) -> Result<i32> {
    // The default directory comes with the first container; one that was named and is not there is a mistake.
    if must_exist && !store.root().is_dir() {
        bail!("--root {}: no such file or directory", store.root().display());
    }
    let ids = store.ids()?;
    if args.quiet {
        ids.iter().try_for_each(|id| super::print(id))?;
        return Ok(0);
    }
    let mut documents = Vec::new();
    for id in &ids {
        let described =
            store.entry(id, false).and_then(|e| e.load().map(|s| (e, s))).map_err(anyhow::Error::from).and_then(|(e, s)| describe(&e, &s));
        match described {
            Ok(document) => documents.push(document),
            // One that is just being made or deleted must not hide the others.
            Err(e) => rrun_core::log::warn(&format!("{id}: {e}")),
        }
    }
    if args.format == Format::Json {
        super::print(&if documents.is_empty() { "null".to_string() } else { Value::Array(documents).to_string() })?;
    } else {
        print_table(&documents)?;
    }
    Ok(0)
}

fn print_table(documents: &[Value]) -> Result<()> {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let keys = ["id", "pid", "status", "bundle", "created", "owner"];
    let mut rows = vec![keys.map(str::to_uppercase)];
    rows.extend(documents.iter().map(|d| keys.map(|k| text(&d[k]))));
    let widths: Vec<usize> = (0..keys.len()).map(|n| rows.iter().map(|r| r[n].len()).max().unwrap_or(0).max(9) + 3).collect();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        super::print(line.trim_end())?;
    }
    Ok(())
}

/// `rrun ps`.
pub fn ps(store: &Store, id: &str, ps_options: &[String], format: Format) -> Result<i32> {
    let entry = store.entry(id, false)?;
    let state = entry.load()?;
    let mut pids = cgroup_of(&state)?.pids()?;
    pids.sort_unstable();
    if format == Format::Json {
        super::print(&json!(pids).to_string())?;
        return Ok(0);
    }
    let options = if ps_options.is_empty() { vec!["-ef".to_string()] } else { ps_options.to_vec() };
    let output = Command::new("ps").args(&options).output().context("run ps (Debian: procps)")?;
    if !output.status.success() {
        bail!("ps {}: {}", options.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|c| c == "PID").context("couldn't find PID field in ps output")?;
    let wanted: HashSet<String> = pids.iter().map(ToString::to_string).collect();
    super::print(header)?;
    lines.filter(|l| l.split_whitespace().nth(column).is_some_and(|p| wanted.contains(p))).try_for_each(super::print)?;
    Ok(0)
}

/// `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`.
pub fn signal_number(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        if (0..=64).contains(&number) {
            return Ok(number);
        }
        bail!("unknown signal {text:?}");
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
        "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let real_time =
        |from: i32, sign: i32, rest: &str| if rest.is_empty() { Some(from) } else { rest.parse::<i32>().ok().map(|n| from + sign * n) };
    let number = match name {
        "POLL" => Some(29),
        "IOT" => Some(6),
        "CLD" => Some(17),
        _ if name.starts_with("RTMIN") => real_time(34, 1, name[5..].trim_start_matches('+')),
        _ if name.starts_with("RTMAX") => real_time(64, -1, name[5..].trim_start_matches('-')),
        _ => NAMES.iter().position(|n| *n == name).map(|n| n as i32 + 1),
    };
    number.filter(|n| (1..=64).contains(n)).with_context(|| format!("unknown signal {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn signals_have_many_names() {
        for (text, number) in
            [("TERM", 15), ("SIGKILL", 9), ("sigusr1", 10), ("2", 2), ("0", 0), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("SIGSYS", 31)]
        {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
        for bad in ["", "SIG", "FOO", "65", "-1", "RTMIN+99"] {
            assert!(signal_number(bad).is_err(), "{bad}");
        }
    }
}
