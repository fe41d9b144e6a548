//! What runs in the new process: a loop over [`InitStep`]s that names the step in the error.

mod console;
mod copy_up;
mod devices;
mod identity;
mod mounts;
mod program;
mod protect;
mod rootpath;

pub(crate) use devices::is_null_device;
pub(crate) use mounts::set_attrs;
pub(crate) use rootpath::{Kind, ensure};

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use rrun_sys::fs::{self, OFlags};
use rrun_sys::{process, socket};

use crate::hooks;
use crate::plan::{InitStep, Join, sysctl_path};
use crate::procfs::ProcFs;
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
    /// Child → parent: send the prepared mount of this number (decimal).
    pub const TREE: u8 = b't';
    /// Child → parent: hand my descriptor of this number (decimal), or the one that comes with this, to the seccomp supervisor.
    pub const LISTENER: u8 = b'l';
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

impl Failure {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![message::FAILED];
        bytes.extend(serde_json::to_vec(self).unwrap_or_default());
        bytes
    }
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
    /// The terminal is for this runtime's own caller, whose terminal makes line ends what it needs.
    pub console_keeps_line_ends: bool,
    pub seccomp: Option<Program>,
    /// The parent may not fetch the filter's listener from this process, which hides from its user, too.
    pub sends_listener: bool,
    /// state JSON for hooks, with the pid as `0`: each user fills in.
    pub hook_state: hooks::HookState,
    /// The running container's init, for exec.
    pub container: Option<OwnedFd>,
    /// The container's root directory, where it is a mount that the parent has made.
    pub root: Option<OwnedFd>,
}

/// State that steps leave for later ones.
struct Init {
    child: Child,
    ignored: u64,
    root: Option<OwnedFd>,
    proc: Option<ProcFs>,
    program: Option<program::Found>,
    /// Where root may not go: root of a user namespace has no say over files of ids that it does not have.
    cwd_denied: Option<String>,
}

