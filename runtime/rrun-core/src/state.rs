//! What the runtime remembers of a container.
//!
//! ```text
//! ROOT/<id>/            0711; flock(2) on it orders operations on one container
//!   state.json          State, replaced as a whole; absent: the create was cut off
//!   config.json         the configuration as it was at create, for exec
//!   start.sock          where `start` says go; its presence means "created"
//!   notify/notify.sock  where the container's program notifies, if the runtime has somebody to tell
//!   criu/               where criu works during a restore
//! ```

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rrun_sys::fs::{self, AtFlags, OFlags};
use serde::{Deserialize, Serialize};

use crate::host_root::HostRoot;
use crate::spec::Hooks;
use crate::{Context, Error, Result, one_line};

/// Beside the containers' directories: compiled filters.
pub const SECCOMP_CACHE: &str = ".seccomp";

/// The version of the format; a reader refuses a file whose `min_reader` is newer than itself.
const FORMAT: u32 = 2;
/// What readers of the first version may take for the whole record.
const SIMPLE: u32 = 1;

/// One container's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    pub written_by: u32,
    pub min_reader: u32,
    pub id: String,
    pub oci_version: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub init: ProcessId,
    /// None: made without cgroups (rootless, no delegation).
    pub cgroup: Option<rrun_cgroup::Location>,
    /// Its group of resctrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<crate::rdt::Group>,
    /// Without a mount namespace: its mount on the host. A reader that does not know of it would leave it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_root: Option<HostRoot>,
    pub annotations: BTreeMap<String, String>,
    pub hooks: Hooks,
    /// Whether its processes live in a pid namespace with others.
    #[serde(default)]
    pub shares_pid_namespace: bool,
    /// Whether its processes keep their caller's session keyring.
    #[serde(default)]
    pub no_new_keyring: bool,
    /// `CLONE_NEW*` of the namespaces that are not the runtime's.
    pub namespaces: i32,
}

/// A process that is the same only if all three agree: pids are used again, and boots start over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks after boot, field 22 of /proc/<pid>/stat.
    pub start_time: u64,
    pub boot_id: String,
}

/// runc's names of what a container can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl ProcessId {
    /// Describes a live process.
    pub fn of(pid: i32) -> Result<ProcessId> {
        let (_, start_time) = stat(pid)?.ok_or_else(|| Error::state(format!("process {pid} has ended")))?;
        Ok(ProcessId { pid, start_time, boot_id: boot_id()? })
    }

    /// A pidfd of the very process, None if it has ended.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let pidfd = match rrun_sys::process::pidfd_open(self.pid) {
            Err(e) if e.is(libc::ESRCH) || e.is(libc::EINVAL) => return Ok(None),
            done => done?,
        };
        // Opened first, compared after: a pid that was used again in between shows in the comparison.
        Ok(self.is_alive()?.then_some(pidfd))
    }

    /// Whether it runs (a zombie does not).
    pub fn is_alive(&self) -> Result<bool> {
        let same = |(state, start): (u8, u64)| start == self.start_time && state != b'Z' && state != b'X';
        Ok(stat(self.pid)?.is_some_and(same) && boot_id()? == self.boot_id)
    }
}

/// State letter and start time of a process; None: there is none.
fn stat(pid: i32) -> Result<Option<(u8, u64)>> {
    let path = format!("/proc/{pid}/stat");
    let text = match fs::read_file(Path::new(&path), 1 << 16) {
        Err(e) if e.is(libc::ENOENT) || e.is(libc::ESRCH) => return Ok(None),
        done => done?,
    };
    let text = String::from_utf8_lossy(&text);
    // The name in parentheses may hold anything: what counts comes after the last one.
    let rest = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = rest.split_ascii_whitespace();
    let letter = fields.next().and_then(|s| s.bytes().next()).unwrap_or(b'X');
    let start = fields.nth(18).and_then(|s| s.parse().ok()).ok_or_else(|| Error::state(format!("{path}: not understood")))?;
    Ok(Some((letter, start)))
}

pub(crate) fn boot_id() -> Result<String> {
    let id = fs::read_file(Path::new("/proc/sys/kernel/random/boot_id"), 4096)?;
    Ok(String::from_utf8_lossy(&id).trim().to_string())
}

/// The directory of all containers.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// One container's directory, locked while this lives if it was taken with a lock.
#[derive(Debug)]
pub struct Entry {
    pub dir: OwnedFd,
    pub path: PathBuf,
    pub id: String,
}

impl Drop for Entry {
    /// The lock belongs to the open directory, which a container's first process shares until it execs: letting go of the
    /// descriptor alone would leave it locked, and `start` waiting for itself.
    fn drop(&mut self) {
        // Nothing depends on it if this fails: the kernel unlocks with the last descriptor.
        drop(fs::unlock(&self.dir));
    }
}

