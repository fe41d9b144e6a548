//! Id mappings of a new user namespace.

use std::path::Path;
use std::process::Command;

use crate::plan::Maps;
use crate::procfs::ProcFs;
use crate::spec::IdMapping;
use crate::{Context, Error, Result};

/// Writes both maps. Without privilege the kernel takes a single line for the own id, and that only where groups can no longer be
/// dropped; anything else goes through newuidmap(1) and newgidmap(1), which know what the user was granted.
pub fn write(proc: &ProcFs, pid: i32, maps: &Maps, rootless: bool) -> Result<()> {
    let own_uid = rustix::process::geteuid().as_raw();
    let own_gid = rustix::process::getegid().as_raw();
    if rootless && is_own(&maps.gid, own_gid) {
        write_file(proc, pid, "setgroups", "deny")?;
    }
    write_one(proc, pid, ("uid_map", "newuidmap"), &maps.uid, !rootless || is_own(&maps.uid, own_uid))?;
    write_one(proc, pid, ("gid_map", "newgidmap"), &maps.gid, !rootless || is_own(&maps.gid, own_gid))
}

fn is_own(map: &[IdMapping], id: u32) -> bool {
    matches!(map, [one] if one.size == 1 && one.host_id == id)
}

fn write_one(proc: &ProcFs, pid: i32, (file, helper): (&str, &str), map: &[IdMapping], directly: bool) -> Result<()> {
    if !directly {
        return by_helper(pid, helper, map);
    }
    let text: String = map.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect();
    write_file(proc, pid, file, &text)
}

fn write_file(proc: &ProcFs, pid: i32, file: &str, text: &str) -> Result<()> {
    proc.write(&format!("{pid}/{file}"), text).doing(|| format!("map ids {text:?}"))
}

fn by_helper(pid: i32, helper: &str, map: &[IdMapping]) -> Result<()> {
    let numbers = map.iter().flat_map(|m| [m.container_id, m.host_id, m.size]).map(|n| n.to_string());
    let output = Command::new(helper)
        .arg(pid.to_string())
        .args(numbers)
        .output()
        .map_err(|e| Error::io("start", Path::new(helper), &e))
        .doing(|| "id mappings beyond the own id need newuidmap and newgidmap without root (Debian: uidmap)".to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::state(format!("{helper}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
