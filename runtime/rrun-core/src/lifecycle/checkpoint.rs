//! Checkpoint: a container's processes as files, by criu. What restore would refuse is refused before anything is stopped.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rrun_cgroup::{Cgroup, FreezerState};
use rrun_sys::fs::{self, AtFlags, FileType, OFlags};
use rrun_sys::process;

use super::cgroup_of;
use crate::criu::judge::{self, Expected};
use crate::criu::log::Log;
use crate::criu::mounts::{self, Mounts};
use crate::criu::rpc::{self, Features, Kind, Options};
use crate::criu::session::{self, Notification, Start, Stdio};
use crate::criu::{CgroupMode, Criu};
use crate::init::is_null_device;
use crate::plan::{CgroupView, CreateOptions, HostFacts, plan};
use crate::spec::{Spec, parse_spec};
use crate::state::{Entry, State, Status};
use crate::{Context, Error, Result, log};

/// The first version that this was made for: namespaces from outside, the freezer of cgroup v2, the word of a lazy page server.
pub(super) const OLDEST_CRIU: u32 = 31_500;
/// Beside criu's images: what the first process had as 0, 1 and 2.
pub(super) const DESCRIPTORS: &str = "descriptors.json";
/// Keys of namespaces that are not the container's own.
pub(super) const SHARED_NAMESPACES: [(&str, &str, &str); 2] = [("network", "net", "extRootNetNS"), ("pid", "pid", "extRootPidNS")];

/// What checkpoint and restore have in common.
#[derive(Debug, Default)]
pub struct CriuOptions {
    pub images: PathBuf,
    /// Where criu works and writes its log.
    pub work: Option<PathBuf>,
    pub tcp_established: bool,
    pub external_sockets: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
}

/// What the command line says.
#[derive(Debug)]
pub struct CheckpointRequest {
    pub criu: Criu,
    pub common: CriuOptions,
    pub parent: Option<PathBuf>,
    pub leave_running: bool,
    pub tcp_skip_in_flight: bool,
    pub link_remap: bool,
    pub page_server: Option<(String, u16)>,
    /// Told of by a zero byte when pages can be had.
    pub status: Option<OwnedFd>,
    pub pre_dump: bool,
    pub cgroups: CgroupMode,
}

/// Dumps a container. It still runs if this fails, after a pre-dump, and where the request says so.
pub fn checkpoint(entry: &Entry, mut request: CheckpointRequest) -> Result<()> {
    let state = entry.load()?;
    let status = entry.status(&state)?;
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(Error::state(format!("container cannot be checkpointed in {} state", status.name())));
    }
    let spec = parse_spec(&entry.load_config()?)?;
    let wanted = wanted(&spec, &state)?;
    request.criu.version(OLDEST_CRIU)?;
    let track_memory = request.pre_dump || request.parent.is_some();
    request.criu.need(Features { track_memory, lazy_pages: request.common.lazy_pages })?;
    if !request.pre_dump {
        restorable(&spec, &state, &wanted)?;
    }
    let images = images_directory(&request.common.images)?;
    let parent = request.parent.as_deref().map(|parent| parent_images(&images, parent)).transpose()?;
    let log = work_log(&request.common, &images, "dump.log")?;
    let pid = state.init.pid;
    let kind = if request.pre_dump { Kind::PreDump } else { Kind::Dump };
    let mut options = Options {
        pid: Some(pid),
        leave_running: request.leave_running,
        parent_images: parent,
        track_memory,
        link_remap: request.link_remap,
        tcp_skip_in_flight: request.tcp_skip_in_flight,
        page_server: request.page_server.clone(),
        cgroups: request.cgroups,
        freeze_cgroup: freezer(&state),
        root: state.rootfs.display().to_string(),
        external: shared_namespaces(&spec, pid)?,
        ..common(&request.common, images.as_raw_fd(), &log)
    };
    if !request.pre_dump {
        let root = fs::openat(fs::CWD, Path::new(&format!("/proc/{pid}/root")), OFlags::PATH | OFlags::DIRECTORY, 0)?;
        let key = |place: PathBuf| (place.display().to_string(), place.display().to_string());
        options.external_mounts = wanted.external(&root).into_iter().map(|(place, _)| key(place)).collect();
        let descriptors = descriptors(pid)?;
        options.external.extend(descriptors.iter().filter(|d| d.starts_with("file[")).cloned());
        write_descriptors(&images, &descriptors)?;
    }
    // The very process, not another of its number: it is locked against deletion, not against its own end.
    state.init.open()?.ok_or_else(|| Error::state("container cannot be checkpointed in stopped state"))?;
    let frozen = status == Status::Paused;
    dump(&request.criu, kind, &options, &log, request.status.take()).map_err(|e| let_go(&state, frozen, e))
}

