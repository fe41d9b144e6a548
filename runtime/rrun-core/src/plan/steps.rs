//! The child as a list. Order is meaning here: which step runs with which rights and in which root is read off these functions.

use std::path::{Path, PathBuf};

use super::mount::{ATTR_RDONLY, MountStep, What, plan_cgroup_mount, plan_mount, propagation};
use super::process::{Identity, ProcessPlan, memory_policy, plan_process};
use super::{CreateOptions, HostFacts, Join, Spawn, direct_joins, rootfs_path};
use crate::Result;
use crate::procfs::Part;
use crate::spec::{Device, Hook, Linux, Process, Spec};

/// One thing that a new process does to itself on its way to the container's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitStep {
    /// The CPUs of an exec'd process until it is in the container's cgroup.
    InitialAffinity(Vec<u64>),
    /// Every CPU that the container's cgroup has, whatever this runtime was bound to.
    ResetAffinity,
    Affinity(Vec<u64>),
    /// This process enters v1 cgroups by their `tasks` files.
    EnterCgroups(Vec<PathBuf>),
    /// Until the parent has written the id mappings and moved this process into its cgroups.
    AwaitParent,
    /// Makes a procfs for this process's own writes, before any mount of config.json; left out where nothing is written.
    OpenProc(Part),
    /// No process of the container may trace this one or reach into its /proc directory.
    Hide,
    JoinNamespaces(Vec<Join>),
    /// Enters every namespace of a running container but the pid namespace, which the parent has set.
    JoinContainer {
        namespaces: i32,
    },
    /// Root of the user namespace just entered.
    BecomeMappedRoot,
    NewSession,
    NewKeyring(String),
    NewCgroupNamespace,
    /// The loopback device of a new network namespace.
    LoopbackUp,
    Hostname(String),
    Domainname(String),
    OomScoreAdj(i32),
    /// (name, value)
    Sysctl(String, String),
    /// Propagation of the whole tree as inherited, `MS_*`; None leaves it shared with the host.
    TreePropagation(Option<u64>),
    /// The rootfs becomes a mount of its own and this process's idea of the container's root. `shared`: what it lies on may be.
    BindRootfs {
        path: PathBuf,
        shared: bool,
    },
    Mount(MountStep),
    Devices {
        devices: Vec<DeviceStep>,
        bind: bool,
    },
    DevLinks {
        kcore: bool,
    },
    Console {
        size: Option<(u16, u16)>,
        bind_console: bool,
        owner: u32,
    },
    /// Asks the parent to run prestart and createRuntime hooks and waits.
    RuntimeHooks,
    CreateContainerHooks(Vec<Hook>),
    PivotRoot,
    /// Without a mount namespace: this process's own idea of `/`.
    ChangeRoot,
    /// Without pivot_root(2), for a root on ramfs.
    MoveRoot,
    RootPropagation(u64),
    ReadonlyPaths(Vec<PathBuf>),
    MaskPaths {
        paths: Vec<PathBuf>,
        /// The SELinux label of the file system that covers directories.
        label: Option<String>,
    },
    ReadonlyRoot,
    LsmLabel {
        apparmor: Option<String>,
        selinux: Option<String>,
    },
    Rlimits(Vec<(u32, u64, u64)>),
    Personality(u64),
    /// (mode with flags, nodes)
    MemoryPolicy(i32, Vec<u64>),
    Scheduler(rrun_sys::process::SchedAttr),
    IoPriority(u32, u32),
    OwnStdio(u32),
    WorkingDirectory {
        path: String,
        create: bool,
    },
    /// Looks for the program (PATH, permissions) and for HOME, with the container's files.
    FindProgram {
        args: Vec<String>,
        env: Vec<String>,
        uid: u32,
    },
    NoNewPrivileges,
    Seccomp,
    BecomeUser(Identity),
    /// Tells the parent that all is done and waits for the start.
    AwaitStart,
    StartContainerHooks(Vec<Hook>),
    CloseDescriptors {
        keep: u32,
    },
    Exec,
}

