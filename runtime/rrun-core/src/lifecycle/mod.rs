//! What can be done with a container: one function per operation, each takes the container's lock where two of them could meet.

mod cgroup;
mod checkpoint;
mod create;
mod delete;
mod exec;
mod known;
mod restore;
mod settings;
mod start;

use std::os::fd::BorrowedFd;
use std::path::Path;

pub use checkpoint::{CheckpointRequest, CriuOptions, checkpoint};
pub use create::{CgroupManagement, CreateRequest, Created, create};
pub use delete::{delete, kill};
pub use exec::{ExecRequest, Executed, configuration, exec};
pub use restore::{RestoreRequest, Restored, restore};
pub use start::{Started, start};

use rrun_sys::fs::{self, OFlags};
use rrun_sys::socket;
use serde_json::value::RawValue;

use crate::hooks::HookState;
use crate::parent::Supervisor;
use crate::plan::Filter;
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

/// Compiles (or finds compiled) the filter; and the profile, if its listener is to be told of it.
fn seccomp(json: Option<&RawValue>, root: &Path) -> Result<(Option<Program>, Option<Profile>)> {
    let Some(json) = json.map(RawValue::get) else { return Ok((None, None)) };
    let wrong = |e| Error::invalid(format!("config.json: linux.{e}"));
    let program = Cache::new(&root.join(crate::state::SECCOMP_CACHE)).get_or_compile(json).map_err(wrong)?;
    let profile = program.wants_listener().then(|| Profile::parse(json)).transpose().map_err(wrong)?;
    if profile.as_ref().is_some_and(|p| p.listener_path.as_deref().unwrap_or_default().is_empty()) {
        return Err(Error::invalid("config.json: linux.seccomp.listenerPath: must be given where an action is SCMP_ACT_NOTIFY"));
    }
    for warning in program.warnings() {
        crate::log::debug(|| warning.clone());
    }
    // The field leaves TSYNC out of this number: with one thread it says nothing.
    crate::log::debug(|| format!("seccomp filter flags: {}", program.flags() & !1));
    Ok((Some(program), profile))
}

/// What the steps need to know of a compiled filter.
fn filter_kind(program: Option<&Program>) -> Filter {
    match program {
        None => Filter::None,
        Some(program) if program.wants_listener() => Filter::Notifying,
        Some(_) => Filter::Plain,
    }
}

/// Who answers for the calls that a profile asks about.
fn supervisor(profile: Option<&Profile>, container: &HookState, status: &'static str, init: Option<i32>) -> Option<Supervisor> {
    let profile = profile?;
    let path = profile.listener_path.as_ref().filter(|p| !p.is_empty())?.into();
    Some(Supervisor { path, metadata: profile.listener_metadata.clone(), container: container.clone(), status, init })
}

/// Whether the kernel enforces SELinux labels: its file system is mounted where the field expects it.
fn selinux_is_active() -> bool {
    const SELINUX_MAGIC: i64 = 0xf97c_ff8c;
    let dir = fs::openat(fs::CWD, Path::new("/sys/fs/selinux"), OFlags::PATH | OFlags::DIRECTORY, 0);
    dir.and_then(fs::fstatfs).is_ok_and(|found| found.f_type == SELINUX_MAGIC)
}

fn apparmor_is_active() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|enabled| enabled.starts_with(b"Y"))
}

/// Sends a process's pidfd to who asked for it. `kind`: runc's word for the process, `standard` or `setns`.
fn send_pidfd(path: &Path, kind: &str, pidfd: BorrowedFd<'_>) -> Result<()> {
    let socket = socket::connect_stream(path).doing(|| "--pidfd-socket".to_string())?;
    Ok(socket::send_fd(&socket, kind.as_bytes(), pidfd)?)
}

/// Writes a pid for who asked: whole or not at all. `umask`: the caller's, since this process has none by now.
fn write_pid_file(path: &Path, pid: i32, umask: u32) -> Result<()> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| Error::invalid(format!("--pid-file {}: is no file name", path.display())))?;
    let dir = fs::openat(fs::CWD, dir, OFlags::PATH | OFlags::DIRECTORY, 0).doing(|| format!("pid file {}", path.display()))?;
    let hidden = format!(".{}", name.to_string_lossy());
    let file = fs::openat(&dir, Path::new(&hidden), OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, 0o666 & !umask)?;
    fs::write_all_at_once(&file, pid.to_string().as_bytes())?;
    Ok(fs::renameat(&dir, Path::new(&hidden), Path::new(name))?)
}
