//! The child as a list. Order is meaning here: which step runs with which rights and in which root is read off these functions.

use std::path::{Path, PathBuf};

use super::mount::{MountStep, What, plan_cgroup_mount, plan_mount, propagation};
use super::process::{Identity, ProcessPlan, plan_process};
use super::{CreateOptions, HostFacts, Join, Spawn, direct_joins, rootfs_path};
use crate::Result;
use crate::spec::{Device, Hook, Process, Spec};

/// One thing that a new process does to itself on its way to the container's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitStep {
    /// Until the parent has written the id mappings and moved this process into its cgroups.
    AwaitParent,
    /// Opens the host's procfs, while it is reachable and before any mount of the container exists.
    OpenHostProc,
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
    Hostname(String),
    Domainname(String),
    OomScoreAdj(i32),
    /// (path below /proc/sys, value)
    Sysctl(String, String),
    /// Propagation of the whole tree as inherited, `MS_*`; None leaves it shared with the host.
    TreePropagation(Option<u64>),
    /// The rootfs becomes a mount of its own and this process's idea of the container's root.
    BindRootfs(PathBuf),
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
    /// Without pivot_root(2), for a root on ramfs.
    MoveRoot,
    RootPropagation(u64),
    ReadonlyPaths(Vec<PathBuf>),
    MaskPaths(Vec<PathBuf>),
    ReadonlyRoot,
    LsmLabel {
        apparmor: Option<String>,
        selinux: Option<String>,
    },
    Rlimits(Vec<(u32, u64, u64)>),
    Personality(u64),
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
            InitStep::BindRootfs(path) => format!("binding the root file system {}", path.display()),
            InitStep::Sysctl(key, _) => format!("setting sysctl {key}"),
            _ => debug.split(['(', ' ', '{']).next().unwrap_or_default().to_string(),
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
    let process = plan_process(spec.process.as_ref().unwrap_or(&default), available, warnings);
    let mut steps = entry_steps(spec, options, spawn, process.oom_score_adj);
    steps.extend(spec.linux.sysctl.iter().map(|(key, value)| InitStep::Sysctl(sysctl_path(key), value.clone())));
    steps.extend(rootfs_steps(spec, host, options, &process)?);
    let finished = finish_rootfs_steps(spec, options);
    steps.extend(finished);
    if let Some(p) = &spec.linux.personality {
        steps.push(InitStep::Personality(if p.domain == "LINUX32" { 0x8 } else { 0 }));
    }
    steps.extend(process_steps(
        &process,
        spec.linux.seccomp.is_some(),
        spec.linux.has("user"),
        Some(&spec.hooks.start_container),
        options.preserve_fds,
    ));
    Ok(steps)
}

/// The steps of another process in a running container. `namespaces`: `CLONE_NEW*` to join, without pid.
pub fn exec_steps(process: &ProcessPlan, namespaces: i32, seccomp: bool, preserve_fds: u32, child_waits: bool) -> Vec<InitStep> {
    let mut steps = Vec::new();
    if child_waits {
        steps.push(InitStep::AwaitParent);
    }
    steps.push(InitStep::OpenHostProc);
    steps.extend(process.oom_score_adj.map(InitStep::OomScoreAdj));
    steps.push(InitStep::Hide);
    steps.push(InitStep::JoinContainer { namespaces });
    let user = namespaces & libc::CLONE_NEWUSER != 0;
    if user {
        steps.push(InitStep::BecomeMappedRoot);
    }
    steps.push(InitStep::NewSession);
    if process.terminal {
        steps.push(InitStep::Console { size: process.console_size, bind_console: false, owner: process.identity.uid });
    }
    steps.extend(process_steps(process, seccomp, user, None, preserve_fds));
    steps
}