impl InitStep {
    /// The step's name in messages.
    pub fn name(&self) -> String {
        let debug = format!("{self:?}");
        match self {
            InitStep::Mount(m) => format!("mounting {}", m.destination.display()),
            InitStep::BindRootfs { path, .. } => format!("binding the root file system {}", path.display()),
            _ => debug.split(['(', ' ', '{']).next().unwrap_or_default().to_string(),
        }
    }

    /// What failed, in the field's words where it has some.
    pub fn failing(&self) -> String {
        match self {
            InitStep::Mount(m) => {
                let to = m.destination.display().to_string();
                match &m.what {
                    What::Bind { source, .. } | What::Move { source } => {
                        format!("error mounting {:?} to rootfs at {to:?}", source.display().to_string())
                    }
                    What::New { source, .. } => format!("error mounting {source:?} to rootfs at {to:?}"),
                    What::Reattribute | What::Remount { .. } => format!("error remounting {to:?}"),
                }
            }
            InitStep::Sysctl(key, value) => format!("config.json: linux.sysctl.{key}: {value:?}: the kernel refuses it"),
            InitStep::OomScoreAdj(value) => format!("config.json: process.oomScoreAdj: {value}: the kernel refuses it"),
            InitStep::Rlimits(_) => "config.json: process.rlimits".to_string(),
            InitStep::Scheduler(_) => "config.json: process.scheduler".to_string(),
            InitStep::IoPriority(..) => "config.json: process.ioPriority".to_string(),
            InitStep::MemoryPolicy(..) => "config.json: linux.memoryPolicy".to_string(),
            InitStep::Personality(_) => "config.json: linux.personality".to_string(),
            InitStep::Hostname(name) => format!("config.json: hostname: {name:?}"),
            InitStep::Domainname(name) => format!("config.json: domainname: {name:?}"),
            InitStep::Devices { .. } => "config.json: linux.devices".to_string(),
            _ => self.name(),
        }
    }
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStep {
    pub path: PathBuf,
    /// `c`, `b` or `p`.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// The steps of a container's first process.
pub(super) fn init_steps(
    spec: &Spec,
    host: &HostFacts,
    options: &CreateOptions,
    spawn: &Spawn,
    warnings: &mut Vec<String>,
) -> Result<Vec<InitStep>> {
    let available = if spec.linux.has("user") { u64::MAX } else { host.capabilities };
    let default = Process::default();
    let mut process = plan_process(spec.process.as_ref().unwrap_or(&default), available, warnings);
    if options.listen_fds > 0 {
        process.env.extend([format!("LISTEN_FDS={}", options.listen_fds), "LISTEN_PID=1".to_string()]);
    }
    let proc = container_proc(spec, options, &process)?;
    let writes = proc_steps(spec, &process, proc.as_ref().map(|(_, step)| step));
    // The order in which mounts are made is the order in which /proc/mounts and mount(8) tell them: the root first. A procfs that
    // is never attached does not count, and is written to while /proc/self still belongs to this process's user.
    let (first, later) = if proc.is_some() { (Vec::new(), writes) } else { (writes, Vec::new()) };
    let mut steps = entry_steps(spec, options, spawn, first);
    if spec.linux.has("mount") {
        steps.extend(bind_root_steps(spec, options));
    }
    steps.extend(later);
    steps.extend(spec.linux.sysctl.iter().map(|(key, value)| InitStep::Sysctl(key.clone(), value.clone())));
    steps.extend(mount_steps(spec, host, options, &process, proc.map(|(number, _)| number))?);
    let finished = finish_rootfs_steps(spec, options);
    steps.extend(finished);
    steps.extend(inherited_steps(&spec.linux));
    steps.extend(process_steps(&process, options.filter, spec.linux.has("user"), Some(&spec.hooks.start_container), options.preserve_fds));
    Ok(steps)
}

/// What another process in a running container gets beside its own settings.
#[derive(Debug)]
pub struct ExecPlan<'a> {
    pub linux: &'a Linux,
    /// `CLONE_NEW*` to join, without pid.
    pub namespaces: i32,
    /// Whether the container has a user namespace of its own, joined here or before.
    pub user_namespace: bool,
    pub filter: Filter,
    pub preserve_fds: u32,
    /// It has no mount namespace of its own: its root is the child's to take.
    pub change_root: bool,
    pub child_waits: bool,
    /// As in [`Spawn`].
    pub entrances: Vec<PathBuf>,
    /// The container's session keyring; None: that of the caller stays.
    pub keyring: Option<String>,
}

/// The steps of another process in a running container.
pub fn exec_steps(process: &ProcessPlan, exec: &ExecPlan<'_>) -> Vec<InitStep> {
    let mut steps = Vec::new();
    steps.extend(process.initial_cpus.clone().map(InitStep::InitialAffinity));
    if !exec.entrances.is_empty() {
        steps.push(InitStep::EnterCgroups(exec.entrances.clone()));
    }
    if exec.child_waits {
        steps.push(InitStep::AwaitParent);
    }
    match (&process.initial_cpus, &process.final_cpus) {
        (_, Some(cpus)) => steps.push(InitStep::Affinity(cpus.clone())),
        (None, None) => steps.push(InitStep::ResetAffinity),
        (Some(_), None) => {}
    }
    steps.extend(proc_for(process, None, false));
    steps.extend(process.oom_score_adj.map(InitStep::OomScoreAdj));
    steps.push(InitStep::Hide);
    steps.push(InitStep::JoinContainer { namespaces: exec.namespaces });
    if exec.change_root {
        steps.push(InitStep::ChangeRoot);
    }
    let user = exec.user_namespace;
    if user {
        steps.push(InitStep::BecomeMappedRoot);
    }
    steps.push(InitStep::NewSession);
    steps.extend(exec.keyring.clone().map(InitStep::NewKeyring));
    if process.terminal {
        steps.push(InitStep::Console { size: process.console_size, bind_console: false, owner: process.identity.uid });
    }
    steps.extend(inherited_steps(exec.linux));
    steps.extend(process_steps(process, exec.filter, user, None, exec.preserve_fds));
    steps
}

/// What every process of a container has from `linux`.
fn inherited_steps(linux: &Linux) -> Vec<InitStep> {
    let mut steps = Vec::new();
    if let Some(p) = &linux.personality {
        steps.push(InitStep::Personality(if p.domain == "LINUX32" { 0x8 } else { 0 }));
    }
    // Judged by validation.
    if let Some(Ok((mode, nodes))) = linux.memory_policy.as_ref().map(memory_policy) {
        steps.push(InitStep::MemoryPolicy(mode, nodes));
    }
    steps
}

/// The procfs that the steps to come write to, if any does.
fn proc_for(process: &ProcessPlan, of_container: Option<&MountStep>, sysctls: bool) -> Option<InitStep> {
    let part = match (of_container, sysctls) {
        (Some(step), _) => Part::Container(step.attrs.set),
        (None, true) => Part::All,
        (None, false) => Part::Processes,
    };
    (process.oom_score_adj.is_some() || is_labelled(process) || sysctls).then_some(InitStep::OpenProc(part))
}

fn is_labelled(process: &ProcessPlan) -> bool {
    process.apparmor.is_some() || process.selinux.is_some()
}

/// Those writes of a container's first process that any namespace allows.
fn proc_steps(spec: &Spec, process: &ProcessPlan, of_container: Option<&MountStep>) -> Vec<InitStep> {
    let open = proc_for(process, of_container, !spec.linux.sysctl.is_empty());
    open.into_iter().chain(process.oom_score_adj.map(InitStep::OomScoreAdj)).collect()
}

/// The procfs that the container gets, if it can serve the runtime's own writes first: not in a user namespace, which may mount
/// none, and not for labels, which are written when others can reach it.
fn container_proc(spec: &Spec, options: &CreateOptions, process: &ProcessPlan) -> Result<Option<(usize, MountStep)>> {
    let writes = process.oom_score_adj.is_some() || !spec.linux.sysctl.is_empty();
    if !writes || is_labelled(process) || spec.linux.has("user") {
        return Ok(None);
    }
    let Some(number) = spec.mounts.iter().position(|m| m.kind == "proc") else { return Ok(None) };
    let step = plan_mount(number, &options.bundle, spec)?;
    let plain =
        matches!(&step.what, What::New { data, source, .. } if data.is_empty() && source == "proc") && step.attrs.set & ATTR_RDONLY == 0;
    Ok(plain.then_some((number, step)))
}

fn entry_steps(spec: &Spec, options: &CreateOptions, spawn: &Spawn, proc_writes: Vec<InitStep>) -> Vec<InitStep> {
    let linux = &spec.linux;
    let mut steps = Vec::new();
    if !spawn.entrances.is_empty() {
        steps.push(InitStep::EnterCgroups(spawn.entrances.clone()));
    }
    if spawn.child_waits {
        steps.push(InitStep::AwaitParent);
    }
    steps.push(InitStep::ResetAffinity);
    steps.extend(proc_writes);
    steps.push(InitStep::Hide);
    let joins = direct_joins(spec, spawn);
    if !joins.is_empty() {
        steps.push(InitStep::JoinNamespaces(joins));
    }
    if linux.has("user") {
        steps.push(InitStep::BecomeMappedRoot);
    }
    steps.push(InitStep::NewSession);
    if !options.no_new_keyring {
        steps.push(InitStep::NewKeyring(keyring_name(&options.id)));
    }
    if linux.makes("network") {
        steps.push(InitStep::LoopbackUp);
    }
    if linux.makes("cgroup") {
        steps.push(InitStep::NewCgroupNamespace);
    }
    if !spec.hostname.is_empty() {
        steps.push(InitStep::Hostname(spec.hostname.clone()));
    }
    if !spec.domainname.is_empty() {
        steps.push(InitStep::Domainname(spec.domainname.clone()));
    }
    steps
}

/// The session keyring that the processes of a container share.
pub(crate) fn keyring_name(id: &str) -> String {
    format!("_ses.{id}")
}

fn bind_root_steps(spec: &Spec, options: &CreateOptions) -> [InitStep; 2] {
    let shared = propagation(&spec.linux.rootfs_propagation).is_some_and(|p| p & libc::MS_SHARED != 0);
    [
        InitStep::TreePropagation((!shared).then_some(libc::MS_SLAVE | libc::MS_REC)),
        InitStep::BindRootfs { path: rootfs_path(spec, &options.bundle), shared },
    ]
}

fn mount_steps(
    spec: &Spec,
    host: &HostFacts,
    options: &CreateOptions,
    process: &ProcessPlan,
    made: Option<usize>,
) -> Result<Vec<InitStep>> {
    let linux = &spec.linux;
    let mut steps = Vec::new();
    let mut dev_is_ours = true;
    let mut seal_dev = None;
    let mut trees = 0;
    // What comes of the host's mounts must not carry an unmount back to them; in a mount namespace it could not.
    let apart = |mut step: MountStep| {
        if !linux.has("mount") {
            step.propagation.insert(0, libc::MS_SLAVE | libc::MS_REC);
        }
        step
    };
    for (number, mount) in spec.mounts.iter().enumerate() {
        if mount.kind == "cgroup" || mount.kind == "cgroup2" {
            steps.extend(plan_cgroup_mount(mount, &host.cgroups, linux.has("cgroup")).into_iter().map(apart).map(InitStep::Mount));
            continue;
        }
        let mut step = apart(plan_mount(number, &options.bundle, spec)?);
        step.made = made == Some(number);
        // With a user namespace of the container's own, its root may not even reach the source; and only the owner of a file
        // system may map its ids. So the parent, who may, makes the tree.
        if matches!(step.what, What::Bind { .. }) && (step.idmap.is_some() || (linux.has("user") && !host.rootless)) {
            step.tree = Some(trees);
            trees += 1;
        }
        if let What::New { fstype, data, .. } = &mut step.what
            && !linux.mount_label.is_empty()
            && !UNLABELLED.contains(&fstype.as_str())
        {
            data.push(("context".to_string(), Some(linux.mount_label.clone())));
        }
        // A /dev that was given is the giver's: nothing is made in it.
        if is_dev(&step.destination) {
            dev_is_ours = !matches!(step.what, What::Bind { .. });
            // Read-only once everything is in it.
            if dev_is_ours && step.attrs.set & ATTR_RDONLY != 0 {
                step.attrs.set &= !ATTR_RDONLY;
                let mut seal = MountStep::new(&step.destination, What::Reattribute);
                seal.attrs.set = ATTR_RDONLY;
                seal_dev = Some(seal);
            }
        }
        steps.push(InitStep::Mount(step));
    }
    if dev_is_ours {
        steps.push(InitStep::Devices { devices: devices(&linux.devices), bind: linux.has("user") });
        steps.push(InitStep::DevLinks { kcore: host.has_kcore });
    }
    if process.terminal {
        steps.push(InitStep::Console { size: process.console_size, bind_console: dev_is_ours, owner: process.identity.uid });
    }
    if !spec.hooks.prestart.is_empty() || !spec.hooks.create_runtime.is_empty() {
        steps.push(InitStep::RuntimeHooks);
    }
    if !spec.hooks.create_container.is_empty() {
        steps.push(InitStep::CreateContainerHooks(spec.hooks.create_container.clone()));
    }
    steps.extend(seal_dev.map(InitStep::Mount));
    Ok(steps)
}

/// File systems of the kernel's own, which have labels by its policy.
const UNLABELLED: [&str; 4] = ["proc", "sysfs", "mqueue", "cgroup"];

fn is_dev(path: &Path) -> bool {
    path.components().eq(Path::new("/dev").components())
}

fn finish_rootfs_steps(spec: &Spec, options: &CreateOptions) -> Vec<InitStep> {
    let linux = &spec.linux;
    let mut steps = vec![match (linux.has("mount"), options.no_pivot) {
        (false, _) => InitStep::ChangeRoot,
        (true, true) => InitStep::MoveRoot,
        (true, false) => InitStep::PivotRoot,
    }];
    if !linux.readonly_paths.is_empty() {
        steps.push(InitStep::ReadonlyPaths(linux.readonly_paths.clone()));
    }
    if !linux.masked_paths.is_empty() {
        let label = (!linux.mount_label.is_empty()).then(|| linux.mount_label.clone());
        steps.push(InitStep::MaskPaths { paths: linux.masked_paths.clone(), label });
    }
    // The working directory is made where it is missing, so before the root is sealed.
    if let Some(process) = &spec.process {
        steps.push(InitStep::WorkingDirectory { path: process.cwd.clone(), create: true });
    }
    if spec.root.as_ref().is_some_and(|r| r.readonly) {
        steps.push(InitStep::ReadonlyRoot);
    }
    steps.extend(propagation(&linux.rootfs_propagation).map(InitStep::RootPropagation));
    steps
}

/// Whether a seccomp filter is loaded, and who must be there when it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Filter {
    #[default]
    None,
    Plain,
    /// A supervisor answers for some calls: the parent hands it the listener, so the filter is loaded while the parent waits.
    Notifying,
}

