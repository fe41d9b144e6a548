//! Id mappings of a new user namespace.

use std::path::Path;
use std::process::Command;

use crate::plan::Maps;
use crate::spec::IdMapping;
use crate::{Context, Error, Result};

/// Writes both maps. Without privilege a single line for the own id is what the kernel takes; more goes through newuidmap(1).
pub fn write(pid: i32, maps: &Maps, rootless: bool) -> Result<()> {
    if rootless {
        write_file(pid, "setgroups", "deny").or_else(|e| if maps.gid.len() > 1 { Ok(()) } else { Err(e) })?;
    }
    write_one(pid, "uid_map", "newuidmap", &maps.uid, rootless)?;
    write_one(pid, "gid_map", "newgidmap", &maps.gid, rootless)
}

fn write_one(pid: i32, file: &str, helper: &str, map: &[IdMapping], rootless: bool) -> Result<()> {
    if rootless && map.len() > 1 {
        return by_helper(pid, helper, map);
    }
    let text: String = map.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect();
    write_file(pid, file, &text)
}

fn write_file(pid: i32, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, text).map_err(|e| Error::io("write", Path::new(&path), &e)).doing(|| format!("map ids {text:?}"))
}

fn by_helper(pid: i32, helper: &str, map: &[IdMapping]) -> Result<()> {
    let numbers = map.iter().flat_map(|m| [m.container_id, m.host_id, m.size]).map(|n| n.to_string());
    let output = Command::new(helper)
        .arg(pid.to_string())
        .args(numbers)
        .output()
        .map_err(|e| Error::io("start", Path::new(helper), &e))
        .doing(|| "several id mappings without root need newuidmap and newgidmap (Debian: uidmap)".to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::state(format!("{helper}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
