//! The command line: flags that override the configuration file, and the subcommands that are not the daemon.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// The manager of images, containers and networks. Without a subcommand it serves until SIGTERM; containers outlive it.
#[derive(Debug, Parser)]
#[command(name = "rcontainerd", version, max_term_width = 100)]
pub struct Args {
    /// Directory for what must survive a reboot [default: /var/lib/rcontainerd]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Directory for sockets and what a reboot may forget [default: /run/rcontainerd]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Configuration file (TOML) [default: /etc/rcontainerd/config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Group that owns the sockets
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// error, warn, info, debug or trace, or a filter such as info,rcontainerd_core=debug
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Write the process id to this file once the sockets answer
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell in plain words what this host offers, what it lacks, and what each lack costs
    Check {
        /// Machine-readable
        #[arg(long)]
        json: bool,
    },
    /// Show configuration
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Remove the root and state directories, the bridge and the firewall table; refuses while containers run
    Uninstall,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// The built-in values
    Default,
    /// The values in force, after file and flags
    Dump,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}
