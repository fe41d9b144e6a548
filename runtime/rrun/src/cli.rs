//! The options, as runc has them.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::words::{Grammar, HELP, Odd, Opt, Rest, VERSION, Value, Words, one_of, options};

/// A whole line.
#[derive(Debug)]
pub struct Cli {
    pub global: Global,
    pub command: Command,
}

#[derive(Debug)]
pub enum Command {
    Create(String, Create),
    Start(String),
    Run(String, Create, Run),
    State(String),
    Kill { id: String, signal: Option<String>, options: Kill },
    Delete(String, Delete),
    Exec { id: String, program: Vec<String>, options: Exec },
    List(List),
    Ps { id: String, ps_options: Vec<String>, options: Ps },
    Pause(String),
    Resume(String),
    Update(String, Box<Update>),
    Events(String, Events),
    Spec(Spec),
    Features,
    Checkpoint(String, Box<Checkpoint>),
    Restore(String, Box<Restore>),
}

/// A command, as help shows it.
#[derive(Debug)]
pub struct Info {
    pub name: &'static str,
    pub about: &'static str,
    /// As in `<container-id> [signal]`.
    pub operands: &'static str,
    pub grammar: Grammar,
}

const fn info(name: &'static str, about: &'static str, operands: &'static str, grammar: Grammar) -> Info {
    Info { name, about, operands, grammar }
}

/// Nothing but options.
const fn plain(options: &'static [&'static [Opt]]) -> Grammar {
    Grammar { options, operands: 0, rest: Rest::None }
}

/// A container's name, and `rest`.
const fn of_container(options: &'static [&'static [Opt]], rest: Rest) -> Grammar {
    Grammar { options, operands: 1, rest }
}

const ID: &str = "<container-id>";
const ID_ALONE: Grammar = of_container(&[], Rest::None);

pub const COMMANDS: &[Info] = &[
    info("create", "create a container", ID, of_container(&[Create::OPTIONS], Rest::None)),
    info("start", "executes the user defined process in a created container", ID, ID_ALONE),
    info("run", "create and run a container", ID, of_container(&[Create::OPTIONS, Run::OPTIONS], Rest::None)),
    info("state", "output the state of a container", ID, ID_ALONE),
    info(
        "kill",
        "kill sends the specified signal (default: SIGTERM) to the container's init process",
        "<container-id> [signal]",
        of_container(&[Kill::OPTIONS], Rest::Optional),
    ),
    info(
        "delete",
        "delete any resources held by the container often used with detached container",
        ID,
        of_container(&[Delete::OPTIONS], Rest::None),
    ),
    info(
        "exec",
        "execute new process inside the container",
        "<container-id> <command> [command options]  || -p process.json <container-id>",
        of_container(&[Exec::OPTIONS], Rest::Program),
    ),
    info("list", "lists containers started by rrun with the given root", "", plain(&[List::OPTIONS])),
    info(
        "ps",
        "ps displays the processes running inside a container",
        "<container-id> [ps options]",
        of_container(&[Ps::OPTIONS], Rest::ProgramWithOptions),
    ),
    info("pause", "pause suspends all processes inside the container", ID, ID_ALONE),
    info("resume", "resumes all processes that have been previously paused", ID, ID_ALONE),
    info("update", "update container resource constraints", ID, of_container(&[Update::OPTIONS], Rest::None)),
    info(
        "events",
        "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
        ID,
        of_container(&[Events::OPTIONS], Rest::None),
    ),
    info("spec", "create a new specification file", "", plain(&[Spec::OPTIONS])),
    info("features", "show the enabled features", "", plain(&[])),
    info("checkpoint", "checkpoint a running container, by criu", ID, of_container(&[Checkpoint::OPTIONS], Rest::None)),
    info("restore", "restore a container from a previous checkpoint, by criu", ID, of_container(&[Restore::OPTIONS], Rest::None)),
];

