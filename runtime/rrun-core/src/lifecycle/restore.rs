//! Restore: a container as config.json has it, its processes from criu's images.
//!
//! ```text
//! judge config.json → cgroup → criu, in it and in a mount namespace of its own → namespaces are there: judged, hooks
//!   → mounts are there: judged → all is restored and stands still: judged, state.json → it runs
//! ```
//! criu mounts and looks up everything in a mount namespace that ends with it: a restore that fails leaves no mount.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rrun_cgroup::Cgroup;
use rrun_sys::fs::{self, FileType, OFlags};
use rrun_sys::mount::{self, UnmountFlags};
use rrun_sys::{process, socket};

use super::cgroup::Place;
use super::checkpoint::{CriuOptions, DESCRIPTORS, OLDEST_CRIU, SHARED_NAMESPACES, common, work_directory};
use super::create::{self, CgroupManagement, CreateRequest, Decided};
use super::write_pid_file;
use crate::criu::Criu;
use crate::criu::judge::{self, Expected};
use crate::criu::log::Log;
use crate::criu::mounts::Mounts;
use crate::criu::rpc::{self, Features, Kind, Options};
use crate::criu::session::{FIRST_EXTRA, Notification, Session, Start, Stdio};
use crate::hooks::{self, HookState};
use crate::init::{self, ensure, propagation_flags};
use crate::parent::Undo;
use crate::plan::{CreateOptions, InitStep, MountStep, Plan, What, keyring_name, namespace_flag, plan};
use crate::procfs::{Part, ProcFs};
use crate::rdt::Group;
use crate::spec::Spec;
use crate::state::{Entry, ProcessId, State, Store};
use crate::{Context, Error, Result, log};

/// Since this version an LSM profile can be another one than before.
const CRIU_WITH_PROFILES: u32 = 31_600;

/// What the command line says.
#[derive(Debug)]
pub struct RestoreRequest {
    pub criu: Criu,
    pub create: CreateRequest,
    pub common: CriuOptions,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

/// A container that runs again.
#[derive(Debug)]
pub struct Restored {
    pub entry: Entry,
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub terminal_master: Option<OwnedFd>,
}

/// Restores a container. Its first process is a child of this one.
pub fn restore(store: &Store, request: &RestoreRequest) -> Result<Restored> {
    let (text, spec) = create::read_config(&request.create)?;
    create::check_terminal(&spec, &request.create)?;
    let (place, host) = create::host_facts(&spec, &request.create)?;
    let options = CreateOptions { ..request.create.options.clone() };
    let plan = plan(&spec, &host, &options)?;
    let mounts = judge::refuse(&spec, &plan)?;
    if request.create.cgroups == CgroupManagement::None && !spec.linux.makes("pid") {
        return Err(Error::invalid("restore: without a cgroup and without a pid namespace nothing could be taken back: have one of them"));
    }
    let later = [crate::plan::rootfs_path(&spec, &options.bundle), store.root().join(&options.id)];
    super::known::judge(&spec, &plan, &host, &later.each_ref().map(PathBuf::as_path))?;
    let rdt = plan.rdt.as_ref().map(|wanted| Group::find(wanted, &options.id)).transpose()?;
    let images = Images::open(&request.common.images)?;
    let profiled = request.lsm_profile.is_some() || request.lsm_mount_context.is_some();
    request.criu.version(if profiled { CRIU_WITH_PROFILES } else { OLDEST_CRIU })?;
    request.criu.need(Features { lazy_pages: request.common.lazy_pages, ..Features::default() })?;
    let umask = process::set_umask(0);
    let entry = store.reserve(&options.id)?;
    let mut undo = Undo::default();
    undo.push(|| entry.remove());
    let decided = Decided { text: &text, spec: &spec, plan: &plan, rdt, filter: (None, None), umask };
    let rootfs = crate::plan::rootfs_path(&spec, &options.bundle);
    let work = Work { entry: &entry, request, decided, mounts, images, rootfs, available: host.capabilities };
    let made = work.make(place, &mut undo);
    drop(work);
    match made {
        Ok((pid, pidfd, terminal_master)) => {
            drop(undo);
            Ok(Restored { entry, pid, pidfd, terminal_master })
        }
        Err(e) => {
            let e = undo.roll_back(e);
            drop(undo);
            Err(e)
        }
    }
}

/// The directory of a checkpoint.
struct Images {
    dir: OwnedFd,
    /// What 0, 1 and 2 were.
    descriptors: Vec<String>,
}

impl Images {
    fn open(path: &Path) -> Result<Images> {
        let dir = fs::openat(fs::CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, 0).doing(|| "--image-path".to_string())?;
        let told = || format!("{}: {DESCRIPTORS}: is this a checkpoint?", path.display());
        let file = fs::openat(&dir, Path::new(DESCRIPTORS), OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0).doing(told)?;
        let text = fs::read_to_end(&file, 64 << 10).doing(told)?;
        let descriptors: Vec<String> =
            serde_json::from_slice(&text).map_err(|e| Error::invalid(format!("{}: {}", told(), crate::one_line(&e))))?;
        Ok(Images { dir, descriptors })
    }

