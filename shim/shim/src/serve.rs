//! The serving process: takes the listener, arranges signals, becomes the reaper of its container's processes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};

use crate::args::Args;
use crate::bootstrap::directory_of;
use crate::events::Publisher;
use crate::io::set_nonblocking;
use crate::io::sink::listen;
use crate::journal::Journal;
use crate::server::{Server, Setup};

/// Where a caller without an address keeps its state, as containerd does by default.
const DEFAULT_STATE: &str = "/run/containerd";

/// # Errors
/// When the loop cannot be set up or fails.
pub fn serve(args: &Args) -> Result<()> {
    let bundle = std::env::current_dir().context("find the bundle (the working directory)")?;
    let journal = Journal::open(&bundle, &args.id);
    let outcome = run(args, &bundle, journal);
    if let Err(err) = &outcome {
        Journal::open(&bundle, &args.id).write(&format!("{err:#}"));
    }
    outcome
}

fn run(args: &Args, bundle: &Path, journal: Journal) -> Result<()> {
    let socket_path = own_socket(args, bundle)?;
    let listener = listener(args)?;
    // Whatever the caller leaked to us must not reach a container.
    rrun_sys::process::cloexec_from(3)?;
    rrun_sys::process::set_non_dumpable()?;
    rrun_sys::process::set_subreaper()?;
    // The manager's service may be stopped with a signal to its whole group: containers outlive it, and so do we.
    let signals = rrun_sys::process::signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    let publisher = Publisher::new(event_address(args), &args.namespace);
    let setup = Setup {
        namespace: args.namespace.clone(),
        state: state_dir(&args.address),
        socket: socket_path.clone(),
        sockets: socket_path.parent().map_or_else(|| PathBuf::from(DEFAULT_STATE), Path::to_owned),
    };
    let served = Server::new(setup, listener, signals, publisher, journal).and_then(|mut server| {
        server.run()?;
        Ok(server)
    });
    if served.is_err() {
        drop(std::fs::remove_file(&socket_path));
    }
    // Only now do the connections close, which tells the manager that nothing of this shim is left.
    served.map(drop)
}

fn own_socket(args: &Args, bundle: &Path) -> Result<PathBuf> {
    if let Some(path) = &args.socket {
        return Ok(path.clone());
    }
    let address = std::fs::read_to_string(bundle.join("address")).context("read the address file in the bundle")?;
    Ok(PathBuf::from(address.trim().trim_start_matches("unix://")))
}

/// Standard input when `start` made it, which becomes /dev/null afterwards; else `-socket`.
fn listener(args: &Args) -> Result<OwnedFd> {
    if let Some(path) = &args.socket {
        return listen(path).with_context(|| format!("listen on {}", path.display()));
    }
    let stdin = std::io::stdin();
    if !rustix::net::sockopt::socket_acceptconn(&stdin).unwrap_or(false) {
        bail!("standard input is no listening socket: use the action start, or -socket PATH");
    }
    let listener = stdin.as_fd().try_clone_to_owned().context("take the listener")?;
    set_nonblocking(&listener)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(listener)
}

/// `TTRPC_ADDRESS`, as containerd sets it; else the manager's socket with `.ttrpc`.
fn event_address(args: &Args) -> Option<PathBuf> {
    let from_env = std::env::var_os("TTRPC_ADDRESS").filter(|address| !address.is_empty()).map(PathBuf::from);
    from_env.or_else(|| (!args.address.is_empty()).then(|| PathBuf::from(format!("{}.ttrpc", args.address))))
}

/// The directory in which the manager keeps its socket.
pub fn state_dir(address: &str) -> PathBuf {
    let path = Path::new(address.trim_start_matches("unix://"));
    directory_of(path).unwrap_or_else(|| PathBuf::from(DEFAULT_STATE))
}