/// A line that asks for no command that could be run, and the command that it names, if any.
pub type Asked = (Odd, Option<&'static Info>);

impl Cli {
    /// `line`: without the program's name.
    pub fn parse(line: Vec<OsString>) -> Result<Cli, Asked> {
        let mut line = line.into_iter();
        let head = plain(&[Global::OPTIONS, &[HELP, VERSION]]);
        let at_top = |odd| (odd, None);
        let (words, name) = head.parse_head(&mut line).map_err(at_top)?;
        let global = Global::take(&words).map_err(at_top)?;
        let Some(name) = name else { return Err((Odd::Help, None)) };
        let info =
            COMMANDS.iter().find(|info| name == info.name).ok_or_else(|| (Odd::Unknown(name.to_string_lossy().into_owned()), None))?;
        let command = info.grammar.parse(&mut line).and_then(|words| Command::take(info.name, words)).map_err(|odd| (odd, Some(info)))?;
        Ok(Cli { global, command })
    }
}

impl Command {
    fn take(name: &str, mut words: Words) -> Result<Command, Odd> {
        let id = words.operand()?.unwrap_or_default();
        Ok(match name {
            "create" => Command::Create(id, Create::take(&words)?),
            "start" => Command::Start(id),
            "run" => Command::Run(id, Create::take(&words)?, Run::take(&words)?),
            "state" => Command::State(id),
            "kill" => Command::Kill { id, signal: words.operand()?, options: Kill::take(&words)? },
            "delete" => Command::Delete(id, Delete::take(&words)?),
            "exec" => Command::Exec { id, options: Exec::take(&words)?, program: words.operands()? },
            "list" => Command::List(List::take(&words)?),
            "ps" => Command::Ps { id, options: Ps::take(&words)?, ps_options: words.operands()? },
            "pause" => Command::Pause(id),
            "resume" => Command::Resume(id),
            "update" => Command::Update(id, Box::new(Update::take(&words)?)),
            "events" => Command::Events(id, Events::take(&words)?),
            "spec" => Command::Spec(Spec::take(&words)?),
            "checkpoint" => Command::Checkpoint(id, Box::new(Checkpoint::take(&words)?)),
            "restore" => Command::Restore(id, Box::new(Restore::take(&words)?)),
            "features" => Command::Features,
            other => return Err(Odd::Unknown(other.to_string())),
        })
    }

    /// The exit code when the command itself fails: exec's 1 could be the program's.
    pub fn failed_code(&self) -> i32 {
        if matches!(self, Command::Exec { .. }) { 255 } else { 1 }
    }
}

/// In the shape that containerd and docker parse: `NAME version X`, `commit: Y`, `spec: Z`.
pub const VERSION_TEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "\ncommit: v", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

options! {
    pub struct Global {
        /// root directory for storage of container state (this should be located in tmpfs) (default: "/run/rrun")
        root: Option<PathBuf> = "root",
        /// set the log file to write logs to (default is stderr)
        log: Option<PathBuf> = "log",
        /// set the log format ('text' (default), or 'json')
        log_format: LogFormat = "log-format",
        /// enable debug logging
        debug: bool = "debug",
        /// enable systemd cgroup support, expects cgroupsPath to be of form "slice:prefix:name"
        systemd_cgroup: bool = "systemd-cgroup",
        /// who makes cgroups: cgroupfs (default), systemd or disabled
        cgroup_manager: CgroupManager = "cgroup-manager",
        /// criu, for checkpoint and restore: its path, or its name in PATH (default: $RRUN_CRIU, else neither is done)
        criu: Option<PathBuf> = "criu",
        /// ignore cgroup permission errors ('true', 'false', or 'auto') (default: "auto")
        rootless: Rootless = "rootless",
    }
}

impl Global {
    /// Whether the caller has named it.
    pub fn has_state_root(&self) -> bool {
        self.root.is_some()
    }

    /// The directory of all containers: as given, else the user's own where there is no other right.
    pub fn state_root(&self) -> PathBuf {
        self.root.clone().or_else(|| self.users_state_root()).unwrap_or_else(|| "/run/rrun".into())
    }

    /// An ordinary user's, unless another was given.
    pub fn users_state_root(&self) -> Option<PathBuf> {
        if self.root.is_some() || !crate::rights::is_ordinary_user() {
            return None;
        }
        let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty());
        Some(own.map_or_else(|| "/run".into(), PathBuf::from).join("rrun"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

impl Value for CgroupManager {
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
        one_of(words, long, &[("cgroupfs", Self::Cgroupfs), ("systemd", Self::Systemd), ("disabled", Self::Disabled)])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Value for LogFormat {
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
        one_of(words, long, &[("text", Self::Text), ("json", Self::Json)])
    }
}

/// Whether cgroups that may not be had are done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rootless {
    Auto,
    Yes,
    No,
}

impl Value for Rootless {
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
        one_of(words, long, &[("auto", Self::Auto), ("true", Self::Yes), ("false", Self::No)])
    }
}

/// How `list` and `ps` print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
}

impl Value for Format {
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
        one_of(words, long, &[("table", Self::Table), ("json", Self::Json)])
    }
}

options! {
    pub struct Create {
        /// path to the root of the bundle directory, defaults to the current directory
        bundle: Option<PathBuf> = "bundle" 'b',
        /// path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal
        console_socket: Option<PathBuf> = "console-socket",
        /// path to an AF_UNIX socket which will receive a file descriptor referencing the init process
        pidfd_socket: Option<PathBuf> = "pidfd-socket",
        /// specify the file to write the process id to
        pid_file: Option<PathBuf> = "pid-file",
        /// do not use pivot root to jail process inside rootfs: for a root on ramfs
        no_pivot: bool = "no-pivot",
        /// do not create a new session keyring for the container
        no_new_keyring: bool = "no-new-keyring",
        /// pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total) (default: 0)
        preserve_fds: Option<u32> = "preserve-fds",
        /// another file than the bundle's config.json
        config: Option<PathBuf> = "config" 'f',
    }
}

