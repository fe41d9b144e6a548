//! What runs in the new process: a loop over [`InitStep`]s that names the step in the error.

mod console;
mod devices;
mod identity;
mod mounts;
mod program;
mod protect;
mod rootpath;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rrun_sys::fs::{self, OFlags, ResolveFlags};
use rrun_sys::{process, socket};

use crate::hooks;
use crate::plan::{InitStep, Join};
use crate::seccomp::Program;
use crate::{Context, Error, Result};

/// Messages between parent and child: one byte, `Failed` followed by JSON.
pub mod message {
    /// Child → parent: run the hooks of the runtime's namespace.
    pub const RUN_HOOKS: u8 = b'h';
    /// Child → parent: everything is prepared.
    pub const READY: u8 = b'r';
    /// Child → parent: a step failed; the rest is JSON of [`super::Failure`].
    pub const FAILED: u8 = b'e';
    /// Parent → child.
    pub const GO: u8 = b'g';
}

/// A failure on its way to the parent.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Empty: the message stands for itself.
    pub step: String,
    pub message: String,
}

/// What the child needs beside its steps; descriptors are all close-on-exec.
#[derive(Debug)]
pub struct Child {
    /// To the parent.
    pub channel: OwnedFd,
    /// Where `start` connects; None: the parent itself says when.
    pub start_socket: Option<OwnedFd>,
    /// Where a terminal's master goes.
    pub console_socket: Option<OwnedFd>,
    pub seccomp: Option<Program>,
    /// The profile's listener address and metadata, as JSON made by the parent.
    pub seccomp_listener: Option<(String, Vec<u8>)>,
    /// state JSON for hooks, with the pid as `0`: each user fills in.
    pub hook_state: hooks::HookState,
    /// The running container's init, for exec.
    pub container: Option<OwnedFd>,
}

/// State that steps leave for later ones.
struct Init {
    child: Child,
    root: Option<OwnedFd>,
    host_proc: Option<OwnedFd>,
    program: Option<program::Found>,
}

/// Runs the steps; returns only by ending the process.
pub fn run(child: Child, steps: &[InitStep]) -> ! {
    let mut init = Init { child, root: None, host_proc: None, program: None };
    for step in steps {
        if let Err(e) = init.apply(step) {
            init.report(step, &e);
            process::exit_now(1);
        }
    }
    process::exit_now(1)
}

impl Init {
    fn report(&self, step: &InitStep, e: &Error) {
        let step = if matches!(e, Error::Exec(_)) { String::new() } else { step.name() };
        let failure = Failure { step, message: e.to_string() };
        let mut bytes = vec![message::FAILED];
        bytes.extend(serde_json::to_vec(&failure).unwrap_or_default());
        // Nobody listens any more: the exit code is all that is left to say.
        if socket::send(&self.child.channel, &bytes).is_err() {
            eprintln!("{}", failure.message);
        }
    }

