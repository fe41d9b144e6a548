//! Freezing, signalling, and removing: what is done to all processes of a cgroup.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::error::{Error, Result};
use crate::fsio;
use crate::group::{Cgroup, children};
use crate::host::Version;
use crate::location::{Dir, Location};
use crate::systemd;

/// Freezing takes microseconds, unless a process hangs in the kernel.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);

/// Whether the processes of a cgroup run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    Thawed,
    Freezing,
    Frozen,
}

impl Cgroup {
    /// Stops every process and returns once all have stopped. If that cannot be had, lets them run again.
    pub fn freeze(&self) -> Result<()> {
        let dir = self.freezer()?;
        let done = match dir.version {
            Version::V1 => freeze_v1(dir),
            Version::V2 => freeze_v2(dir),
        };
        done.inspect_err(|_| self.thaw().unwrap_or_default())
    }

    /// Lets them run again. In a cgroup that is gone nobody waits for it.
    pub fn thaw(&self) -> Result<()> {
        let dir = self.freezer()?;
        let (file, value) = match dir.version {
            Version::V1 => (dir.path.join("freezer.state"), "THAWED"),
            Version::V2 => (dir.path.join("cgroup.freeze"), "0"),
        };
        match fsio::write(&file, value) {
            Err(e) if fsio::is_gone(&e) => Ok(()),
            Err(e) => Err(Error::io(format!("write {value:?} to"), &file, e)),
            Ok(()) if dir.version == Version::V2 => wait_for(dir, "frozen", 0, FREEZE_PATIENCE).map(drop),
            Ok(()) => Ok(()),
        }
    }

    /// One read: whether the container is paused. A cgroup that is gone holds nobody back.
    pub fn freezer_state(&self) -> Result<FreezerState> {
        let dir = self.freezer()?;
        let file = match dir.version {
            Version::V1 => "freezer.state",
            Version::V2 => "cgroup.events",
        };
        let Some(text) = fsio::read_if_there(&dir.path.join(file))? else { return Ok(FreezerState::Thawed) };
        Ok(match dir.version {
            Version::V1 => v1_state(&text),
            Version::V2 if fsio::flat_key(&text, "frozen") == Some(1) => FreezerState::Frozen,
            Version::V2 => FreezerState::Thawed,
        })
    }

    /// Sends a signal to every process in it and below it. SIGKILL leaves no process behind that forks in between.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL && self.kill_at_once()? {
            // A frozen v1 task does not die before it is thawed.
            return match self.location.dir_of("freezer") {
                Some(dir) if dir.version == Version::V1 => self.thaw(),
                _ => Ok(()),
            };
        }
        let signal = Signal::from_named_raw(signal).ok_or_else(|| Error::Invalid(format!("no such signal: {signal}")))?;
        let was_frozen = self.freezer_state().is_ok_and(|state| state == FreezerState::Frozen);
        // Without a working freezer the rounds below still end: each kills what the last one's victims had forked.
        let frozen = was_frozen || self.freeze().is_ok();
        let sent = self.signal_rounds(signal, frozen);
        if signal == Signal::KILL || (frozen && !was_frozen) {
            self.thaw_if_possible()?;
        }
        sent
    }

    /// cgroup.kill (Linux 5.14); false if the kernel does not have it.
    fn kill_at_once(&self) -> Result<bool> {
        let Some(dir) = self.location.unified() else { return Ok(false) };
        let file = dir.path.join("cgroup.kill");
        match fsio::write(&file, "1") {
            Ok(()) => Ok(true),
            Err(e) if fsio::is_gone(&e) => Ok(false),
            Err(e) => Err(Error::io("write \"1\" to", &file, e)),
        }
    }

    fn thaw_if_possible(&self) -> Result<()> {
        self.location.dir_of("freezer").map_or(Ok(()), |_| self.thaw())
    }

    fn signal_rounds(&self, signal: Signal, frozen: bool) -> Result<()> {
        let rounds = if frozen || signal != Signal::KILL { 1 } else { 64 };
        for _ in 0..rounds {
            let pids = self.pids()?;
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                match Pid::from_raw(pid).map(|pid| kill_process(pid, signal)) {
                    None | Some(Ok(()) | Err(Errno::SRCH)) => {}
                    Some(Err(e)) => return Err(Error::io(format!("signal process {pid} of"), self.any_path(), e)),
                }
            }
        }
        Ok(())
    }

    fn any_path(&self) -> &Path {
        self.location.dirs.first().map_or(Path::new("/"), |dir| &dir.path)
    }

    fn freezer(&self) -> Result<&Dir> {
        self.location
            .dir_of("freezer")
            .ok_or_else(|| Error::Unsupported("pause and resume need the v1 controller freezer or cgroup v2: mount one of them".into()))
    }

    /// Kills what is left in it, waits for emptiness, removes it and every cgroup below it, ends its scope if systemd made it. A
    /// cgroup that is gone is no error.
    pub fn remove(self, patience: Duration) -> Result<()> {
        match self.location.unit.clone() {
            Some(unit) => systemd::release(&unit, self.remove_directories(patience)),
            None => self.remove_directories(patience),
        }
    }

    fn remove_directories(self, patience: Duration) -> Result<()> {
        let dirs: Vec<Dir> = self.location.dirs.into_iter().filter(|dir| !removed(&dir.path)).collect();
        if dirs.is_empty() {
            return Ok(());
        }
        let left = Cgroup { location: Location { dirs, unit: None }, unified: None };
        let start = Instant::now();
        left.signal_all(libc::SIGKILL)?;
        left.wait_until_empty(start, patience)?;
        left.location.dirs.iter().try_for_each(|dir| remove_tree_patiently(&dir.path, start, patience))
    }

    fn wait_until_empty(&self, start: Instant, patience: Duration) -> Result<()> {
        if let Some(dir) = self.location.unified() {
            wait_for(dir, "populated", 0, patience)?;
        }
        for pid in self.pids()? {
            wait_for_exit(pid, patience.saturating_sub(start.elapsed()))?;
        }
        Ok(())
    }
}