/// Runs the steps; returns only by ending the process.
/// `ignored`: the signals that the runtime and its callers ignore.
pub fn run(mut child: Child, ignored: u64, steps: &[InitStep]) -> ! {
    crate::log::debug(|| {
        let cpus = process::affinity().map_or_else(|e| e.to_string(), |mask| format!("{mask:#x}"));
        format!("nsexec container setup: affinity: {cpus}: child process in init()")
    });
    let root = child.root.take();
    let mut init = Init { child, ignored, root, proc: None, program: None, cwd_denied: None };
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
        let step = if matches!(e, Error::Exec(_)) { String::new() } else { step.failing() };
        let mut failure = Failure { step, message: e.to_string() };
        let mut bytes = failure.to_bytes();
        // Names may be longer than a message.
        while bytes.len() > socket::LARGEST_MESSAGE {
            failure.message = failure.message.chars().take(failure.message.chars().count() / 2).collect();
            bytes = failure.to_bytes();
        }
        // Nobody listens any more: the exit code is all that is left to say.
        if socket::send(&self.child.channel, &bytes).is_err() {
            crate::log::say(&failure.message);
        }
    }

    fn apply(&mut self, step: &InitStep) -> Result<()> {
        crate::log::failpoint(&step.name())?;
        match step {
            InitStep::InitialAffinity(cpus) => initial_affinity(cpus),
            InitStep::ResetAffinity => reset_affinity(),
            InitStep::Affinity(cpus) => process::set_affinity(0, cpus).doing(|| "error setting final CPU affinity".to_string()),
            InitStep::LoopbackUp => Ok(socket::interface_up("lo")?),
            InitStep::MemoryPolicy(mode, nodes) => Ok(process::set_memory_policy(*mode, nodes)?),
            InitStep::EnterCgroups(files) => files.iter().try_for_each(|file| enter_cgroup(file)),
            InitStep::AwaitParent => self.await_go(),
            InitStep::OpenProc(part) => ProcFs::open(*part).map(|proc| self.proc = Some(proc)),
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
            InitStep::Sysctl(key, value) => self.write_proc(&format!("sys/{}", sysctl_path(key)), value),
            InitStep::Rlimits(limits) => limits.iter().try_for_each(|(what, soft, hard)| Ok(process::set_rlimit(*what, *soft, *hard)?)),
            InitStep::Personality(p) => Ok(process::set_personality(*p)?),
            InitStep::Scheduler(attr) => scheduler(attr),
            InitStep::IoPriority(class, level) => Ok(process::set_io_priority(*class, *level)?),
            InitStep::LsmLabel { apparmor, selinux } => self.label(apparmor.as_deref(), selinux.as_deref()),
            InitStep::RuntimeHooks => {
                socket::send(&self.child.channel, &[message::RUN_HOOKS])?;
                self.await_go()
            }
            InitStep::CreateContainerHooks(list) => {
                process::change_dir(self.root()?)?;
                hooks::run_all("createContainer", list, &self.child.hook_state.with("creating", own_pid()), None)
            }
            InitStep::StartContainerHooks(list) => self.start_container_hooks(list),
            InitStep::NoNewPrivileges => Ok(process::set_no_new_privs()?),
            InitStep::Seccomp => self.load_seccomp(),
            InitStep::BecomeUser(identity) => {
                identity::become_user(identity)?;
                self.cwd_denied.take().map_or(Ok(()), |path| rootpath::enter_at_last(&path))
            }
            InitStep::OwnStdio(uid) => identity::own_stdio(*uid),
            InitStep::AwaitStart => self.await_start(),
            InitStep::CloseDescriptors { keep } => self.close_descriptors(*keep),
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
            InitStep::BindRootfs { path, shared } => mounts::bind_rootfs(path, *shared).map(|root| self.root = Some(root)),
            InitStep::Mount(step) => match step.tree {
                Some(number) => mounts::attach_prepared(self.root()?, step, &self.prepared(number)?),
                None if step.made => {
                    let proc = self.proc.take().ok_or_else(|| Error::state("procfs is not open"))?;
                    mounts::attach_new(self.root()?, step, &proc.into_tree())
                }
                None => mounts::mount(self.root()?, step),
            },
            InitStep::Devices { devices, bind } => devices::make_all(self.root()?, devices, *bind),
            InitStep::DevLinks { kcore } => devices::links(self.root()?, *kcore),
            InitStep::Console { size, bind_console, owner } => console::set_up(self, *size, *bind_console, *owner),
            InitStep::PivotRoot => mounts::pivot(self.root()?),
            InitStep::ChangeRoot => mounts::change_root(self.root()?),
            InitStep::MoveRoot => {
                mounts::hide_kernel_file_systems(self.root()?)?;
                mounts::move_root(self.root()?)
            }
            InitStep::RootPropagation(flags) => Ok(rrun_sys::mount::change(Path::new("/"), propagation_flags(*flags))?),
            InitStep::ReadonlyPaths(paths) => protect::read_only(self.root()?, paths),
            InitStep::MaskPaths { paths, label } => protect::mask(self.root()?, paths, label.as_deref()),
            InitStep::ReadonlyRoot => protect::read_only_root(self.root()?),
            InitStep::WorkingDirectory { path, create } => {
                self.cwd_denied = (!rootpath::enter(path, *create)?).then(|| path.clone());
                Ok(())
            }
            other => Err(Error::state(format!("step {} has no executor", other.name()))),
        }
    }

    fn root(&self) -> Result<&OwnedFd> {
        self.root.as_ref().ok_or_else(|| Error::state("the root file system is not bound yet"))
    }

    fn write_proc(&self, file: &str, value: &str) -> Result<()> {
        self.proc.as_ref().ok_or_else(|| Error::state("procfs is not open"))?.write(file, value)
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

    fn prepared(&self, number: usize) -> Result<OwnedFd> {
        socket::send(&self.child.channel, format!("{}{number}", char::from(message::TREE)).as_bytes())?;
        socket::receive_fd(&self.child.channel)?.1.ok_or_else(|| Error::state("the runtime ended before it had prepared a mount"))
    }

    /// From here on nothing of the host is open but stdio and what the caller hands on, also while this process waits for its
    /// start; what it still needs itself does not survive exec.
    fn close_descriptors(&self, preserved: u32) -> Result<()> {
        let next = if self.child.container.is_some() { "setns_init: about to exec" } else { "init: closing the pipe to signal completion" };
        crate::log::debug(|| next.to_string());
        let first = 3 + preserved as i32;
        process::cloexec_from(first)?;
        // Before the seccomp filter, which need not allow it.
        process::reset_signals(self.ignored)?;
        let start = self.child.start_socket.as_ref().map(AsRawFd::as_raw_fd);
        if start.is_some() {
            // The first process of a pid namespace is deaf to what it does not handle: `kill` before `start` would do nothing.
            process::end_on_signals()?;
        }
        let needed: Vec<i32> = start.into_iter().chain([self.child.channel.as_raw_fd()]).collect();
        Ok(process::close_all_but(first, &needed)?)
    }

    fn await_start(&mut self) -> Result<()> {
        // The filter may be loaded by now, and may know nothing of sockets.
        socket::write(&self.child.channel, &[message::READY])?;
        if let Some(listener) = self.child.start_socket.take() {
            self.child.channel = socket::accept(&listener)?;
        }
        self.await_go()
    }

    fn load_seccomp(&self) -> Result<()> {
        let Some(program) = &self.child.seccomp else { return Err(Error::state("no seccomp program was compiled")) };
        if self.child.sends_listener && program.wants_listener() {
            return self.load_seccomp_beside_a_sender(program);
        }
        let listener = program.load().map_err(|e| Error::state(format!("loading the seccomp filter: {e}")))?;
        let Some(listener) = listener else { return Ok(()) };
        // From here on a supervisor may have a say in each call of this process, and has no listener yet: one write, which no
        // profile may hold up, and the parent fetches it.
        let message = format!("{}{}", char::from(message::LISTENER), listener.as_raw_fd());
        socket::write(&self.child.channel, message.as_bytes())?;
        self.await_go()
    }

    /// A thread without the filter sends the listener: this one could be held up, or denied it. It ends when this process executes
    /// the container's program, at the latest.
    fn load_seccomp_beside_a_sender(&self, program: &Program) -> Result<()> {
        let (ours, theirs) = socket::pair()?;
        let channel = self.child.channel.try_clone().map_err(|e| Error::io("dup", Path::new("channel"), &e))?;
        let send = move || -> Result<()> {
            let number = String::from_utf8_lossy(&socket::receive(&theirs)?).parse().map_err(|_| Error::state("no listener was made"))?;
            let listener = process::adopt_fd(number)?;
            Ok(socket::send_fd(&channel, &[message::LISTENER], listener.as_fd())?)
        };
        // What fails there shows here: nobody says go.
        std::thread::Builder::new()
            .spawn(move || send().unwrap_or_else(|e| crate::log::say(&e.to_string())))
            .map_err(|e| Error::io("start", Path::new("the thread that sends the seccomp listener"), &e))?;
        let listener = program.load_into_this_thread().map_err(|e| Error::state(format!("loading the seccomp filter: {e}")))?;
        let listener = listener.ok_or_else(|| Error::state("the kernel has made no seccomp listener"))?;
        socket::write(&ours, listener.into_raw_fd().to_string().as_bytes())?;
        self.await_go()
    }

    /// A hook without an environment of its own has the container's, as the field has it.
    fn start_container_hooks(&self, list: &[hooks::Hook]) -> Result<()> {
        let own = self.program.as_ref().map(|p| p.env.iter().map(|e| e.to_string_lossy().into_owned()).collect::<Vec<_>>());
        let with_env = |hook: &hooks::Hook| {
            let env = if hook.env.is_empty() { own.clone().unwrap_or_default() } else { hook.env.clone() };
            hooks::Hook { env, ..hook.clone() }
        };
        let list: Vec<hooks::Hook> = list.iter().map(with_env).collect();
        hooks::run_all("startContainer", &list, &self.child.hook_state.with("created", own_pid()), None)
    }

    fn find_program(&mut self, args: &[String], env: &[String], uid: u32) -> Result<()> {
        self.program = Some(program::find(args, env, uid)?);
        Ok(())
    }

    fn exec(&mut self) -> Result<()> {
        let found = self.program.as_ref().ok_or_else(|| Error::state("no program was found"))?;
        let e = process::execveat(None, &found.path, &found.argv, &found.env);
        Err(Error::Exec(format!("exec {}: {}", found.path.to_string_lossy(), rrun_sys::errno_text(e.errno()))))
    }
}

