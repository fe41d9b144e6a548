//! What can be done with a container: one function per operation, each takes the container's lock where two of them could meet.

mod create;
mod delete;
mod exec;
mod start;

use std::path::Path;

pub use create::{CreateRequest, Created, create};
pub use delete::{delete, kill};
pub use exec::{ExecRequest, Executed, exec, process_from_config};
pub use start::start;

use rrun_sys::fs::{self, OFlags};

use crate::seccomp::{Cache, Profile, Program};
use crate::state::{Entry, State, Status};
use crate::{Context, Error, Result};

/// Stops every process of a running container.
pub fn pause(entry: &Entry) -> Result<()> {
    let state = entry.load()?;
    match entry.status(&state)? {
        Status::Running | Status::Created => cgroup_of(&state)?.freeze().doing(|| "pause".to_string()),
        other => Err(Error::state(format!("container not running or created: {}", other.name()))),
    }
}

/// Lets them run again.
pub fn resume(entry: &Entry) -> Result<()> {
    let state = entry.load()?;
    match entry.status(&state)? {
        Status::Paused => cgroup_of(&state)?.thaw().doing(|| "resume".to_string()),
        _ => Err(Error::state("container not paused")),
    }
}

/// The container's cgroup.
pub fn cgroup_of(state: &State) -> Result<rrun_cgroup::Cgroup> {
    let location =
        state.cgroup.as_ref().ok_or_else(|| Error::state("the container has no cgroup: it was made without the right to have one"))?;
    Ok(rrun_cgroup::Cgroup::open(location)?)
}

/// Compiles (or finds compiled) the filter, and what its listener is to be told.
fn seccomp(json: Option<&serde_json::Value>, root: &Path) -> Result<(Option<Program>, Option<Profile>)> {
    let Some(json) = json.filter(|j| !j.is_null()) else { return Ok((None, None)) };
    let profile: Profile = serde_json::from_value(json.clone()).map_err(|e| Error::invalid(format!("config.json: linux.seccomp: {e}")))?;
    let program = Cache::new(&root.join(crate::state::SECCOMP_CACHE))
        .get_or_compile(&profile)
        .map_err(|e| Error::invalid(format!("config.json: linux.seccomp: {e}")))?;
    for warning in program.warnings() {
        crate::log::debug(|| warning.clone());
    }
    Ok((Some(program), Some(profile)))
}

/// Writes a pid for who asked: whole or not at all.
fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| Error::invalid(format!("--pid-file {}: is no file name", path.display())))?;
    let dir = fs::openat(fs::CWD, dir, OFlags::PATH | OFlags::DIRECTORY, 0).doing(|| format!("pid file {}", path.display()))?;
    let hidden = format!(".{}", name.to_string_lossy());
    let file = fs::openat(&dir, Path::new(&hidden), OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, 0o666)?;
    fs::write_all_at_once(&file, pid.to_string().as_bytes())?;
    Ok(fs::renameat(&dir, Path::new(&hidden), Path::new(name))?)
}