impl Store {
    pub fn new(root: &Path) -> Store {
        Store { root: root.to_path_buf() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reserves an id: the directory appears, locked.
    pub fn reserve(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        // Others may pass through to a container's own directory, but not list (0711), whatever the umask.
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.root).map_err(|e| Error::io("mkdir", &self.root, &e))?;
        let path = self.root.join(id);
        match fs::mkdirat(fs::CWD, &path, 0o711) {
            Err(e) if e.is(libc::EEXIST) => return Err(Error::state("container with given ID already exists")),
            done => done?,
        }
        self.entry(id, true)
    }

    /// Opens an existing container's directory.
    pub fn entry(&self, id: &str, lock: bool) -> Result<Entry> {
        check_id(id)?;
        let path = self.root.join(id);
        let dir = match fs::openat(fs::CWD, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, 0) {
            Err(e) if e.is(libc::ENOENT) => return Err(Error::NoSuchContainer),
            done => done?,
        };
        if lock {
            fs::lock_exclusive(&dir)?;
            // Somebody may have deleted it while this waited.
            if fs::fstat(&dir)?.st_nlink == 0 {
                return Err(Error::NoSuchContainer);
            }
        }
        Ok(Entry { dir, path, id: id.to_string() })
    }

    /// The ids of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            done => done.map_err(|e| Error::io("read directory", &self.root, &e))?,
        };
        let mut ids: Vec<String> = entries
            .filter_map(|e| e.ok().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))?.file_name().into_string().ok())
            .filter(|id| check_id(id).is_ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

const STATE: &str = "state.json";
const CONFIG: &str = "config.json";
const SOCKET: &str = "start.sock";
const WORK: &str = "criu";

impl Entry {
    pub fn load(&self) -> Result<State> {
        let bytes = self.read(STATE).map_err(|e| match e.errno() {
            Some(libc::ENOENT) => Error::state(format!("container {} was not made completely: remove it with `delete --force`", self.id)),
            _ => e,
        })?;
        let state = State::parse(&bytes).map_err(|e| Error::state(format!("{}: {e}", self.path.join(STATE).display())))?;
        if state.min_reader > FORMAT {
            return Err(Error::state(format!("{}: written by a newer rrun: use that one", self.path.join(STATE).display())));
        }
        Ok(state)
    }

    /// What is to be made, for whoever cleans up after a runtime that is killed meanwhile. It means nothing after a loss of power.
    pub fn save_intent(&self, state: &State) -> Result<()> {
        self.replace(STATE, &to_json(state)?, false)
    }

    /// The record of a container, with its configuration: both survive a loss of power if what they lie on does.
    pub fn save(&self, state: &State, config: &[u8]) -> Result<()> {
        let sync = !fs::is_in_memory(&self.dir)?;
        self.replace(CONFIG, config, sync)?;
        self.replace(STATE, &to_json(state)?, sync)?;
        if !sync {
            return Ok(());
        }
        fs::fsync(&self.dir)?;
        // The directory itself is as new as what is in it.
        Ok(fs::fsync(fs::openat(&self.dir, Path::new(".."), OFlags::RDONLY | OFlags::DIRECTORY, 0)?)?)
    }

    pub fn load_config(&self) -> Result<Vec<u8>> {
        self.read(CONFIG)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = fs::openat(&self.dir, Path::new(name), OFlags::RDONLY, 0).doing(|| self.path.display().to_string())?;
        Ok(fs::read_to_end(&file, 16 << 20)?)
    }

    fn replace(&self, name: &str, bytes: &[u8], sync: bool) -> Result<()> {
        use std::io::Write;
        let new = format!("{name}.new");
        let file = fs::openat(&self.dir, Path::new(&new), OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, 0o600)?;
        let mut file = std::fs::File::from(file);
        file.write_all(bytes).map_err(|e| Error::io("write", &self.path.join(&new), &e))?;
        if sync {
            fs::fsync(&file)?;
        }
        Ok(fs::renameat(&self.dir, Path::new(&new), Path::new(name))?)
    }

    /// The start socket through procfs, since a socket address holds 107 bytes only.
    pub fn socket_path(&self) -> PathBuf {
        use std::os::fd::AsFd;
        fs::proc_fd_path(self.dir.as_fd()).join(SOCKET)
    }

    pub fn is_waiting(&self) -> bool {
        fs::lstatat(&self.dir, Path::new(SOCKET)).is_ok()
    }

    pub fn remove_socket(&self) -> Result<()> {
        match fs::unlinkat(&self.dir, Path::new(SOCKET), AtFlags::empty()) {
            Err(e) if e.is(libc::ENOENT) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Removes the directory with all that the runtime puts into it.
    pub fn remove(&self) -> Result<()> {
        self.remove_files(&[STATE, CONFIG])?;
        let remove_directory = || fs::unlinkat(fs::CWD, &self.path, AtFlags::REMOVEDIR);
        match remove_directory() {
            Err(e) if e.is(libc::ENOTEMPTY) => {}
            done => return Ok(done?),
        }
        // What only some containers have, or a runtime that was killed has left.
        self.remove_work()?;
        let socket = format!("{}/{}", crate::notify::DIRECTORY, crate::notify::SOCKET);
        self.remove_files(&[SOCKET, "state.json.new", "config.json.new", &socket])?;
        match fs::unlinkat(&self.dir, Path::new(crate::notify::DIRECTORY), AtFlags::REMOVEDIR) {
            Err(e) if e.is(libc::ENOENT) => {}
            done => done?,
        }
        Ok(remove_directory()?)
    }

    /// A directory for criu to work in.
    pub fn make_work(&self) -> Result<PathBuf> {
        fs::mkdirat(&self.dir, Path::new(WORK), 0o700)?;
        Ok(self.path.join(WORK))
    }

    pub fn remove_work(&self) -> Result<()> {
        let path = self.path.join(WORK);
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path, &e)),
            _ => Ok(()),
        }
    }

    fn remove_files(&self, names: &[&str]) -> Result<()> {
        names.iter().try_for_each(|name| match fs::unlinkat(&self.dir, Path::new(name), AtFlags::empty()) {
            Err(e) if e.is(libc::ENOENT) => Ok(()),
            done => Ok(done?),
        })
    }

    /// What the container is now.
    pub fn status(&self, state: &State) -> Result<Status> {
        if !state.init.is_alive()? {
            return Ok(Status::Stopped);
        }
        let frozen = match &state.cgroup {
            Some(location) => rrun_cgroup::Cgroup::open(location)?.freezer_state()? != rrun_cgroup::FreezerState::Thawed,
            None => false,
        };
        // A container can be paused before it is started, too.
        Ok(match (frozen, self.is_waiting()) {
            (true, _) => Status::Paused,
            (false, true) => Status::Created,
            (false, false) => Status::Running,
        })
    }
}