fn removed(path: &Path) -> bool {
    matches!(rustix::fs::rmdir(path), Ok(()) | Err(Errno::NOENT))
}

/// A process is gone from its cgroup a little after it can be waited for, and v1 tells of that by no event: so the last
/// steps are tried again, soon at first.
fn remove_tree_patiently(path: &Path, start: Instant, patience: Duration) -> Result<()> {
    let mut pause = Duration::from_micros(50);
    loop {
        match remove_tree(path) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                if start.elapsed() > patience {
                    return Err(busy(path, start.elapsed()));
                }
                nap(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn busy(path: &Path, waited: Duration) -> Error {
    let processes = crate::group::own_pids(path).map_or(0, |pids| pids.len());
    Error::Busy { path: path.to_path_buf(), processes, waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX) }
}

/// Deepest first. The depth is not bounded by the stack: a container may nest deeply.
fn remove_tree(top: &Path) -> Result<()> {
    let mut order: Vec<PathBuf> = vec![top.to_path_buf()];
    let mut next = 0;
    while let Some(path) = order.get(next) {
        let below = children(path)?;
        order.extend(below);
        next += 1;
    }
    for path in order.iter().rev() {
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::io("remove", path, e)),
        }
    }
    Ok(())
}

fn freeze_v2(dir: &Dir) -> Result<()> {
    fsio::write_told(&dir.path.join("cgroup.freeze"), "1")?;
    match wait_for(dir, "frozen", 1, FREEZE_PATIENCE)? {
        true => Ok(()),
        false => Err(Error::Unsupported(format!("{}: some process did not freeze within {FREEZE_PATIENCE:?}", dir.path.display()))),
    }
}

/// v1's freezer has no event and can stay FREEZING when a process forks meanwhile: reading the state makes the kernel look
/// again, and a short thaw lets such a process get on.
fn freeze_v1(dir: &Dir) -> Result<()> {
    let file = dir.path.join("freezer.state");
    let start = Instant::now();
    let mut pause = Duration::from_micros(10);
    while start.elapsed() < FREEZE_PATIENCE {
        fsio::write_told(&file, "FROZEN")?;
        if v1_state(&fsio::read(&file)?) == FreezerState::Frozen {
            return Ok(());
        }
        nap(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
        if pause == Duration::from_millis(10) {
            fsio::write_told(&file, "THAWED")?;
        }
    }
    Err(Error::Unsupported(format!("{}: some process did not freeze within {FREEZE_PATIENCE:?}", dir.path.display())))
}

fn v1_state(text: &str) -> FreezerState {
    match text.trim() {
        "FROZEN" => FreezerState::Frozen,
        "FREEZING" => FreezerState::Freezing,
        _ => FreezerState::Thawed,
    }
}

/// Waits until a key of `cgroup.events` has a value: the kernel wakes pollers of the file when one changes. False: it did
/// not in time; a cgroup that is gone is as if it had.
fn wait_for(dir: &Dir, key: &str, value: u64, patience: Duration) -> Result<bool> {
    use std::io::{Seek, SeekFrom};
    let path = dir.path.join("cgroup.events");
    let told = |e: io::Error| Error::io("read", &path, e);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if fsio::is_gone(&e) => return Ok(true),
        Err(e) => return Err(told(e)),
    };
    let start = Instant::now();
    loop {
        match file.seek(SeekFrom::Start(0)).and_then(|_| fsio::read_open(&mut file)) {
            Ok(text) if fsio::flat_key(&text, key) == Some(value) => return Ok(true),
            Ok(_) => {}
            Err(e) if fsio::is_gone(&e) => return Ok(true),
            Err(e) => return Err(told(e)),
        }
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        poll_one(&file, PollFlags::PRI, left).map_err(|e| Error::io("wait for", &path, e))?;
    }
}

fn wait_for_exit(pid: i32, patience: Duration) -> Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => poll_one(&pidfd, PollFlags::IN, patience).map_err(|e| Error::io("wait for the processes of", Path::new("cgroup"), e)),
        // Gone, or a thread that no pidfd can stand for: the loop around rmdir waits for it.
        Err(_) => Ok(()),
    }
}

fn poll_one(fd: &impl AsFd, flags: PollFlags, patience: Duration) -> rustix::io::Result<()> {
    let timeout = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    match poll(&mut [PollFd::new(fd, flags)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "v1 tells neither of a finished freeze nor of a task that has left: each caller says so and is bounded"
)]
fn nap(time: Duration) {
    std::thread::sleep(time);
}
