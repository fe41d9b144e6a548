//! One file per group of commands; each translates options, calls the library, prints.

mod create;
mod events;
mod exec;
mod features;
mod inspect;
mod spec;
mod update;

use anyhow::{Context, Result};
use rrun_core::lifecycle;
use rrun_core::state::Store;

use crate::cli::{Cli, Command, Global};

/// Runs the command; the result is the exit code.
pub fn run(cli: Cli) -> Result<i32> {
    let global = &cli.global;
    let store = Store::new(&std::path::absolute(&global.root)?);
    match cli.command {
        Command::Create(args) => create::create(&store, global, &args).context("rrun create failed"),
        Command::Run(args) => create::run(&store, global, &args).context("rrun run failed"),
        Command::Exec(args) => exec::exec(&store, global, &args).context("exec failed"),
        Command::Start(args) => {
            done(lifecycle::start(&store.entry(&args.id, true)?)).context("rrun start failed: unable to start container process")
        }
        Command::State(args) => inspect::state(&store, &args.id),
        Command::Kill(args) => {
            let signal = inspect::signal_number(&args.signal)?;
            done(lifecycle::kill(&store.entry(&args.id.id, false)?, signal, args.all))
        }
        Command::Delete(args) => delete(&store, &args),
        Command::List(args) => inspect::list(&store, &args),
        Command::Ps(args) => inspect::ps(&store, &args),
        Command::Pause(args) => done(lifecycle::pause(&store.entry(&args.id, true)?)),
        Command::Resume(args) => done(lifecycle::resume(&store.entry(&args.id, true)?)),
        Command::Update(args) => update::update(&store, global, &args),
        Command::Events(args) => events::events(&store, &args),
        Command::Spec(args) => spec::spec(&args),
        Command::Features => features::features(),
    }
}

fn done(result: rrun_core::Result<()>) -> Result<i32> {
    result?;
    Ok(0)
}

fn delete(store: &Store, args: &crate::cli::Delete) -> Result<i32> {
    match store.entry(&args.id.id, true) {
        Err(rrun_core::Error::NoSuchContainer) if args.force => Ok(0),
        entry => done(lifecycle::delete(&entry?, args.force)),
    }
}

/// Whether cgroup permission errors may be passed over.
fn rootless(global: &Global) -> bool {
    match global.rootless.as_str() {
        "true" => true,
        "false" => false,
        _ => !rustix::process::geteuid().is_root(),
    }
}