    /// What becomes this process's 0, 1 and 2 again: (key, number). Two that were the same are given once.
    fn inherited(&self) -> Result<Vec<(String, i32)>> {
        let mut all: Vec<(String, i32)> = Vec::new();
        for (number, key) in (0..3).zip(&self.descriptors) {
            let was_file = key.starts_with("file[");
            if !was_file && !key.starts_with("pipe:[") || all.iter().any(|(known, _)| known == key) {
                continue;
            }
            // criu opens it again and goes to its place in it.
            if was_file && judge::is_stream(number) {
                return Err(Error::invalid(format!(
                    "the container's {number} was a file, and this one is none: redirect it to a file, or /dev/null"
                )));
            }
            all.push((key.clone(), number));
        }
        Ok(all)
    }
}

struct Work<'a> {
    entry: &'a Entry,
    request: &'a RestoreRequest,
    decided: Decided<'a>,
    mounts: Mounts,
    images: Images,
    rootfs: PathBuf,
    available: u64,
}

/// What comes about during a restore.
#[derive(Default)]
struct Progress {
    master: Option<OwnedFd>,
    first: Option<i32>,
    /// All is judged, and written down.
    restored: Option<ProcessId>,
}

type Made = (i32, OwnedFd, Option<OwnedFd>);

impl Work<'_> {
    fn spec(&self) -> &Spec {
        self.decided.spec
    }

    fn state(&self, init: ProcessId, cgroup: Option<&rrun_cgroup::Location>) -> State {
        create::new_state(&self.decided, &self.request.create, init, cgroup, None)
    }

    fn make<'e>(&self, place: Place, undo: &mut Undo<'e>) -> Result<Made>
    where
        Self: 'e,
    {
        let nobody = ProcessId { pid: 0, start_time: 0, boot_id: String::new() };
        self.entry.save_intent(&self.state(nobody, place.location.as_ref()))?;
        let request = &self.request.create;
        let view = place.view.clone();
        let cgroup = place.make(self.spec(), request, undo)?;
        log::failpoint("cgroup")?;
        let log = self.log()?;
        let (extra, options) = self.options(&log)?;
        let start = Start {
            stdio: if self.is_terminal() { Stdio::Null } else { Stdio::Ours },
            extra: &extra,
            cgroup: cgroup.as_ref().and_then(Cgroup::unified_fd),
            umask: Some(self.decided.umask),
        };
        let cloned_into = start.cgroup.is_some();
        let mut session = self.request.criu.start(&start, || self.prepare())?;
        if let Some(cgroup) = &cgroup {
            cgroup.attach(session.pid(), cloned_into).doing(|| "move criu into the container's cgroup".to_string())?;
        }
        let cgroup = if cgroup.is_some() { cgroup } else { place.make_around(session.pid(), self.spec(), request, undo)? };
        session.go()?;
        log::failpoint("criu")?;
        let expected = self.expected(&view, session.pid());
        let made = self.converse(&mut session, &rpc::request(Kind::Restore, Some(&options)), &log, (&expected, cgroup.as_ref()), undo);
        let made = made.and_then(|progress| self.finish(session, progress));
        made.inspect_err(|_| create::run_poststop(&self.state(ProcessId { pid: 0, start_time: 0, boot_id: String::new() }, None)))
    }

    fn is_terminal(&self) -> bool {
        self.spec().process.as_ref().is_some_and(|p| p.terminal)
    }

    /// Where nobody has asked for it, criu's log is not written where the images lie: they may be somebody else's.
    fn log(&self) -> Result<Log> {
        match &self.request.common.work {
            Some(work) => work_directory(work, "restore.log", true),
            None => work_directory(&self.entry.make_work()?, "restore.log", false),
        }
    }

    fn expected<'x>(&'x self, cgroup: &'x rrun_cgroup::Location, criu: i32) -> Expected<'x> {
        Expected {
            spec: self.decided.spec,
            mounts: &self.mounts,
            rootfs: &self.rootfs,
            cgroup,
            available: self.available,
            other_lsm_profile: self.request.lsm_profile.is_some(),
            given: judge::stdio("self"),
            criu: Some(criu),
        }
    }

    /// Descriptors for criu, and the request.
    fn options(&self, log: &Log) -> Result<(Vec<OwnedFd>, Options)> {
        let spec = self.spec();
        let rootfs = self.rootfs.as_path();
        let root = fs::openat(fs::CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY, 0)?;
        let shown = |path: PathBuf| path.display().to_string();
        let mut options = Options {
            evasive_devices: true,
            restore_as_sibling: true,
            root: rootfs.display().to_string(),
            external_mounts: self.mounts.external(&root).into_iter().map(|(place, source)| (shown(place), shown(source))).collect(),
            inherited: if self.is_terminal() { Vec::new() } else { self.images.inherited()? },
            lsm_profile: self.request.lsm_profile.clone(),
            lsm_mount_context: self.request.lsm_mount_context.clone(),
            ..common(&self.request.common, self.images.dir.as_raw_fd(), log)
        };
        let mut extra = Vec::new();
        for namespace in spec.linux.namespaces.iter().filter(|namespace| !namespace.path.as_os_str().is_empty()) {
            match SHARED_NAMESPACES.iter().find(|(name, _, _)| *name == namespace.kind) {
                Some((_, _, key)) => {
                    options.inherited.push(((*key).to_string(), FIRST_EXTRA + extra.len() as i32));
                    extra.push(fs::openat(fs::CWD, &namespace.path, OFlags::RDONLY, 0)?);
                }
                None => options.joined_namespaces.push((namespace.kind.clone(), namespace.path.display().to_string())),
            }
        }
        Ok((extra, options))
    }

    /// In criu's own process: where it will look things up, and what the container's processes begin with.
    fn prepare(&self) -> Result<()> {
        let linux = &self.spec().linux;
        // Where the memory of a container's own namespace begins is decided here, by the cgroup that this process is in.
        let cgroup = if linux.makes("cgroup") { libc::CLONE_NEWCGROUP } else { 0 };
        process::unshare(libc::CLONE_NEWNS | cgroup).doing(|| "make namespaces for criu".to_string())?;
        mount::change(Path::new("/"), propagation_flags(libc::MS_SLAVE | libc::MS_REC))?;
        init::reset_affinity()?;
        if !self.request.create.options.no_new_keyring {
            init::new_keyring(&keyring_name(&self.request.create.options.id))?;
        }
        let rootfs = self.rootfs.as_path();
        let root = bind_on_itself(rootfs)?;
        make_places(&root, self.decided.plan)?;
        drop(root);
        if self.spec().process.as_ref().is_some_and(|p| p.no_new_privileges) {
            // criu before 3.19 forgets it: what it makes has it from here.
            process::set_no_new_privs()?;
        }
        // With what was bound to find the places of others; criu gets a root that is only that.
        mount::unmount(rootfs, UnmountFlags::DETACH)?;
        bind_on_itself(rootfs).map(drop)
    }

    fn converse(
        &self,
        session: &mut Session,
        request: &[u8],
        log: &Log,
        (expected, cgroup): (&Expected<'_>, Option<&Cgroup>),
        undo: &mut Undo<'_>,
    ) -> Result<Progress> {
        let mut progress = Progress::default();
        let refused = || "what the checkpoint holds is not what config.json asks for".to_string();
        let answer = session.ask(Kind::Restore, request, Some(log), |Notification { moment, pid, sent }| {
            log::debug(|| format!("criu: {moment}"));
            let first = || pid.ok_or_else(|| Error::state(format!("criu: it told of {moment} without a process")));
            match moment {
                "setup-namespaces" => self.set_up(first()?, expected, undo),
                "orphan-pts-master" => {
                    progress.master = sent.map(|master| self.take_terminal(master)).transpose()?.flatten().or(progress.master.take());
                    Ok(())
                }
                // criu takes back what it has done if this is refused; rights and descriptors are still its own here.
                "post-restore" => {
                    progress.first = Some(first()?);
                    if self.mounts.read_only_root {
                        read_only_root(first()?)?;
                    }
                    expected.place(first()?).doing(refused)
                }
                "pre-resume" => {
                    let pid = progress.first.ok_or_else(|| Error::state("criu: it told of no process"))?;
                    // Past this criu goes on, whatever it is told.
                    let judged = expected.judge(pid, cgroup).doing(refused).and_then(|()| self.save(pid, cgroup));
                    progress.restored = Some(judged.map_err(|e| end_all(pid, cgroup, e))?);
                    Ok(())
                }
                // The network is locked and unlocked by criu itself, where there are connections to keep.
                _ => Ok(()),
            }
        })?;
        match (&progress.restored, answer.restored) {
            (Some(init), Some(pid)) if init.pid == pid => Ok(progress),
            _ => Err(Error::state("criu: it says that all is restored, and did not let it be judged")),
        }
    }

    /// The namespaces are there, nothing is in them yet.
    fn set_up(&self, pid: i32, expected: &Expected<'_>, undo: &mut Undo<'_>) -> Result<()> {
        expected.namespaces(pid, false)?;
        if self.spec().linux.makes("network") {
            loopback_up(pid)?;
            // Into a namespace that others keep they were moved when the container was made.
            create::give_devices(&self.decided, pid, undo)?;
        }
        create::join_rdt(&self.decided, pid, undo)?;
        let hooks = &self.spec().hooks;
        let bundle = &self.request.create.options.bundle;
        let told = HookState {
            oci_version: crate::spec::VERSION.to_string(),
            id: self.request.create.options.id.clone(),
            bundle: bundle.clone(),
            annotations: self.spec().annotations.clone(),
        }
        .with("creating", pid);
        hooks::run_all("prestart", &hooks.prestart, &told, Some(bundle))?;
        hooks::run_all("createRuntime", &hooks.create_runtime, &told, Some(bundle))
    }

    /// The master of the container's terminal: to whom the request says, or back (in the foreground).
    fn take_terminal(&self, master: OwnedFd) -> Result<Option<OwnedFd>> {
        if !self.is_terminal() {
            return Ok(None);
        }
        let stat = fs::fstat(&master)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != rustix::fs::makedev(5, 2) {
            return Err(Error::state("criu: it sent a terminal that is none"));
        }
        if let Some(path) = &self.request.create.console_socket {
            let socket = socket::connect_stream(path).doing(|| "--console-socket".to_string())?;
            socket::send_fd(&socket, b"/dev/pts/ptmx", master.as_fd()).doing(|| "send the terminal to the console socket".to_string())?;
        }
        Ok(Some(master))
    }

    /// The record of a container that runs.
    fn save(&self, pid: i32, cgroup: Option<&Cgroup>) -> Result<ProcessId> {
        let init = ProcessId::of(pid)?;
        let mut state = self.state(init.clone(), cgroup.map(Cgroup::location));
        let clocks = |pid: &str| judge::inode(&format!("/proc/{pid}/ns/time"));
        // criu's own making, where config.json has none; exec goes there, too.
        if clocks(&pid.to_string()).ok() != clocks("self").ok() {
            state.namespaces |= namespace_flag("time");
        }
        self.entry.save(&state, self.decided.text)?;
        log::failpoint("restored")?;
        Ok(init)
    }

    fn finish(&self, session: Session, progress: Progress) -> Result<Made> {
        let Some(init) = progress.restored else { return Err(Error::state("criu: it restored nothing")) };
        let done = || {
            let ended = session.finish()?;
            if ended.code() != 0 {
                return Err(Error::state(format!("criu: it ended with code {} after its success", ended.code())));
            }
            let pidfd = init.open()?.ok_or_else(|| Error::state("the restored container has ended at once"))?;
            if self.is_terminal() && progress.master.is_none() {
                return Err(Error::state("config.json: process.terminal: the checkpoint is of a container without a terminal"));
            }
            self.entry.remove_work()?;
            if let Some(path) = &self.request.create.pid_file {
                write_pid_file(path, init.pid, self.decided.umask)?;
            }
            Ok((init.pid, pidfd, progress.master.filter(|_| self.request.create.console_socket.is_none())))
        };
        // Without a cgroup, by which everything would be ended.
        done().inspect_err(|_| {
            if let Ok(Some(pidfd)) = init.open()
                && let Err(e) = process::pidfd_signal(&pidfd, libc::SIGKILL)
            {
                log::warn(&format!("ending the container: {e}"));
            }
        })
    }
}

