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
    /// Group that owns the sockets [default: rcontainerd or docker, whichever exists, else root's]
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// error, warn, info, debug or trace, or a filter such as info,rcontainerd_core=debug
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Lines for people, or a JSON object each [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Write the process id to this file while the manager runs
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
    /// Check database, blobs, snapshots and what containers left on the host against each other; exit code 0: clean
    Fsck(FsckArgs),
    /// Show configuration
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Write systemd's units for this binary with these flags, and tell how to enable them
    InstallUnits {
        /// Where to write rcontainerd.service and rcontainerd.socket
        #[arg(long, value_name = "DIR", default_value = crate::units::DIRECTORY)]
        dir: PathBuf,
    },
    /// Serve names to containers; started by the manager, and lives on without it
    #[command(hide = true)]
    Netd,
    /// Remove units, root and state directories, bridge, firewall table and cgroup; refuses while containers are left
    Uninstall {
        /// Kill and remove the containers of every namespace first
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct FsckArgs {
    /// Remove what nobody owns, drop records of what is lost; nothing that holds data of yours is removed
    #[arg(long)]
    pub repair: bool,
    /// With --repair: pull lost and damaged parts of images again
    #[arg(long)]
    pub refetch: bool,
    /// Compare sizes of blobs only, instead of reading all of them
    #[arg(long)]
    pub quick: bool,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
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