/// 0 is the thread that writes it.
fn enter_cgroup(file: &Path) -> Result<()> {
    let tasks = fs::openat(fs::CWD, file, OFlags::WRONLY, 0)?;
    fs::write_all_at_once(&tasks, b"0").doing(|| format!("enter {}", file.display()))
}

fn initial_affinity(cpus: &[u64]) -> Result<()> {
    process::set_affinity(0, cpus).doing(|| "error setting initial CPU affinity".to_string())?;
    crate::log::debug(|| format!("nsexec: affinity: {:#x}", process::affinity().unwrap_or_default()));
    Ok(())
}

fn scheduler(attr: &process::SchedAttr) -> Result<()> {
    match process::set_scheduler(*attr) {
        Err(e) if e.is(libc::EPERM) => Err(Error::state(format!(
            "{e}: process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus) or without the right to it"
        ))),
        done => Ok(done?),
    }
}

/// The kernel remembers an affinity that was set for this runtime, and would keep to it in the container's cpuset (Linux 6.2).
/// It cuts the full mask down to what there is.
pub(crate) fn reset_affinity() -> Result<()> {
    match process::set_affinity(0, &[u64::MAX; 128]) {
        // A filter around us may forbid it: then the container has the runtime's CPUs, as ever before.
        Err(e) if e.is(libc::EPERM) || e.is(libc::ENOSYS) => Ok(()),
        done => Ok(done?),
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

pub(crate) fn new_keyring(name: &str) -> Result<()> {
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
