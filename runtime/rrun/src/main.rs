//! `rrun`: the OCI runtime's command line, flag for flag that of runc.

mod cli;
mod command;
mod follow;
mod normalize;

use clap::Parser;
use rrun_core::log;

fn main() {
    let args = normalize::arguments(std::env::args_os().collect());
    let cli = cli::Cli::parse_from(args);
    let format = if cli.global.log_format == cli::LogFormat::Json { log::Format::Json } else { log::Format::Text };
    if let Err(e) = log::init(cli.global.log.as_deref(), format, cli.global.debug) {
        eprintln!("{e}");
        std::process::exit(1);
    }
    let failed_code = cli.command.failed_code();
    match command::run(cli) {
        Ok(code) => std::process::exit(code),
        Err(e) => {
            // Engines read the last error of the log; people read stderr.
            let message = format!("{e:#}");
            log::error(&message);
            if log::is_file() {
                eprintln!("{message}");
            }
            std::process::exit(failed_code);
        }
    }
}