fn dump(criu: &Criu, kind: Kind, options: &Options, log: &Log, mut status: Option<OwnedFd>) -> Result<()> {
    let mut session = criu.start(&Start { stdio: Stdio::Null, extra: &[], cgroup: None, umask: None }, || Ok(()))?;
    session.go()?;
    session.ask(kind, &rpc::request(kind, Some(options)), Some(log), |Notification { moment, .. }| {
        log::debug(|| format!("criu: {moment}"));
        if moment == "status-ready"
            && let Some(status) = status.take()
        {
            fs::write_all_at_once(&status, &[0]).doing(|| "--status-fd".to_string())?;
        }
        // The network is locked by criu itself, where there are connections to keep.
        Ok(())
    })?;
    let ended = session.finish()?;
    // After a pre-dump criu waits for another request in vain, and says so by its exit code.
    if kind != Kind::PreDump && ended.code() != 0 {
        return Err(Error::state(format!("criu: it ended with code {} after its success: {}", ended.code(), log.advice())));
    }
    Ok(())
}

/// The plan of a container that is there, as its mounts.
fn wanted(spec: &Spec, state: &State) -> Result<Mounts> {
    let host = HostFacts {
        capabilities: process::permitted_capabilities()?,
        cgroups: CgroupView { location: state.cgroup.clone().unwrap_or_default(), ours: true },
        selinux: true,
        apparmor: true,
        ..HostFacts::default()
    };
    let options = CreateOptions { id: state.id.clone(), bundle: state.bundle.clone(), ..CreateOptions::default() };
    judge::refuse(spec, &plan(spec, &host, &options)?)
}

/// What a container has made of itself, and config.json would not bring back.
fn restorable(spec: &Spec, state: &State, wanted: &Mounts) -> Result<()> {
    let cgroup = state.cgroup.as_ref().map(Cgroup::open).transpose()?;
    let location = state.cgroup.clone().unwrap_or_default();
    let expected = Expected {
        spec,
        mounts: wanted,
        rootfs: &state.rootfs,
        cgroup: &location,
        available: process::permitted_capabilities()?,
        other_lsm_profile: false,
        given: judge::stdio(&state.init.pid.to_string()),
        criu: None,
    };
    expected.judge(state.init.pid, cgroup.as_ref()).doing(|| "the container could not be restored from a checkpoint".to_string())
}

pub(super) fn common(request: &CriuOptions, images: i32, log: &Log) -> Options {
    Options {
        external_sockets: request.external_sockets,
        tcp_established: request.tcp_established,
        shell_job: request.shell_job,
        file_locks: request.file_locks,
        auto_dedup: request.auto_dedup,
        lazy_pages: request.lazy_pages,
        // Devices and addresses of a network are made by whoever made them before: hooks, or the network namespace's owner.
        empty_namespaces: libc::CLONE_NEWNET.cast_unsigned(),
        ..session::options(images, log)
    }
}

fn images_directory(path: &Path) -> Result<OwnedFd> {
    make_directory(path)?;
    Ok(fs::openat(fs::CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, 0)?)
}

fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Error::io("make directory", path, &e))
}

