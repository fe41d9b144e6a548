use anyhow::{Result, bail, ensure};
use rrun_core::criu::CgroupMode;
use rrun_core::lifecycle::{self, CriuOptions, RestoreRequest, Restored};
use rrun_core::state::Store;

use super::{checkpoint, create};
use crate::cli::{Create, Global, Restore};
use crate::follow::{self, Followed};

/// `rrun restore`: as `run`, with processes that were dumped.
pub fn restore(store: &Store, global: &Global, id: &str, args: &Restore) -> Result<i32> {
    ensure!(!args.no_pivot, "--no-pivot: criu always uses pivot root: leave it out, and have the root on a file system that is no ramfs");
    if args.manage_cgroups_mode.0 != CgroupMode::Ignore {
        bail!("--manage-cgroups-mode: the cgroup and its limits come from config.json, not from a checkpoint: leave it out, or give ignore")
    }
    checkpoint::check_empty_ns(&args.empty_ns)?;
    let criu = checkpoint::criu(global)?;
    let mut request = create::request(global, id, &as_create(args))?;
    request.start_by_caller = true;
    request.keep_terminal = !args.detach && request.console_socket.is_none();
    // Nobody is told of the start of what was started long ago.
    request.notify = None;
    if !args.detach && !args.no_subreaper {
        rrun_sys::process::set_subreaper()?;
    }
    let signals = if args.detach { None } else { Some(follow::catch_signals()?) };
    let request = RestoreRequest {
        criu,
        create: request,
        common: CriuOptions {
            images: checkpoint::images(args.image_path.as_deref())?,
            work: args.work_path.as_deref().map(std::path::absolute).transpose()?,
            tcp_established: args.tcp_established,
            external_sockets: args.ext_unix_sk,
            shell_job: args.shell_job,
            file_locks: args.file_locks,
            auto_dedup: args.auto_dedup,
            lazy_pages: args.lazy_pages,
        },
        lsm_profile: args.lsm_profile.clone(),
        lsm_mount_context: args.lsm_mount_context.clone(),
    };
    let Restored { entry, pid, pidfd, terminal_master: master } = lifecycle::restore(store, &request)?;
    let id = entry.id.clone();
    // While it runs, others may pause, update and delete it.
    drop(entry);
    let Some(signals) = signals else { return Ok(0) };
    let ended = follow::follow(&Followed { pid, pidfd, master, relay: None }, &signals);
    create::delete_after(store, &id)?;
    Ok(ended?.code())
}

/// What both have.
fn as_create(args: &Restore) -> Create {
    Create {
        bundle: args.bundle.clone(),
        console_socket: args.console_socket.clone(),
        pidfd_socket: None,
        pid_file: args.pid_file.clone(),
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: None,
        config: None,
    }
}
