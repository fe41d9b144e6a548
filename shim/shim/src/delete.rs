//! `delete`: after a shim has died, what it left is killed, deleted and unmounted; its kept exit status is told.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::SystemTime;

use anyhow::{Context, Result};
use prost::Message;
use proto_containerd::task::v3::DeleteResponse;

use crate::args::Args;
use crate::disk::{Exit, load_exit};
use crate::mounts;
use crate::runtime::{LogMark, Runtime};

/// # Errors
/// One line when something could not be removed; the caller tries again.
pub fn delete(args: &Args) -> Result<()> {
    let bundle = match &args.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().context("find the bundle (the working directory)")?,
    };
    delete_container(&bundle, &args.id)?;
    mounts::unmount_all(&bundle.join("rootfs"))?;
    remove_socket(&bundle);
    // Killed by us, unless it had ended before.
    let (pid, exit) = load_exit(&bundle).unwrap_or((init_pid(&bundle), Exit { code: 137, at: SystemTime::now() }));
    let response = DeleteResponse { pid: pid.unsigned_abs(), exit_status: exit.code, exited_at: Some(exit.at.into()) };
    std::io::stdout().write_all(&response.encode_to_vec()).context("write to standard output")
}

fn delete_container(bundle: &Path, id: &str) -> Result<()> {
    // Without a record nothing was ever created here.
    let Ok(runtime) = Runtime::load(bundle) else { return Ok(()) };
    let log = bundle.join("log.json");
    let mark = LogMark::new(&log);
    let status = runtime.command(&log).args(["delete", "--force", id]).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("run {}", runtime.binary.display()))?;
    match mark.error() {
        Some(why) if !status.success() && !why.contains("does not exist") => anyhow::bail!("delete container {id}: {why}"),
        _ => Ok(()),
    }
}

fn init_pid(bundle: &Path) -> i32 {
    std::fs::read_to_string(bundle.join("init.pid")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn remove_socket(bundle: &Path) {
    let Ok(address) = std::fs::read_to_string(bundle.join("address")) else { return };
    let socket = Path::new(address.trim().trim_start_matches("unix://"));
    // A shim that keeps more than this container goes on.
    if !crate::group::answers(socket) {
        // It is gone when the shim ended in order.
        drop(std::fs::remove_file(socket));
    }
}
