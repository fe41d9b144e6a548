//! The options, as runc has them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "rrun", about = "Open Container Initiative runtime", version, long_version = VERSION, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// In the shape that containerd and docker parse: `NAME version X`, `commit: Y`, `spec: Z`.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\ncommit: v", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

#[derive(Debug, Args)]
pub struct Global {
    /// root directory for storage of container state (this should be located in tmpfs)
    #[arg(long, default_value = "/run/rrun")]
    pub root: PathBuf,
    /// set the log file to write logs to (default is stderr)
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// set the log format
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// enable debug logging
    #[arg(long)]
    pub debug: bool,
    /// enable systemd cgroup support (not supported yet)
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// ignore cgroup permission errors ('true', 'false', or 'auto')
    #[arg(long, default_value = "auto", value_parser = ["auto", "true", "false"])]
    pub rootless: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// create a container
    Create(Create),
    /// executes the user defined process in a created container
    Start(Id),
    /// create and run a container
    Run(Run),
    /// output the state of a container
    State(Id),
    /// kill sends the specified signal (default: SIGTERM) to the container's init process
    Kill(Kill),
    /// delete any resources held by the container often used with detached container
    Delete(Delete),
    /// execute new process inside the container
    Exec(Exec),
    /// lists containers started by rrun with the given root
    List(List),
    /// ps displays the processes running inside a container
    Ps(Ps),
    /// pause suspends all processes inside the container
    Pause(Id),
    /// resumes all processes that have been previously paused
    Resume(Id),
    /// update container resource constraints
    Update(Box<Update>),
    /// display container events such as OOM notifications, cpu, memory, and IO usage statistics
    Events(Events),
    /// create a new specification file
    Spec(Spec),
    /// show the enabled features
    Features,
}

impl Command {
    /// The exit code when the command itself fails: exec's 1 could be the program's.
    pub fn failed_code(&self) -> i32 {
        if matches!(self, Command::Exec(_)) { 255 } else { 1 }
    }
}

#[derive(Debug, Args)]
pub struct Id {
    /// the container's name
    #[arg(value_name = "container-id")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    pub id: Id,
    /// path to the root of the bundle directory, defaults to the current directory
    #[arg(short, long)]
    pub bundle: Option<PathBuf>,
    /// path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// specify the file to write the process id to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// do not use pivot root to jail process inside rootfs: for a root on ramfs
    #[arg(long)]
    pub no_pivot: bool,
    /// do not create a new session keyring for the container
    #[arg(long)]
    pub no_new_keyring: bool,
    /// pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// another file than the bundle's config.json
    #[arg(short = 'f', long)]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub create: Create,
    /// detach from the container's process
    #[arg(short, long)]
    pub detach: bool,
    /// disable the use of the subreaper used to reap reparented processes
    #[arg(long)]
    pub no_subreaper: bool,
    /// do not delete the container after it exits
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Args)]
pub struct Kill {
    #[command(flatten)]
    pub id: Id,
    /// a name or a number
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
    /// send the specified signal to all processes inside the container
    #[arg(short, long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    pub id: Id,
    /// Forcibly deletes the container if it is still running (uses SIGKILL)
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Exec {
    #[command(flatten)]
    pub id: Id,
    /// the program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
    /// path to the process.json
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// detach from the container's process
    #[arg(short, long)]
    pub detach: bool,
    /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// specify the file to write the process id to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// current working directory in the container
    #[arg(long)]
    pub cwd: Option<String>,
    /// set environment variables
    #[arg(short, long)]
    pub env: Vec<String>,
    /// UID (format: <uid>[:<gid>])
    #[arg(short, long)]
    pub user: Option<String>,
    /// additional gids
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// add a capability to the bounding set for the process
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// set the asm process label for the process commonly used with selinux
    #[arg(long)]
    pub process_label: Option<String>,
    /// set the apparmor profile for the process
    #[arg(long)]
    pub apparmor: Option<String>,
    /// set the no new privileges value for the process
    #[arg(long)]
    pub no_new_privs: bool,
    /// pass N additional file descriptors to the container
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// allow exec in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// run the process in an (existing) sub-cgroup
    #[arg(long)]
    pub cgroup: Option<String>,
}

#[derive(Debug, Args)]
pub struct List {
    /// select one of: table or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    pub format: String,
    /// display only container IDs
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct Ps {
    #[command(flatten)]
    pub id: Id,
    /// select one of: table or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    pub format: String,
    /// options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub ps_options: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Update {
    #[command(flatten)]
    pub id: Id,
    /// path to the file containing the resources to update or '-' to read from the standard input
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    /// Specifies per cgroup weight, range is from 10 to 1000
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// CPU CFS period to be used for hardcapping (in usecs)
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// CPU CFS hardcap limit (in usecs)
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// CPU CFS hardcap burst limit (in usecs)
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// CPU shares (relative weight vs. other containers)
    #[arg(long)]
    pub cpu_share: Option<u64>,
    /// CPU realtime period to be used for hardcapping (in usecs)
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// CPU realtime hardcap limit (in usecs)
    #[arg(long)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPU(s) to use
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory node(s) to use
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    /// Memory limit (in bytes)
    #[arg(long, allow_negative_numbers = true)]
    pub memory: Option<String>,
    /// Memory reservation or soft_limit (in bytes)
    #[arg(long, allow_negative_numbers = true)]
    pub memory_reservation: Option<String>,
    /// Total memory usage (memory + swap); set '-1' to enable unlimited swap
    #[arg(long, allow_negative_numbers = true)]
    pub memory_swap: Option<String>,
    /// Maximum number of pids allowed in the container
    #[arg(long, allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
}

#[derive(Debug, Args)]
pub struct Events {
    #[command(flatten)]
    pub id: Id,
    /// set the stats collection interval
    #[arg(long, default_value = "5s")]
    pub interval: String,
    /// display the container's stats then exit
    #[arg(long)]
    pub stats: bool,
}

#[derive(Debug, Args)]
pub struct Spec {
    /// path to the root of the bundle directory
    #[arg(short, long)]
    pub bundle: Option<PathBuf>,
    /// generate a configuration for a rootless container
    #[arg(long)]
    pub rootless: bool,
}