fn entry_steps(spec: &Spec, options: &CreateOptions, spawn: &Spawn, oom_score_adj: Option<i32>) -> Vec<InitStep> {
    let linux = &spec.linux;
    let mut steps = Vec::new();
    if spawn.child_waits {
        steps.push(InitStep::AwaitParent);
    }
    steps.push(InitStep::OpenHostProc);
    // Both while /proc/self still belongs to this process's user: it does no more once it is hidden or has become another.
    steps.extend(oom_score_adj.map(InitStep::OomScoreAdj));
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
        steps.push(InitStep::NewKeyring(format!("_ses.{}", options.id)));
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

fn rootfs_steps(spec: &Spec, host: &HostFacts, options: &CreateOptions, process: &ProcessPlan) -> Result<Vec<InitStep>> {
    let linux = &spec.linux;
    let shared = propagation(&linux.rootfs_propagation).is_some_and(|p| p & libc::MS_SHARED != 0);
    let mut steps = vec![
        InitStep::TreePropagation((!shared).then_some(libc::MS_SLAVE | libc::MS_REC)),
        InitStep::BindRootfs(rootfs_path(spec, &options.bundle)),
    ];
    let mut dev_is_ours = true;
    for mount in &spec.mounts {
        if mount.kind == "cgroup" || mount.kind == "cgroup2" {
            steps.extend(plan_cgroup_mount(mount, &host.cgroups, linux.has("cgroup")).into_iter().map(InitStep::Mount));
            continue;
        }
        let step = plan_mount(mount, &options.bundle)?;
        // A /dev that was given is the giver's: nothing is made in it.
        if is_dev(&step.destination) {
            dev_is_ours = !matches!(step.what, What::Bind { .. });
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
    Ok(steps)
}

fn is_dev(path: &Path) -> bool {
    path.components().eq(Path::new("/dev").components())
}

fn finish_rootfs_steps(spec: &Spec, options: &CreateOptions) -> Vec<InitStep> {
    let linux = &spec.linux;
    let mut steps = vec![if options.no_pivot { InitStep::MoveRoot } else { InitStep::PivotRoot }];
    if !linux.readonly_paths.is_empty() {
        steps.push(InitStep::ReadonlyPaths(linux.readonly_paths.clone()));
    }
    if !linux.masked_paths.is_empty() {
        steps.push(InitStep::MaskPaths(linux.masked_paths.clone()));
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

/// The last steps, the same for init and exec. Without no_new_privs the filter needs CAP_SYS_ADMIN, so it is loaded while the
/// process still has it; with it, as late as can be, so that the profile need not allow what comes before.
fn process_steps(
    process: &ProcessPlan,
    seccomp: bool,
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
    } else if seccomp {
        steps.push(InitStep::Seccomp);
    }
    steps.push(InitStep::BecomeUser(process.identity.clone()));
    if let Some(hooks) = start_hooks {
        steps.push(InitStep::AwaitStart);
        if !hooks.is_empty() {
            steps.push(InitStep::StartContainerHooks(hooks.clone()));
        }
    }
    if seccomp && process.no_new_privileges {
        steps.push(InitStep::Seccomp);
    }
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
    let listed = listed.iter().map(|d| DeviceStep {
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
        let options = CreateOptions { id: "x".into(), bundle: "/b".into(), ..CreateOptions::default() };
        plan(&spec, &HostFacts::default(), &options).unwrap().steps.iter().map(InitStep::name).collect()
    }

    #[test]
    fn the_default_order() {
        insta::assert_snapshot!(names(|_| {}).join("\n"), @r"
        OpenHostProc
        OomScoreAdj
        Hide
        NewSession
        NewKeyring
        NewCgroupNamespace
        Hostname
        TreePropagation
        binding the root file system /b/rootfs
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
    fn without_no_new_privs_the_filter_is_loaded_while_cap_sys_admin_is_there() {
        let names = names(|c| c["process"]["noNewPrivileges"] = false.into());
        let at = |name: &str| names.iter().position(|n| n == name).unwrap();
        assert!(at("Seccomp") < at("BecomeUser"));
        assert!(!names.contains(&"NoNewPrivileges".to_string()));
    }

    #[test]
    fn a_user_namespace_waits_to_be_mapped_and_binds_devices() {
        let names = names(|c| {
            let map = serde_json::json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
            c["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({"type": "user"}));
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
        });
        assert_eq!(names[..5], ["AwaitParent", "OpenHostProc", "OomScoreAdj", "Hide", "BecomeMappedRoot"]);
    }

    #[test]
    fn a_sysctl_name_is_a_path_in_both_spellings() {
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.x"), "net/ipv4/conf/eth0.1/x");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/x"), "net/ipv4/conf/eth0.1/x");
    }
}