    fn apply(&mut self, step: &InitStep) -> Result<()> {
        crate::log::failpoint(&step.name())?;
        match step {
            InitStep::AwaitParent => self.await_go(),
            InitStep::OpenHostProc => self.open_host_proc(),
            InitStep::Hide => Ok(process::set_non_dumpable()?),
            InitStep::JoinNamespaces(joins) => join_all(joins),
            InitStep::JoinContainer { namespaces } => self.join_container(*namespaces),
            InitStep::BecomeMappedRoot => identity::become_mapped_root(),
            InitStep::NewSession => Ok(process::new_session()?),
            InitStep::NewKeyring(name) => new_keyring(name),
            InitStep::NewCgroupNamespace => Ok(process::unshare(libc::CLONE_NEWCGROUP)?),
            InitStep::Hostname(name) => Ok(process::set_hostname(name)?),
            InitStep::Domainname(name) => Ok(process::set_domainname(name)?),
            InitStep::OomScoreAdj(value) => self.write_proc("self/oom_score_adj", &value.to_string()),
            InitStep::Sysctl(key, value) => self.write_proc(&format!("sys/{key}"), value),
            InitStep::Rlimits(limits) => limits.iter().try_for_each(|(what, soft, hard)| Ok(process::set_rlimit(*what, *soft, *hard)?)),
            InitStep::Personality(p) => Ok(process::set_personality(*p)?),
            InitStep::Scheduler(attr) => Ok(process::set_scheduler(*attr)?),
            InitStep::IoPriority(class, level) => Ok(process::set_io_priority(*class, *level)?),
            InitStep::LsmLabel { apparmor, selinux } => self.label(apparmor.as_deref(), selinux.as_deref()),
            InitStep::RuntimeHooks => {
                socket::send(&self.child.channel, &[message::RUN_HOOKS])?;
                self.await_go()
            }
            InitStep::CreateContainerHooks(list) => {
                hooks::run_all("createContainer", list, &self.child.hook_state.with("creating", own_pid()), None)
            }
            InitStep::StartContainerHooks(list) => {
                hooks::run_all("startContainer", list, &self.child.hook_state.with("created", own_pid()), None)
            }
            InitStep::NoNewPrivileges => Ok(process::set_no_new_privs()?),
            InitStep::Seccomp => self.load_seccomp(),
            InitStep::BecomeUser(identity) => identity::become_user(identity),
            InitStep::OwnStdio(uid) => identity::own_stdio(*uid),
            InitStep::AwaitStart => self.await_start(),
            InitStep::CloseDescriptors { keep } => Ok(process::cloexec_from(3 + *keep as i32)?),
            InitStep::FindProgram { args, env, uid } => self.find_program(args, env, *uid),
            InitStep::Exec => self.exec(),
            other => self.apply_file_step(other),
        }
    }

    fn apply_file_step(&mut self, step: &InitStep) -> Result<()> {
        match step {
            InitStep::TreePropagation(flags) => {
                flags.map_or(Ok(()), |f| Ok(rrun_sys::mount::change(Path::new("/"), propagation_flags(f))?))
            }
            InitStep::BindRootfs(path) => mounts::bind_rootfs(path).map(|root| self.root = Some(root)),
            InitStep::Mount(step) => mounts::mount(self.root()?, step),
            InitStep::Devices { devices, bind } => devices.iter().try_for_each(|d| devices::make(self.root()?, d, *bind)),
            InitStep::DevLinks { kcore } => devices::links(self.root()?, *kcore),
            InitStep::Console { size, bind_console, owner } => console::set_up(self, *size, *bind_console, *owner),
            InitStep::PivotRoot => mounts::pivot(self.root()?),
            InitStep::MoveRoot => mounts::move_root(self.root()?),
            InitStep::RootPropagation(flags) => Ok(rrun_sys::mount::change(Path::new("/"), propagation_flags(*flags))?),
            InitStep::ReadonlyPaths(paths) => protect::read_only(self.root()?, paths),
            InitStep::MaskPaths(paths) => protect::mask(self.root()?, paths),
            InitStep::ReadonlyRoot => protect::read_only_root(self.root()?),
            InitStep::WorkingDirectory { path, create } => rootpath::enter(path, *create),
            other => Err(Error::state(format!("step {} has no executor", other.name()))),
        }
    }

    fn root(&self) -> Result<&OwnedFd> {
        self.root.as_ref().ok_or_else(|| Error::state("the root file system is not bound yet"))
    }

    fn open_host_proc(&mut self) -> Result<()> {
        let proc = fs::openat(fs::CWD, Path::new("/proc"), OFlags::PATH | OFlags::DIRECTORY, 0)?;
        const PROC_SUPER_MAGIC: i64 = 0x9fa0;
        if fs::fstatfs(&proc)?.f_type != PROC_SUPER_MAGIC {
            return Err(Error::state("/proc of the host is no procfs: mount one with `mount -t proc proc /proc`"));
        }
        self.host_proc = Some(proc);
        Ok(())
    }

    /// Writes a file of the host's procfs, through nothing that is mounted over a part of it.
    fn write_proc(&self, file: &str, value: &str) -> Result<()> {
        let proc = self.host_proc.as_ref().ok_or_else(|| Error::state("procfs is not open"))?;
        // "self" is a symlink, but no magic one; what it leads to stays below.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let fd = fs::openat2(proc, Path::new(file), OFlags::WRONLY, 0, resolve)?;
        fs::write_all_at_once(&fd, value.as_bytes()).doing(|| format!("write /proc/{file}"))
    }

