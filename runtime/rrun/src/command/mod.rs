//! One file per group of commands; each translates options, calls the library, prints.

mod checkpoint;
mod create;
mod events;
mod exec;
mod features;
mod inspect;
mod restore;
mod spec;
mod update;

use anyhow::{Context, Result};
use rrun_core::lifecycle;
use rrun_core::state::Store;

use crate::cli::{Cli, Command, Global};

/// Runs the command; the result is the exit code.
pub fn run(cli: Cli) -> Result<i32> {
    let global = &cli.global;
    let store = Store::new(&std::path::absolute(global.state_root())?);
    match cli.command {
        Command::Create(id, args) => {
            keep_root(global).and_then(|()| create::create(&store, global, &id, &args)).with_context(|| failed("create"))
        }
        Command::Run(id, create, run) => {
            keep_root(global).and_then(|()| create::run(&store, global, &id, (&create, &run))).with_context(|| failed("run"))
        }
        Command::Exec { id, program, options } => exec::exec(&store, global, &id, (&program, &options)).context("exec failed"),
        Command::Start(id) => start(&store, &id).with_context(|| format!("{}: unable to start container process", failed("start"))),
        Command::State(id) => inspect::state(&store, &id),
        Command::Kill { id, signal, options } => {
            let signal = inspect::signal_number(signal.as_deref().unwrap_or("SIGTERM"))?;
            done(lifecycle::kill(&store.entry(&id, false)?, signal, options.all))
        }
        Command::Delete(id, options) => delete(&store, &id, options.force),
        Command::List(options) => inspect::list(&store, &options, global.has_state_root()),
        Command::Ps { id, ps_options, options } => inspect::ps(&store, &id, &ps_options, options.format),
        Command::Pause(id) => done(lifecycle::pause(&store.entry(&id, true)?)),
        Command::Resume(id) => done(lifecycle::resume(&store.entry(&id, true)?)),
        Command::Update(id, options) => update::update(&store, global, &id, &options),
        Command::Events(id, options) => events::events(&store, &id, &options),
        Command::Spec(options) => spec::spec(&options),
        Command::Features => features::features(checkpoint::configured(global).is_some()),
        Command::Checkpoint(id, options) => checkpoint::checkpoint(&store, global, &id, &options).with_context(|| failed("checkpoint")),
        Command::Restore(id, options) => {
            keep_root(global).and_then(|()| restore::restore(&store, global, &id, &options)).with_context(|| failed("restore"))
        }
    }
}

/// Makes the directory of all containers, where it is the user's own: with the sticky bit, by which the XDG base directory
/// specification keeps files from being cleaned away.
fn keep_root(global: &Global) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let Some(root) = global.users_state_root() else { return Ok(()) };
    let told = || format!("make {}: set XDG_RUNTIME_DIR to a directory of this user, or give --root", root.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).with_context(told)?;
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o1700)).with_context(told)
}

/// In the name by which this program was called.
fn failed(command: &str) -> String {
    let name = std::env::args().next().unwrap_or_default();
    format!("{} {command} failed", name.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("rrun"))
}

/// One line on stdout. A reader that has gone is an error like any other, not a panic.
fn print(line: &str) -> Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

fn done(result: rrun_core::Result<()>) -> Result<i32> {
    result?;
    Ok(0)
}

fn start(store: &Store, id: &str) -> Result<i32> {
    let entry = store.entry(id, true)?;
    let waiting = lifecycle::start(&entry, create::notify_socket())?;
    // Others may end and delete it while it gets ready.
    drop(entry);
    if let Some((relay, pid, pidfd)) = waiting {
        create::tell(relay.until_ready(pidfd, pid));
    }
    Ok(0)
}

fn delete(store: &Store, id: &str, force: bool) -> Result<i32> {
    match store.entry(id, true) {
        Err(rrun_core::Error::NoSuchContainer) if force => Ok(0),
        entry => done(lifecycle::delete(&entry?, force)),
    }
}
