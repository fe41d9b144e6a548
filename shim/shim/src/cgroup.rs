//! The shim's own cgroup (`ShimCgroup` of containerd's options): what it takes is counted there, not with the manager.

use rrun_cgroup::Host;
use shim_ttrpc::{Code, Status};

/// Enters the cgroup of that path in every hierarchy that has it.
///
/// # Errors
/// `InvalidArgument` when none has it; the kernel's refusal.
pub fn enter(path: &str) -> Result<(), Status> {
    let location = Host::detect().and_then(|host| host.locate(Some(path), "")).map_err(|err| refused(path, &err.to_string()))?;
    let mut entered = false;
    for dir in location.dirs.iter().filter(|dir| dir.path.is_dir()) {
        std::fs::write(dir.path.join("cgroup.procs"), "0").map_err(|err| refused(path, &format!("{}: {err}", dir.path.display())))?;
        entered = true;
    }
    if entered { Ok(()) } else { Err(refused(path, "there is no such cgroup; make it first")) }
}

fn refused(path: &str, why: &str) -> Status {
    Status::new(Code::InvalidArgument, format!("ShimCgroup {path:?}: {why}"))
}