/// The directory that the log goes to: the images' own, where no other is given.
fn work_log(request: &CriuOptions, images: &OwnedFd, name: &'static str) -> Result<Log> {
    match &request.work {
        Some(work) => work_directory(work, name, true),
        None => {
            let dir = images.try_clone().map_err(|e| Error::io("dup", &request.images, &e))?;
            Log::new(dir, &request.images, name, true)
        }
    }
}

pub(super) fn work_directory(work: &Path, name: &'static str, kept: bool) -> Result<Log> {
    make_directory(work)?;
    let dir = fs::openat(fs::CWD, work, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
    Log::new(dir, work, name, kept)
}

/// criu keeps it as a link in the directory of images, and so it is relative to that.
fn parent_images(images: &OwnedFd, parent: &Path) -> Result<String> {
    if parent.is_absolute() {
        return Err(Error::invalid("--parent-path must be relative to --image-path"));
    }
    fs::openat(images, parent, OFlags::PATH | OFlags::DIRECTORY, 0).doing(|| "invalid --parent-path".to_string())?;
    Ok(parent.display().to_string())
}

/// The freezer's directory: criu stops all processes by it at once.
fn freezer(state: &State) -> Option<String> {
    state.cgroup.as_ref()?.dir_of("freezer").map(|dir| dir.path.display().to_string())
}

/// Namespaces that others have made stay theirs: criu leaves their inside alone.
fn shared_namespaces(spec: &Spec, pid: i32) -> Result<Vec<String>> {
    let joined = SHARED_NAMESPACES.iter().filter(|(name, _, _)| spec.linux.has(name) && !spec.linux.makes(name));
    joined.map(|(_, file, key)| Ok(format!("{file}[{}]:{key}", judge::inode(&format!("/proc/{pid}/ns/{file}"))?))).collect()
}

/// What 0, 1 and 2 are, in criu's words: pipes, and files that the container does not see. Both are given anew at restore.
fn descriptors(pid: i32) -> Result<Vec<String>> {
    let seen: Vec<u64> = mounts::table(&pid.to_string())?.iter().map(|entry| entry.id).collect();
    let describe = |n: i32| {
        let link = format!("/proc/{pid}/fd/{n}");
        let Ok(name) = std::fs::read_link(&link) else { return Ok(String::new()) };
        let file = fs::openat(fs::CWD, Path::new(&link), OFlags::PATH, 0)?;
        let stat = fs::fstat(&file)?;
        let mount = fs::mount_ids(&file)?.mount_id;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile || is_null_device(&stat);
        Ok(match is_file && !seen.contains(&mount) {
            true => format!("file[{mount:x}:{:x}]", stat.st_ino),
            false => name.display().to_string(),
        })
    };
    (0..3).map(describe).collect()
}

fn write_descriptors(images: &OwnedFd, descriptors: &[String]) -> Result<()> {
    let told = || format!("write {DESCRIPTORS}");
    match fs::unlinkat(images, Path::new(DESCRIPTORS), AtFlags::empty()) {
        Err(e) if e.is(libc::ENOENT) => {}
        done => done.doing(told)?,
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = fs::openat(images.as_fd(), Path::new(DESCRIPTORS), flags, 0o600).doing(told)?;
    fs::write_all_at_once(&file, serde_json::json!(descriptors).to_string().as_bytes()).doing(told)
}

/// Whatever stopped criu, a container that ran goes on.
fn let_go(state: &State, was_paused: bool, cause: Error) -> Error {
    let thaw = || {
        if was_paused || state.cgroup.is_none() || !state.init.is_alive()? {
            return Ok(());
        }
        let cgroup = cgroup_of(state)?;
        if cgroup.freezer_state()? == FreezerState::Thawed { Ok(()) } else { Ok::<(), Error>(cgroup.thaw()?) }
    };
    match thaw() {
        Ok(()) => cause,
        Err(e) => Error::Unclean { cause: Box::new(cause), cleanup: vec![e.to_string()] },
    }
}