/// The last steps, the same for init and exec. Without no_new_privs the filter needs CAP_SYS_ADMIN, so it is loaded while the
/// process still has it; with it, as late as can be, so that the profile need not allow what comes before.
fn process_steps(
    process: &ProcessPlan,
    filter: Filter,
    user_namespace: bool,
    start_hooks: Option<&Vec<Hook>>,
    preserve_fds: u32,
) -> Vec<InitStep> {
    let mut steps = Vec::new();
    if process.apparmor.is_some() || process.selinux.is_some() {
        steps.push(InitStep::LsmLabel { apparmor: process.apparmor.clone(), selinux: process.selinux.clone() });
    }
    if !process.rlimits.is_empty() {
        steps.push(InitStep::Rlimits(process.rlimits.clone()));
    }
    steps.extend(process.scheduler.map(InitStep::Scheduler));
    steps.extend(process.io_priority.map(|(class, level)| InitStep::IoPriority(class, level)));
    if !process.terminal && (process.identity.uid != 0 || user_namespace) {
        steps.push(InitStep::OwnStdio(process.identity.uid));
    }
    if start_hooks.is_none() {
        steps.push(InitStep::WorkingDirectory { path: process.cwd.clone(), create: false });
    }
    steps.push(InitStep::FindProgram { args: process.args.clone(), env: process.env.clone(), uid: process.identity.uid });
    steps.push(InitStep::CloseDescriptors { keep: preserve_fds });
    if process.no_new_privileges {
        steps.push(InitStep::NoNewPrivileges);
    } else if filter != Filter::None {
        steps.push(InitStep::Seccomp);
    }
    steps.push(InitStep::BecomeUser(process.identity.clone()));
    if process.no_new_privileges && filter == Filter::Notifying {
        steps.push(InitStep::Seccomp);
    }
    if start_hooks.is_some() {
        steps.push(InitStep::AwaitStart);
    }
    if process.no_new_privileges && filter == Filter::Plain {
        steps.push(InitStep::Seccomp);
    }
    // Programs of the image, so under the filter.
    steps.extend(start_hooks.filter(|hooks| !hooks.is_empty()).map(|hooks| InitStep::StartContainerHooks(hooks.clone())));
    steps.push(InitStep::Exec);
    steps
}

