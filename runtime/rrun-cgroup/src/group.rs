//! A cgroup that exists: made, opened, joined, changed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::apply;
use crate::error::{Error, Result};
use crate::fsio;
use crate::host::Host;
use crate::location::{Dir, Location};
use crate::make::Maker;
use crate::oom::OomWatch;
use crate::plan::Plan;
use crate::pressure::PressureWatch;
use crate::stats::{self, Stats};
use crate::systemd::{self, Unit};

/// A cgroup that exists: the only thing here that changes the host.
#[derive(Debug)]
pub struct Cgroup {
    pub(crate) location: Location,
    pub(crate) unified: Option<OwnedFd>,
}

impl Cgroup {
    /// Makes the directories (parents too), hands controllers down on v2, opens the v2 directory. A cgroup that is there
    /// already is taken if it is empty. On failure nothing that was made stays.
    pub fn create(location: &Location) -> Result<Cgroup> {
        let mut maker = Maker::default();
        match maker.make_all(location).and_then(|()| Cgroup::open(location)) {
            Ok(cgroup) => Ok(cgroup),
            Err(e) => Err(maker.undo(e)),
        }
    }

    /// Takes the cgroup of a scope that systemd has just made around a process; what systemd does not make is made here: other
    /// v1 hierarchies, which the process `pid` joins too, controllers handed down on v2.
    pub fn adopt(location: &Location, pid: i32) -> Result<Cgroup> {
        let mut maker = Maker::default();
        let joined = |cgroup: Cgroup| cgroup.attach(pid, true).map(|()| cgroup);
        match maker.adopt_all(location).and_then(|()| Cgroup::open(location)).and_then(joined) {
            Ok(cgroup) => Ok(cgroup),
            Err(e) => Err(maker.undo(e)),
        }
    }

    /// Opens one that exists (from the state file). One that is gone opens too: [`Cgroup::remove`] then has nothing to do, it has
    /// no processes, and what needs it says that it is not there.
    pub fn open(location: &Location) -> Result<Cgroup> {
        let unified = location.unified().map(|dir| open_dir(&dir.path)).transpose()?.flatten();
        Ok(Cgroup { location: location.clone(), unified })
    }

    /// For exec: this cgroup, or, where the container has made cgroups of its own so that its top takes no processes any more
    /// (v2), the one that `init_pid` is in. `sub` (runc's `exec --cgroup`) names cgroups below the container's top, `controllers:path` those of some v1 hierarchies.
    pub fn for_exec(location: &Location, init_pid: i32, subs: &[String]) -> Result<Cgroup> {
        if !subs.is_empty() {
            let below = subs.iter().try_fold(location.clone(), |location, sub| below(&location, sub))?;
            return Cgroup::open(&below);
        }
        let cgroup = Cgroup::open(location)?;
        match location.unified() {
            Some(dir) if hands_controllers_down(dir)? => cgroup.joined_by(init_pid),
            _ => Ok(cgroup),
        }
    }

    /// As this one, but in the v2 tree where `pid` is.
    fn joined_by(self, pid: i32) -> Result<Cgroup> {
        let theirs = Host::detect()?.location_of(pid)?;
        let Some(theirs) = theirs.unified() else { return Ok(self) };
        let mut location = self.location;
        for dir in &mut location.dirs {
            if dir.version == theirs.version && theirs.path.starts_with(&dir.path) {
                dir.path.clone_from(&theirs.path);
            }
        }
        Cgroup::open(&location)
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The v2 directory (O_DIRECTORY | O_CLOEXEC) for `clone_args.cgroup` with CLONE_INTO_CGROUP; None on v1 alone, and where only
    /// the user's systemd may move a process.
    pub fn unified_fd(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().filter(|_| self.users_unit().is_none()).map(AsFd::as_fd)
    }

    /// Whether a process must be moved into it (by [`Cgroup::attach`]) after it was made.
    pub fn wants_attach(&self) -> bool {
        self.location.v1().next().is_some() || self.users_unit().is_some()
    }

    fn users_unit(&self) -> Option<&Unit> {
        self.location.unit.as_ref().filter(|unit| unit.user)
    }

    /// Moves a process into every hierarchy; `in_unified`: it was cloned into the v2 directory already (then pure v2 does nothing).
    pub fn attach(&self, pid: i32, in_unified: bool) -> Result<()> {
        if let Some(unit) = self.users_unit().filter(|_| !in_unified) {
            return systemd::attach(&self.location, unit, pid);
        }
        let text = pid.to_string();
        let unified = self.location.unified().filter(|_| !in_unified);
        for dir in self.location.v1().chain(unified) {
            let file = dir.path.join("cgroup.procs");
            fsio::write(&file, &text).map_err(|e| Error::io(format!("move process {pid} into"), &dir.path, e))?;
        }
        Ok(())
    }

    /// Carries a plan out. On failure, says which file refused which value.
    pub fn apply(&self, plan: &Plan) -> Result<()> {
        apply::apply(self, plan)
    }

    /// Brings a live cgroup to a plan: by systemd first, where its scope is systemd's.
    pub fn update(&self, mut plan: Plan) -> Result<()> {
        if let Some(unit) = &self.location.unit {
            apply::refuse(self, &plan)?;
            systemd::update(&self.location, unit, &mut plan)?;
        }
        self.apply(&plan)
    }

    /// Gives the cgroup to a user, who may then make cgroups in it (cgroups(7), "Cgroup delegation"): the directory and the files
    /// that the kernel names for this. cgroup v2 alone.
    pub fn give_to(&self, uid: u32) -> Result<()> {
        let Some(dir) = self.location.unified().filter(|_| self.location.is_pure_v2()) else { return Ok(()) };
        let listed = fsio::read_if_there(Path::new("/sys/kernel/cgroup/delegate"))?;
        let files = listed.unwrap_or_else(|| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".into());
        let owner = Some(rustix::fs::Uid::from_raw(uid));
        for path in std::iter::once(dir.path.clone()).chain(files.lines().map(|file| dir.path.join(file))) {
            match rustix::fs::chown(&path, owner, None) {
                // Files of a controller that is not there.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(Error::io(format!("give user {uid}"), &path, e)),
            }
        }
        Ok(())
    }

    /// Every process in it and in cgroups below it. A cgroup that is gone has none.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        if let Some(dir) = self.location.unified().or_else(|| self.location.dir_of("freezer")).or(self.location.dirs.first()) {
            collect_pids(&dir.path, &mut pids)?;
        }
        Ok(pids)
    }

