use anyhow::{Context, Result};
use rrun_core::lifecycle::{self, CreateRequest};
use rrun_core::plan::CreateOptions;
use rrun_core::seal::seal_own_executable;
use rrun_core::state::{Entry, Store};

use crate::cli::{Create, Global, Run};
use crate::follow::{self, Followed};

fn request(global: &Global, args: &Create) -> Result<CreateRequest> {
    let bundle = match &args.bundle {
        Some(bundle) => bundle.canonicalize().with_context(|| format!("bundle {}", bundle.display()))?,
        None => std::env::current_dir()?,
    };
    let listen_fds = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    Ok(CreateRequest {
        options: CreateOptions {
            id: args.id.id.clone(),
            bundle,
            no_pivot: args.no_pivot,
            no_new_keyring: args.no_new_keyring,
            preserve_fds: args.preserve_fds + listen_fds,
        },
        config: args.config.clone(),
        console_socket: args.console_socket.clone(),
        keep_terminal: false,
        start_by_caller: false,
        pid_file: args.pid_file.clone(),
        systemd_cgroup: global.systemd_cgroup,
        rootless: super::rootless(global),
    })
}

/// `rrun create`.
pub fn create(store: &Store, global: &Global, args: &Create) -> Result<i32> {
    seal_own_executable()?;
    let request = request(global, args)?;
    let created = lifecycle::create(store, &request).context("unable to start container process")?;
    created.ready.leave()?;
    Ok(0)
}

/// `rrun run`: create, start, and unless detached wait, pass signals and the terminal on, delete.
pub fn run(store: &Store, global: &Global, args: &Run) -> Result<i32> {
    seal_own_executable()?;
    let mut request = request(global, &args.create)?;
    request.start_by_caller = true;
    request.keep_terminal = !args.detach && request.console_socket.is_none();
    if !args.detach && !args.no_subreaper {
        rrun_sys::process::set_subreaper()?;
    }
    let signals = if args.detach { None } else { Some(follow::catch_signals()?) };
    let created = lifecycle::create(store, &request).context("unable to start container process")?;
    let id = created.state.id.clone();
    let pid = created.ready.pid();
    let started = created.start();
    let (entry, _, pidfd, master) = match started {
        Ok(started) => started,
        Err(e) => {
            delete_after(&store.entry(&id, false)?)?;
            return Err(e).context("unable to start container process");
        }
    };
    let Some(signals) = signals else { return Ok(0) };
    let ended = follow::follow(&Followed { pid, pidfd, master }, &signals);
    if !args.keep {
        delete_after(&entry)?;
    }
    Ok(ended?.code())
}

fn delete_after(entry: &Entry) -> Result<()> {
    lifecycle::delete(entry, true).context("delete the container after its end")
}