    fn label(&self, apparmor: Option<&str>, selinux: Option<&str>) -> Result<()> {
        if let Some(profile) = apparmor {
            self.write_proc("thread-self/attr/apparmor/exec", &format!("exec {profile}"))
                .or_else(|_| self.write_proc("thread-self/attr/exec", &format!("exec {profile}")))
                .doing(|| format!("apply apparmor profile {profile}"))?;
        }
        selinux.map_or(Ok(()), |label| self.write_proc("thread-self/attr/exec", label).doing(|| format!("apply SELinux label {label}")))
    }

    fn join_container(&self, namespaces: i32) -> Result<()> {
        let container = self.child.container.as_ref().ok_or_else(|| Error::state("no container to join"))?;
        Ok(process::join_namespace(container, namespaces)?)
    }

    fn await_go(&self) -> Result<()> {
        match socket::receive(&self.child.channel)?.first() {
            Some(&message::GO) => Ok(()),
            _ => Err(Error::state("the runtime ended before the container was ready")),
        }
    }

    fn await_start(&mut self) -> Result<()> {
        socket::send(&self.child.channel, &[message::READY])?;
        if let Some(listener) = self.child.start_socket.take() {
            self.child.channel = socket::accept(&listener)?;
        }
        self.await_go()
    }

    fn load_seccomp(&self) -> Result<()> {
        let Some(program) = &self.child.seccomp else { return Err(Error::state("no seccomp program was compiled")) };
        let listener = program.load().map_err(|e| Error::state(format!("loading the seccomp filter: {e}")))?;
        let Some(listener) = listener else { return Ok(()) };
        let Some((path, metadata)) = &self.child.seccomp_listener else {
            return Err(Error::state("seccomp: SCMP_ACT_NOTIFY needs listenerPath"));
        };
        let socket = socket::connect_stream(Path::new(path))?;
        Ok(socket::send_fd(&socket, metadata, listener.as_fd())?)
    }

    fn find_program(&mut self, args: &[String], env: &[String], uid: u32) -> Result<()> {
        self.program = Some(program::find(args, env, uid)?);
        Ok(())
    }

    fn exec(&mut self) -> Result<()> {
        let found = self.program.as_ref().ok_or_else(|| Error::state("no program was found"))?;
        process::reset_signals()?;
        let e = process::execveat(None, &found.path, &found.argv, &found.env);
        Err(Error::Exec(format!("exec {}: {}", found.path.to_string_lossy(), rrun_sys::errno_text(e.errno()))))
    }
}

fn own_pid() -> i32 {
    // Inside a new pid namespace this is 1, which is what hooks of the container's namespaces see.
    std::process::id() as i32
}

fn join_all(joins: &[Join]) -> Result<()> {
    joins.iter().try_for_each(join)
}

/// Joins one namespace by path.
pub(crate) fn join(join: &Join) -> Result<()> {
    let ns = fs::openat(fs::CWD, &join.path, OFlags::RDONLY, 0)?;
    process::join_namespace(&ns, join.kind).doing(|| format!("join {}", join.path.display()))
}

fn new_keyring(name: &str) -> Result<()> {
    let name = CString::new(name).map_err(|_| Error::invalid("the container id holds a NUL byte"))?;
    match process::new_session_keyring(&name) {
        // A kernel without keyrings, or a filter around us that hides them: there is nothing to keep apart then.
        Err(e) if e.is(libc::ENOSYS) || e.is(libc::EPERM) => Ok(()),
        // Possession grants all, the owner may search: as a session keyring made by login.
        Ok(key) => Ok(process::set_key_permissions(key, 0x3f08_0000)?),
        Err(e) => Err(e.into()),
    }
}

pub(crate) fn propagation_flags(bits: u64) -> rrun_sys::mount::MountPropagationFlags {
    rrun_sys::mount::MountPropagationFlags::from_bits_retain(bits as u32)
}