/// criu needs a root that it can write to, and leaves it so.
fn read_only_root(pid: i32) -> Result<()> {
    let theirs = ProcFs::open(Part::Processes)?.namespace(pid, "mnt")?;
    let ours = fs::openat(fs::CWD, Path::new("/proc/self/ns/mnt"), OFlags::RDONLY, 0)?;
    let here = fs::openat(fs::CWD, Path::new("."), OFlags::PATH | OFlags::DIRECTORY, 0)?;
    process::join_namespace(&theirs, libc::CLONE_NEWNS).doing(|| "enter the container's mount namespace".to_string())?;
    let root = fs::openat(fs::CWD, Path::new("/"), OFlags::PATH | OFlags::DIRECTORY, 0);
    let done = root.and_then(|root| {
        mount::set_attr(&root, false, &mount::MountAttr { attr_set: crate::plan::ATTR_RDONLY, ..mount::MountAttr::default() })
    });
    process::join_namespace(&ours, libc::CLONE_NEWNS)?;
    process::change_dir(&here)?;
    done.doing(|| "make the container's root read-only".to_string())
}

/// Everything that was restored, criu with it where it is in the same cgroup: none of it has run.
fn end_all(pid: i32, cgroup: Option<&Cgroup>, cause: Error) -> Error {
    let ended = process::kill(pid, libc::SIGKILL).map_err(Error::from);
    let ended = ended.and(cgroup.map_or(Ok(()), |cgroup| Ok(cgroup.signal_all(libc::SIGKILL)?)));
    match ended {
        Ok(()) => cause,
        Err(e) => Error::Unclean { cause: Box::new(cause), cleanup: vec![e.to_string()] },
    }
}

