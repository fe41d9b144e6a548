//! `rcontainerd`: the manager's composition root. Configuration → services → sockets.

mod args;
mod check;
mod collect;
mod compose;
mod config;
mod fsck;
mod logging;
mod notify;
mod programs;
mod serve;
mod sockets;
mod uninstall;
mod units;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use args::{Args, Command, ConfigCommand};
use config::Config;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("rcontainerd: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    if let Some(Command::Config { what: ConfigCommand::Default }) = args.command {
        print!("{}", Config::default().to_toml()?);
        return Ok(true);
    }
    let config = Config::load(args)?;
    match &args.command {
        None => {
            let log = logging::install(&config.log_level, config.log_format)?;
            serve::run(&config, args, &log)?;
        }
        Some(Command::Fsck(args)) => return fsck::run(&config, args),
        Some(Command::Check { json }) => return check::run(&config, *json),
        Some(Command::Config { .. }) => print!("{}", config.to_toml()?),
        Some(Command::Netd) => netd(&config)?,
        Some(Command::InstallUnits { dir }) => units::install(&config, args, dir)?,
        Some(Command::Uninstall { force }) => uninstall::run(&config, *force)?,
    }
    Ok(true)
}

fn netd(config: &Config) -> Result<()> {
    logging::install(&config.log_level, config.log_format)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the async runtime")?;
    Ok(runtime.block_on(rcontainerd_network::netd::run(&config.state.join("netd.sock")))?)
}