/// `net.ipv4.x` and `net/ipv4/x` name the same file; the first separator decides which of the two is meant.
pub(crate) fn sysctl_path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key.to_string(),
        _ => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    }
}

/// The specification's default devices, then those of config.json (which replace a default of the same path).
fn devices(listed: &[Device]) -> Vec<DeviceStep> {
    const DEFAULTS: [(&str, u32, u32); 6] =
        [("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/full", 1, 7), ("/dev/random", 1, 8), ("/dev/urandom", 1, 9), ("/dev/tty", 5, 0)];
    let defaults = DEFAULTS
        .iter()
        .filter(|(path, ..)| !listed.iter().any(|d| d.path == Path::new(path)))
        .map(|(path, major, minor)| DeviceStep { path: path.into(), kind: 'c', major: *major, minor: *minor, mode: 0o666, uid: 0, gid: 0 });
    // Always a link to that of the container's own devpts.
    let listed = listed.iter().filter(|d| d.path != Path::new("/dev/ptmx")).map(|d| DeviceStep {
        path: d.path.clone(),
        kind: match d.kind.as_str() {
            "b" => 'b',
            "p" => 'p',
            _ => 'c',
        },
        major: u32::try_from(d.major).unwrap_or(0),
        minor: u32::try_from(d.minor).unwrap_or(0),
        mode: d.file_mode.unwrap_or(0o666) & 0o7777,
        uid: d.uid.unwrap_or(0),
        gid: d.gid.unwrap_or(0),
    });
    defaults.chain(listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ptmx_that_is_asked_for_is_the_containers_own() {
        let listed = [Device { path: "/dev/ptmx".into(), kind: "c".into(), major: 5, minor: 2, ..Device::default() }];
        assert!(devices(&listed).iter().all(|d| d.path != Path::new("/dev/ptmx")));
    }
    use crate::plan::plan;

    fn names(extra: impl FnOnce(&mut serde_json::Value)) -> Vec<String> {
        let mut config = serde_json::json!({
            "ociVersion": "1.2.0", "root": {"path": "rootfs", "readonly": true}, "hostname": "h",
            "process": {"args": ["sh"], "cwd": "/", "noNewPrivileges": true, "oomScoreAdj": 5},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "cgroup"}], "maskedPaths": ["/proc/kcore"], "seccomp": {}},
        });
        extra(&mut config);
        let spec = crate::spec::parse_spec(config.to_string().as_bytes()).unwrap();
        crate::spec::validate(&spec).unwrap();
        let options = CreateOptions { id: "x".into(), bundle: "/b".into(), filter: Filter::Plain, ..CreateOptions::default() };
        plan(&spec, &HostFacts::default(), &options).unwrap().steps.iter().map(InitStep::name).collect()
    }

    #[test]
    fn the_default_order() {
        insta::assert_snapshot!(names(|_| {}).join("\n"), @r"
        ResetAffinity
        Hide
        NewSession
        NewKeyring
        NewCgroupNamespace
        Hostname
        TreePropagation
        binding the root file system /b/rootfs
        OpenProc
        OomScoreAdj
        mounting /proc
        Devices
        DevLinks
        PivotRoot
        MaskPaths
        WorkingDirectory
        ReadonlyRoot
        FindProgram
        CloseDescriptors
        NoNewPrivileges
        BecomeUser
        AwaitStart
        Seccomp
        Exec
        ");
    }

    #[test]
    fn without_a_mount_namespace_the_host_keeps_its_root_and_propagation() {
        let names = names(|c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "mount");
            c["linux"]["maskedPaths"] = serde_json::json!([]);
        });
        assert!(names.contains(&"ChangeRoot".to_string()));
        for step in ["TreePropagation", "PivotRoot", "binding the root file system /b/rootfs"] {
            assert!(!names.contains(&step.to_string()), "{step}");
        }
    }

    #[test]
    fn without_a_mount_namespace_what_cannot_be_undone_is_refused_by_name() {
        let told = |path: &str, value: serde_json::Value, namespaces: serde_json::Value| {
            let mut config = serde_json::json!({
                "ociVersion": "1.2.0", "root": {"path": "rootfs"}, "process": {"args": ["sh"], "cwd": "/"}, "linux": {"namespaces": namespaces},
            });
            *config.pointer_mut(path).unwrap() = value;
            let spec = crate::spec::parse_spec(config.to_string().as_bytes()).unwrap();
            let options = CreateOptions { id: "x".into(), bundle: "/b".into(), ..CreateOptions::default() };
            plan(&spec, &HostFacts::default(), &options).unwrap_err().to_string()
        };
        let needs = "needs a mount namespace in linux.namespaces";
        let none = || serde_json::json!([]);
        let user = serde_json::json!([{"type": "user"}]);
        assert_eq!(
            told("/root/path", "rootfs".into(), user),
            format!("config.json: linux.namespaces: {needs}: in another one a user namespace gives no right to mount")
        );
        assert_eq!(
            told("/root/path", "/".into(), none()),
            format!("config.json: root.path: \"/\": {needs}: the container's mounts would lie over the host's root")
        );
        assert_eq!(
            told("/linux", serde_json::json!({"rootfsPropagation": "rshared"}), none()),
            format!("config.json: linux.rootfsPropagation: \"rshared\": {needs}: what is mounted in the container would stay on the host")
        );
        let moved = serde_json::json!({"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "process": {"args": ["sh"], "cwd": "/"},
            "mounts": [{"destination": "/x", "source": "/y", "options": ["move"]}]});
        assert_eq!(told("", moved, none()), format!("config.json: mounts[0].options: \"move\": {needs}: the host would lose this mount"));
    }

    #[test]
    fn without_no_new_privs_the_filter_is_loaded_while_cap_sys_admin_is_there() {
        let names = names(|c| c["process"]["noNewPrivileges"] = false.into());
        let at = |name: &str| names.iter().position(|n| n == name).unwrap();
        assert!(at("Seccomp") < at("BecomeUser"));
        assert!(!names.contains(&"NoNewPrivileges".to_string()));
    }

    #[test]
    fn the_containers_procfs_is_written_to_before_it_is_mounted_unless_a_label_comes_later() {
        let opened = |label: &str| {
            let config = serde_json::json!({
                "ociVersion": "1.2.0", "root": {"path": "rootfs"},
                "process": {"args": ["sh"], "cwd": "/", "oomScoreAdj": 5, "apparmorProfile": label},
                "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}],
                "linux": {"namespaces": [{"type": "mount"}]},
            });
            let spec = crate::spec::parse_spec(config.to_string().as_bytes()).unwrap();
            let options = CreateOptions { id: "x".into(), bundle: "/b".into(), ..CreateOptions::default() };
            let steps = plan(&spec, &HostFacts { apparmor: true, ..HostFacts::default() }, &options).unwrap().steps;
            let made = steps.iter().any(|s| matches!(s, InitStep::Mount(m) if m.made));
            (steps.into_iter().find(|s| matches!(s, InitStep::OpenProc(_))), made)
        };
        assert_eq!(opened(""), (Some(InitStep::OpenProc(Part::Container(crate::plan::ATTR_NOSUID))), true));
        assert_eq!(opened("p"), (Some(InitStep::OpenProc(Part::Processes)), false));
    }

    /// Being moved into a v1 cgroup makes the kernel wait for every fork and exit of the machine; entering it does not.
    #[test]
    fn v1_cgroups_are_entered_by_the_child_where_it_may() {
        let dir = |controller: &str| rrun_cgroup::Dir {
            version: rrun_cgroup::Version::V1,
            controllers: vec![controller.into()],
            mount_point: "/c".into(),
            path: Path::new("/c").join(controller),
        };
        let location = rrun_cgroup::Location { dirs: vec![dir("freezer"), dir("cpu")], unit: None };
        let first = |ours: bool| {
            let config = serde_json::json!({
                "ociVersion": "1.2.0", "root": {"path": "rootfs"}, "process": {"args": ["sh"], "cwd": "/"},
                "linux": {"namespaces": [{"type": "mount"}]},
            });
            let spec = crate::spec::parse_spec(config.to_string().as_bytes()).unwrap();
            let host = HostFacts { cgroups: crate::plan::CgroupView { location: location.clone(), ours }, ..HostFacts::default() };
            let options = CreateOptions { id: "x".into(), bundle: "/b".into(), ..CreateOptions::default() };
            let plan = plan(&spec, &host, &options).unwrap();
            (plan.steps[0].clone(), plan.spawn.child_waits)
        };
        assert_eq!(first(true), (InitStep::EnterCgroups(vec!["/c/cpu/tasks".into(), "/c/freezer/tasks".into()]), false));
        assert_eq!(first(false), (InitStep::AwaitParent, true));
    }

    #[test]
    fn a_user_namespace_waits_to_be_mapped_and_binds_devices() {
        let names = names(|c| {
            let map = serde_json::json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
            c["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({"type": "user"}));
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
        });
        assert_eq!(names[..6], ["AwaitParent", "ResetAffinity", "OpenProc", "OomScoreAdj", "Hide", "BecomeMappedRoot"]);
    }

    #[test]
    fn a_sysctl_name_is_a_path_in_both_spellings() {
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.x"), "net/ipv4/conf/eth0.1/x");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/x"), "net/ipv4/conf/eth0.1/x");
    }
}