options! {
    pub struct Run {
        /// detach from the container's process
        detach: bool = "detach" 'd',
        /// disable the use of the subreaper used to reap reparented processes
        no_subreaper: bool = "no-subreaper",
        /// do not delete the container after it exits
        keep: bool = "keep",
    }
}

options! {
    pub struct Checkpoint {
        /// path for saving criu image files (default: "./checkpoint")
        image_path: Option<PathBuf> = "image-path",
        /// path for saving work files and logs
        work_path: Option<PathBuf> = "work-path",
        /// path for previous criu image files in pre-dump, relative to --image-path
        parent_path: Option<PathBuf> = "parent-path",
        /// leave the process running after checkpointing
        leave_running: bool = "leave-running",
        /// allow open tcp connections
        tcp_established: bool = "tcp-established",
        /// skip in-flight tcp connections
        tcp_skip_in_flight: bool = "tcp-skip-in-flight",
        /// allow one to link unlinked files back when possible
        link_remap: bool = "link-remap",
        /// allow external unix sockets
        ext_unix_sk: bool = "ext-unix-sk",
        /// allow shell jobs
        shell_job: bool = "shell-job",
        /// use userfaultfd to lazily restore memory pages
        lazy_pages: bool = "lazy-pages",
        /// a zero byte is written to this FD once lazy-pages is ready
        status_fd: Option<i64> = "status-fd",
        /// ADDRESS:PORT of the page server
        page_server: Option<String> = "page-server",
        /// handle file locks, for safety
        file_locks: bool = "file-locks",
        /// dump container's memory information only, leave the container running after this
        pre_dump: bool = "pre-dump",
        /// what criu writes down of cgroups: ignore, soft, full or strict (default: "ignore")
        manage_cgroups_mode: CgroupsMode = "manage-cgroups-mode",
        /// create a namespace, but don't restore its properties: network, of which they never are
        empty_ns: Vec<String> = "empty-ns",
        /// enable auto deduplication of memory images
        auto_dedup: bool = "auto-dedup",
    }
}

options! {
    pub struct Restore {
        /// path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal
        console_socket: Option<PathBuf> = "console-socket",
        /// path to criu image files for restoring (default: "./checkpoint")
        image_path: Option<PathBuf> = "image-path",
        /// path for saving work files and logs
        work_path: Option<PathBuf> = "work-path",
        /// allow open tcp connections
        tcp_established: bool = "tcp-established",
        /// allow external unix sockets
        ext_unix_sk: bool = "ext-unix-sk",
        /// allow shell jobs
        shell_job: bool = "shell-job",
        /// handle file locks, for safety
        file_locks: bool = "file-locks",
        /// who makes cgroups: always "ignore", which is this runtime by config.json
        manage_cgroups_mode: CgroupsMode = "manage-cgroups-mode",
        /// path to the root of the bundle directory, defaults to the current directory
        bundle: Option<PathBuf> = "bundle" 'b',
        /// detach from the container's process
        detach: bool = "detach" 'd',
        /// specify the file to write the process id to
        pid_file: Option<PathBuf> = "pid-file",
        /// disable the use of the subreaper used to reap reparented processes
        no_subreaper: bool = "no-subreaper",
        /// refused: criu always uses pivot root
        no_pivot: bool = "no-pivot",
        /// create a namespace, but don't restore its properties: network, of which they never are
        empty_ns: Vec<String> = "empty-ns",
        /// enable auto deduplication of memory images
        auto_dedup: bool = "auto-dedup",
        /// use userfaultfd to lazily restore memory pages
        lazy_pages: bool = "lazy-pages",
        /// specify an LSM profile to be used during restore in the form of TYPE:NAME
        lsm_profile: Option<String> = "lsm-profile",
        /// specify an LSM mount context to be used during restore
        lsm_mount_context: Option<String> = "lsm-mount-context",
    }
}

/// What criu does about cgroups; the first is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupsMode(pub rrun_core::criu::CgroupMode);

impl Value for CgroupsMode {
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
        use rrun_core::criu::CgroupMode::{Full, Ignore, Soft, Strict};
        let modes = [("ignore", Ignore), ("", Ignore), ("soft", Soft), ("full", Full), ("strict", Strict)];
        one_of(words, long, &modes).map(CgroupsMode)
    }
}

options! {
    pub struct Kill {
        /// send the specified signal to all processes inside the container
        all: bool = "all" 'a' #hidden,
    }
}

