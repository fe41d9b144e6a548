//! `rcontainerd`: the manager's composition root. Configuration → services → sockets.

mod args;
mod check;
mod collect;
mod compose;
mod config;
mod logging;
mod notify;
mod programs;
mod serve;
mod sockets;
mod uninstall;

use std::process::ExitCode;

use anyhow::Result;
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
            logging::install(&config.log_level, config.log_format)?;
            serve::run(&config, args.pid_file.as_deref())?;
        }
        Some(Command::Check { json }) => return check::run(*json),
        Some(Command::Config { .. }) => print!("{}", config.to_toml()?),
        Some(Command::Uninstall) => uninstall::run(&config)?,
    }
    Ok(true)
}