fn to_json(state: &State) -> Result<Vec<u8>> {
    serde_json::to_vec(state).map_err(|e| Error::state(format!("state.json: {e}")))
}

impl State {
    pub const FORMAT: u32 = FORMAT;

    /// The oldest version whose reader does right by a record with or without a mount on the host.
    pub fn min_reader(host_root: Option<&HostRoot>) -> u32 {
        if host_root.is_some() { FORMAT } else { SIMPLE }
    }

    /// Reads what [`Entry::save`] has written; the error is one line.
    pub fn parse(bytes: &[u8]) -> std::result::Result<State, String> {
        serde_json::from_slice(bytes).map_err(|e| one_line(&e))
    }
}

/// runc's rule for ids.
pub fn check_id(id: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id == SECCOMP_CACHE {
        return Err(Error::invalid(format!("invalid container ID: {id:?} is the runtime's own directory: choose another name")));
    }
    if id.is_empty() || !id.chars().all(good) || id == "." || id == ".." || id.len() > 1024 {
        return Err(Error::invalid(format!("invalid container ID format: {id:?}: use letters, digits and _ + - .")));
    }
    Ok(())
}

/// Now, as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339_now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(now.as_secs(), now.subsec_nanos())
}

/// Seconds since 1970 as a date, after Howard Hinnant's "days_from_civil" paper.
fn rfc3339(seconds: u64, nanos: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_across_leap_days() {
        assert_eq!(rfc3339(951_782_400, 5), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(rfc3339(1_795_219_199, 0), "2026-11-20T23:59:59.000000000Z");
    }

    #[test]
    fn ids_are_as_in_runc() {
        for good in ["a", "A.b_c+d-e", "..."] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".seccomp", ".", "..", "a/b", "a b", "ü", "a\0"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_process_is_itself_and_no_other() {
        let me = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive().unwrap());
        assert!(!ProcessId { start_time: me.start_time + 1, ..me.clone() }.is_alive().unwrap());
        assert!(!ProcessId { boot_id: "other".into(), ..me }.is_alive().unwrap());
    }

    #[test]
    fn a_second_container_of_one_id_is_refused_and_leftovers_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let entry = store.reserve("x").unwrap();
        assert_eq!(store.reserve("x").unwrap_err().to_string(), "container with given ID already exists");
        assert!(entry.load().unwrap_err().to_string().contains("delete --force"));
        entry.remove().unwrap();
        assert!(matches!(store.entry("x", false), Err(Error::NoSuchContainer)));
    }
}