options! {
    pub struct Delete {
        /// Forcibly deletes the container if it is still running (uses SIGKILL)
        force: bool = "force" 'f',
    }
}

options! {
    pub struct Exec {
        /// path to the process.json
        process: Option<PathBuf> = "process" 'p',
        /// allocate a pseudo-TTY
        tty: bool = "tty" 't',
        /// detach from the container's process
        detach: bool = "detach" 'd',
        /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
        console_socket: Option<PathBuf> = "console-socket",
        /// path to an AF_UNIX socket which will receive a file descriptor referencing the exec process
        pidfd_socket: Option<PathBuf> = "pidfd-socket",
        /// specify the file to write the process id to
        pid_file: Option<PathBuf> = "pid-file",
        /// current working directory in the container
        cwd: Option<String> = "cwd",
        /// set environment variables
        env: Vec<String> = "env" 'e',
        /// UID (format: <uid>[:<gid>])
        user: Option<String> = "user" 'u',
        /// additional gids
        additional_gids: Vec<u32> = "additional-gids" 'g',
        /// add a capability to the bounding set for the process
        cap: Vec<String> = "cap" 'c',
        /// set the asm process label for the process commonly used with selinux
        process_label: Option<String> = "process-label",
        /// set the apparmor profile for the process
        apparmor: Option<String> = "apparmor",
        /// set the no new privileges value for the process
        no_new_privs: bool = "no-new-privs",
        /// pass N additional file descriptors to the container (default: 0)
        preserve_fds: Option<u32> = "preserve-fds",
        /// allow exec in a paused container
        ignore_paused: bool = "ignore-paused",
        /// run the process in an (existing) sub-cgroup, [<controller>:]<cgroup>
        cgroup: Vec<String> = "cgroup",
    }
}

options! {
    pub struct List {
        /// select one of: table or json (default: "table")
        format: Format = "format" 'f',
        /// display only container IDs
        quiet: bool = "quiet" 'q',
    }
}

options! {
    pub struct Ps {
        /// select one of: table or json (default: "table")
        format: Format = "format" 'f',
    }
}

options! {
    pub struct Update {
        /// path to the file containing the resources to update or '-' to read from the standard input
        resources: Option<PathBuf> = "resources" 'r',
        /// Specifies per cgroup weight, range is from 10 to 1000
        blkio_weight: Option<u16> = "blkio-weight",
        /// CPU CFS period to be used for hardcapping (in usecs)
        cpu_period: Option<u64> = "cpu-period",
        /// CPU CFS hardcap limit (in usecs)
        cpu_quota: Option<i64> = "cpu-quota",
        /// CPU CFS hardcap burst limit (in usecs)
        cpu_burst: Option<u64> = "cpu-burst",
        /// CPU shares (relative weight vs. other containers)
        cpu_share: Option<u64> = "cpu-share",
        /// CPU realtime period to be used for hardcapping (in usecs)
        cpu_rt_period: Option<u64> = "cpu-rt-period",
        /// CPU realtime hardcap limit (in usecs)
        cpu_rt_runtime: Option<i64> = "cpu-rt-runtime",
        /// CPU(s) to use
        cpuset_cpus: Option<String> = "cpuset-cpus",
        /// Memory node(s) to use
        cpuset_mems: Option<String> = "cpuset-mems",
        /// set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE
        cpu_idle: Option<i64> = "cpu-idle",
        /// Memory limit (in bytes)
        memory: Option<String> = "memory",
        /// Memory reservation or soft_limit (in bytes)
        memory_reservation: Option<String> = "memory-reservation",
        /// Total memory usage (memory + swap); set '-1' to enable unlimited swap
        memory_swap: Option<String> = "memory-swap",
        /// The string of Intel RDT/CAT L3 cache schema
        l3_cache_schema: Option<String> = "l3-cache-schema",
        /// The string of Intel RDT/MBA memory bandwidth schema
        mem_bw_schema: Option<String> = "mem-bw-schema",
        /// (deprecated) ignored, with a warning
        kernel_memory: Option<String> = "kernel-memory" #hidden,
        /// (deprecated) ignored, with a warning
        kernel_memory_tcp: Option<String> = "kernel-memory-tcp" #hidden,
        /// Maximum number of pids allowed in the container
        pids_limit: Option<i64> = "pids-limit",
    }
}

options! {
    pub struct Events {
        /// set the stats collection interval (default: 5s)
        interval: Option<String> = "interval",
        /// display the container's stats then exit
        stats: bool = "stats",
    }
}

options! {
    pub struct Spec {
        /// path to the root of the bundle directory
        bundle: Option<PathBuf> = "bundle" 'b',
        /// generate a configuration for a rootless container
        rootless: bool = "rootless",
    }
}
