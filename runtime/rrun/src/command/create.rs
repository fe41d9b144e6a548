use anyhow::{Context, Result, bail};
use rrun_cgroup::Driver;
use rrun_core::lifecycle::{self, CgroupManagement, CreateRequest, Started};
use rrun_core::plan::CreateOptions;
use rrun_core::seal::seal_own_executable;
use rrun_core::state::Store;

use crate::cli::{CgroupManager, Create, Global, Run};
use crate::follow::{self, Followed};
use crate::rights::Rights;

pub(super) fn request(global: &Global, id: &str, args: &Create) -> Result<CreateRequest> {
    let bundle = match &args.bundle {
        Some(bundle) => bundle.canonicalize().with_context(|| format!("bundle {}", bundle.display()))?,
        None => std::env::current_dir()?,
    };
    let listen_fds = listen_fds();
    let preserve_fds = args.preserve_fds.unwrap_or(0);
    check_preserved(listen_fds, preserve_fds)?;
    let rights = Rights::of(global);
    let cgroups = match global.cgroup_manager {
        CgroupManager::Disabled => CgroupManagement::None,
        CgroupManager::Systemd => CgroupManagement::Driver(Driver::Systemd),
        CgroupManager::Cgroupfs if global.systemd_cgroup => CgroupManagement::Driver(Driver::Systemd),
        CgroupManager::Cgroupfs => CgroupManagement::Driver(Driver::Cgroupfs),
    };
    Ok(CreateRequest {
        options: CreateOptions {
            id: id.to_string(),
            bundle,
            no_pivot: args.no_pivot,
            no_new_keyring: args.no_new_keyring,
            preserve_fds: preserve_fds + listen_fds,
            listen_fds,
            ..CreateOptions::default()
        },
        config: args.config.clone(),
        console_socket: args.console_socket.clone(),
        keep_terminal: false,
        start_by_caller: false,
        pid_file: args.pid_file.clone(),
        pidfd_socket: args.pidfd_socket.clone(),
        cgroups,
        rootless: rights.ordinary_user,
        rootless_cgroups: rights.rootless_cgroups,
        in_user_namespace: rights.in_user_namespace,
        notify: notify_socket(),
        users_systemd: cgroups == CgroupManagement::Driver(Driver::Systemd) && rights.has_users_systemd(),
    })
}

/// The service manager that waits for this process to be ready, if one does.
pub(super) fn notify_socket() -> Option<std::ffi::OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// Who waits for the word that all is ready hears it, or waits on: the container runs either way.
pub(super) fn tell(told: rrun_core::Result<()>) {
    if let Err(e) = told {
        rrun_core::log::warn(&e.to_string());
    }
}

/// The sockets that systemd hands to a service (sd_listen_fds(3)), if they are meant for this process.
fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u32>().ok());
    number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(std::process::id())).unwrap_or(0)
}

/// A descriptor that nobody has passed would be another one of this process in its place.
pub(super) fn check_preserved(listen_fds: u32, preserve_fds: u32) -> Result<()> {
    let first = 3 + i64::from(listen_fds);
    let missing = (first..first + i64::from(preserve_fds)).find(|n| i32::try_from(*n).is_ok_and(|n| !rrun_sys::process::is_inherited(n)));
    match missing {
        Some(n) => bail!("--preserve-fds {preserve_fds}: descriptor {n} is not open: pass that many from {first} on, or fewer"),
        None => Ok(()),
    }
}

/// `rrun create`.
pub fn create(store: &Store, global: &Global, id: &str, args: &Create) -> Result<i32> {
    seal_own_executable()?;
    let request = request(global, id, args)?;
    let created = lifecycle::create(store, &request).context("unable to start container process")?;
    created.ready.leave()?;
    Ok(0)
}

/// `rrun run`: create, start, and unless detached wait, pass signals and the terminal on, delete.
pub fn run(store: &Store, global: &Global, id: &str, (create, args): (&Create, &Run)) -> Result<i32> {
    seal_own_executable()?;
    let mut request = request(global, id, create)?;
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
    let Started { entry, pidfd, terminal_master: master, relay } = match started {
        Ok(started) => started,
        Err(e) => {
            delete_after(store, &id)?;
            return refused(e);
        }
    };
    // While it runs, others may pause, update and delete it.
    drop(entry);
    let Some(signals) = signals else {
        if let Some(relay) = relay {
            tell(relay.until_ready(&pidfd, pid));
        }
        return Ok(0);
    };
    let ended = follow::follow(&Followed { pid, pidfd, master, relay }, &signals);
    if !args.keep {
        delete_after(store, &id)?;
    }
    Ok(ended?.code())
}

/// What the kernel refuses to execute is told as the container's own last words, as if its first process had said it; the rest is
/// the runtime's failure.
fn refused(e: rrun_core::Error) -> Result<i32> {
    match e {
        rrun_core::Error::Exec(words) if words.starts_with("exec /") => {
            if rrun_core::log::is_file() {
                rrun_core::log::error(&words);
            }
            rrun_core::log::say(&words);
            Ok(1)
        }
        e => Err(e).context("unable to start container process"),
    }
}

/// What somebody else has deleted meanwhile is as good as deleted here.
pub(super) fn delete_after(store: &Store, id: &str) -> Result<()> {
    let entry = match store.entry(id, true) {
        Err(rrun_core::Error::NoSuchContainer) => return Ok(()),
        entry => entry?,
    };
    lifecycle::delete(&entry, true).context("delete the container after its end")
}