    /// What it uses now. Files that the host does not have count as nothing.
    pub fn stats(&self) -> Result<Stats> {
        stats::read(&self.location)
    }

    /// A pollable source of OOM kills.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        OomWatch::new(&self.location)
    }

    /// Memory pressure to wait for, where the kernel tells it.
    pub fn pressure_watch(&self) -> Result<Option<PressureWatch>> {
        PressureWatch::new(&self.location)
    }
}

fn open_dir(path: &Path) -> Result<Option<OwnedFd>> {
    match open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::io("open", path, e)),
    }
}

fn hands_controllers_down(dir: &Dir) -> Result<bool> {
    Ok(fsio::read_if_there(&dir.path.join("cgroup.subtree_control"))?.is_some_and(|text| !text.trim().is_empty()))
}

fn below(location: &Location, sub: &str) -> Result<Location> {
    let (controllers, path) = sub.split_once(':').map_or((None, sub), |(controllers, path)| (Some(controllers), path));
    let relative = path.trim_start_matches('/');
    if Path::new(relative).components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
        return Err(Error::Invalid(format!("bad sub cgroup path: {sub:?} is not below the container's: give a plain path")));
    }
    let mut location = location.clone();
    let wanted: Vec<&str> = controllers.map(|list| list.split(',').collect()).unwrap_or_default();
    for controller in &wanted {
        if !location.v1().any(|dir| dir.controllers.iter().any(|c| c == controller)) {
            return Err(Error::Invalid(format!("sub cgroup {sub:?}: unknown controller {controller:?}: no v1 hierarchy has it")));
        }
    }
    let chosen = |dir: &Dir| controllers.is_none() || dir.controllers.iter().any(|c| wanted.contains(&c.as_str()));
    for dir in location.dirs.iter_mut().filter(|dir| chosen(dir)) {
        dir.path = dir.path.join(relative);
        if !dir.path.is_dir() {
            return Err(Error::Invalid(format!(
                "error adding pid of the process to cgroup {}: no such file or directory: make it first",
                dir.path.display()
            )));
        }
    }
    Ok(location)
}

/// The cgroups directly below one; none if it is gone.
pub(crate) fn children(path: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if fsio::is_gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", path, e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("list", path, e))?;
        // d_type of a kernfs entry is known without a stat.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn collect_pids(path: &Path, pids: &mut Vec<i32>) -> Result<()> {
    pids.extend(own_pids(path)?);
    children(path)?.iter().try_for_each(|child| collect_pids(child, pids))
}

/// The processes directly in one cgroup. 0 stands for a process that this pid namespace cannot see.
pub(crate) fn own_pids(path: &Path) -> Result<Vec<i32>> {
    let file = path.join("cgroup.procs");
    match fsio::read_io(&file) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid != 0).collect()),
        // EOPNOTSUPP: a threaded cgroup; its processes are listed by the domain above.
        Err(e) if fsio::is_gone(&e) || e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(Error::io("read", &file, io::Error::from_raw_os_error(e.raw_os_error().unwrap_or(libc::EIO)))),
    }
}