/// The loopback device of a new network namespace, as create sets it up.
fn loopback_up(pid: i32) -> Result<()> {
    let theirs = ProcFs::open(Part::Processes)?.namespace(pid, "net")?;
    let ours = fs::openat(fs::CWD, Path::new("/proc/self/ns/net"), OFlags::RDONLY, 0)?;
    process::join_namespace(&theirs, libc::CLONE_NEWNET).doing(|| "enter the container's network namespace".to_string())?;
    let done = socket::interface_up("lo");
    process::join_namespace(&ours, libc::CLONE_NEWNET)?;
    Ok(done?)
}

/// criu asks for a root that is a mount.
fn bind_on_itself(rootfs: &Path) -> Result<OwnedFd> {
    let tree = mount::clone_tree(fs::CWD, rootfs, true).doing(|| format!("bind the root file system {}", rootfs.display()))?;
    let place = fs::openat(fs::CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    mount::attach(&tree, &place)?;
    Ok(fs::openat(&tree, Path::new("."), OFlags::PATH | OFlags::DIRECTORY, 0)?)
}

/// The places of mounts, which create makes and a new copy of the root may lack. What lies on a file system that is made anew comes
/// with it: the image has a tmpfs's content, the kernel the rest.
fn make_places(root: &OwnedFd, plan: &Plan) -> Result<()> {
    let steps = || plan.steps.iter().filter_map(|step| if let InitStep::Mount(step) = step { Some(step) } else { None });
    let on_new = |step: &MountStep| {
        let mut new = steps().filter(|new| matches!(new.what, What::New { .. }) && new.destination != step.destination);
        new.any(|new| step.destination.starts_with(&new.destination))
    };
    for step in steps().filter(|step| !on_new(step)) {
        let told = || format!("make the mount point {}", step.destination.display());
        match &step.what {
            What::New { .. } => drop(ensure(root, &step.destination, init::Kind::Directory).doing(told)?),
            What::Bind { source, recursive } => {
                let from = fs::openat(fs::CWD, source, OFlags::PATH, 0).doing(|| format!("mount source {}", source.display()))?;
                let directory = FileType::from_raw_mode(fs::fstat(&from)?.st_mode) == FileType::Directory;
                let kind = if directory { init::Kind::Directory } else { init::Kind::File };
                let place = ensure(root, &step.destination, kind).doing(told)?;
                // Others may be mounted on it.
                mount::attach(mount::clone_tree(&from, Path::new(""), *recursive)?, &place).doing(told)?;
            }
            What::Move { .. } | What::Reattribute | What::Remount { .. } => {}
        }
    }
    Ok(())
}
