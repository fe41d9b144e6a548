//! OOM kills as something to poll: v2 by inotify on `memory.events`, v1 by an eventfd registered in `cgroup.event_control`.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use crate::error::{Error, Result};
use crate::fsio;
use crate::host::Version;
use crate::location::Location;

/// Tells of OOM kills in a cgroup: readable (poll, epoll) when something happened.
#[derive(Debug)]
pub struct OomWatch {
    /// inotify or eventfd, non-blocking.
    fd: OwnedFd,
    /// `memory.events` or `memory.oom_control`: both count kills in a line `oom_kill N`.
    counter: File,
    seen: u64,
    /// v1 wakes when memory has run out, and for nothing else; before the kill is counted.
    wakes_first: bool,
}

/// What a wake-up of an [`OomWatch`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomEvent {
    /// So many processes were killed since the last call.
    Killed(u64),
    /// Woken without a kill.
    Nothing,
    /// The cgroup is gone: drop the watch.
    Gone,
}

impl OomWatch {
    /// Needs the memory controller. Kills before this call are not told.
    pub fn new(location: &Location) -> Result<OomWatch> {
        let dir = location
            .dir_of("memory")
            .ok_or_else(|| Error::Unsupported("OOM kills cannot be seen: no cgroup hierarchy has the controller memory".into()))?;
        let mut watch = match dir.version {
            Version::V1 => watch_v1(&dir.path)?,
            Version::V2 => watch_v2(&dir.path)?,
        };
        // Registered first, counted second: no kill falls between.
        watch.seen = watch.count().unwrap_or(0);
        Ok(watch)
    }

    /// Never blocks: call it when the fd is readable.
    pub fn read(&mut self) -> Result<OomEvent> {
        let mut buffer = [0u8; 4096];
        let woken = match rustix::io::read(&self.fd, &mut buffer) {
            Ok(_) => true,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(e) => return Err(Error::io("read the OOM events of", Path::new("cgroup"), e)),
        };
        let Some(count) = self.count() else { return Ok(OomEvent::Gone) };
        let counted = count.saturating_sub(self.seen);
        let killed = match (self.wakes_first, woken) {
            (true, true) => counted.max(1),
            (true, false) => 0,
            (false, _) => counted,
        };
        self.seen = count;
        Ok(if killed > 0 { OomEvent::Killed(killed) } else { OomEvent::Nothing })
    }

    /// None once the cgroup has been removed.
    fn count(&mut self) -> Option<u64> {
        self.counter.seek(SeekFrom::Start(0)).ok()?;
        let text = fsio::read_open(&mut self.counter).ok()?;
        fsio::flat_key(&text, "oom_kill").or(Some(0))
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::io("open", path, e))
}

fn watch_v2(dir: &Path) -> Result<OomWatch> {
    let path = dir.join("memory.events");
    let counter = open(&path)?;
    let told = |e| Error::io("watch", &path, e);
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(told)?;
    inotify::add_watch(&fd, &path, inotify::WatchFlags::MODIFY | inotify::WatchFlags::DELETE_SELF).map_err(told)?;
    Ok(OomWatch { fd, counter, seen: 0, wakes_first: false })
}

fn watch_v1(dir: &Path) -> Result<OomWatch> {
    let path = dir.join("memory.oom_control");
    let counter = open(&path)?;
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| Error::io("make an eventfd for", &path, e))?;
    fsio::write_told(&dir.join("cgroup.event_control"), &format!("{} {}", fd.as_raw_fd(), counter.as_raw_fd()))?;
    Ok(OomWatch { fd, counter, seen: 0, wakes_first: true })
}
