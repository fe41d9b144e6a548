use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::{Location, OomWatch, Plan, Result, Stats};

/// Whether the processes of a cgroup run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    Thawed,
    Freezing,
    Frozen,
}

/// A cgroup that exists: the only thing here that changes the host.
#[derive(Debug)]
pub struct Cgroup {
    location: Location,
    unified: Option<OwnedFd>,
}

impl Cgroup {
    /// Makes the directories (parents too), hands controllers down on v2, opens the v2 directory. EEXIST of the last directory
    /// is an error if it holds processes. On failure nothing that was made stays.
    pub fn create(location: &Location) -> Result<Cgroup> {
        let _ = location;
        unimplemented!()
    }
    /// Opens one that exists (from the state file).
    pub fn open(location: &Location) -> Result<Cgroup> {
        let _ = location;
        unimplemented!()
    }
    /// For exec: this cgroup, or, where the container has made cgroups of its own so that its top takes no processes any more
    /// (v2), the one that `init_pid` is in. `sub` (runc's `exec --cgroup`) names one below the container's top.
    pub fn for_exec(location: &Location, init_pid: i32, sub: Option<&str>) -> Result<Cgroup> {
        let _ = (location, init_pid, sub);
        unimplemented!()
    }
    pub fn location(&self) -> &Location {
        &self.location
    }
    /// The v2 directory (O_DIRECTORY | O_CLOEXEC) for `clone_args.cgroup` with CLONE_INTO_CGROUP; None on v1 alone.
    pub fn unified_fd(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.unified.as_ref().map(AsFd::as_fd)
    }
    /// Moves a process into every hierarchy; `in_unified`: it was cloned into the v2 directory already (then pure v2 does nothing).
    pub fn attach(&self, pid: i32, in_unified: bool) -> Result<()> {
        let _ = (pid, in_unified);
        unimplemented!()
    }
    /// Carries a plan out. On failure, says which file refused which value.
    pub fn apply(&self, plan: &Plan) -> Result<()> {
        let _ = plan;
        unimplemented!()
    }
    /// Stops every process and returns once all have stopped.
    pub fn freeze(&self) -> Result<()> {
        unimplemented!()
    }
    /// Lets them run again.
    pub fn thaw(&self) -> Result<()> {
        unimplemented!()
    }
    /// One read: whether the container is paused.
    pub fn freezer_state(&self) -> Result<FreezerState> {
        unimplemented!()
    }
    /// Every process in it and in cgroups below it.
    pub fn pids(&self) -> Result<Vec<i32>> {
        unimplemented!()
    }
    /// Sends a signal to every process in it and below it. SIGKILL leaves no process behind that forks in between.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let _ = signal;
        unimplemented!()
    }
    /// What it uses now.
    pub fn stats(&self) -> Result<Stats> {
        unimplemented!()
    }
    /// A pollable source of OOM kills.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        unimplemented!()
    }
    /// Kills what is left in it, waits for emptiness, removes it and every cgroup below it. A cgroup that is gone is no error.
    pub fn remove(self, patience: Duration) -> Result<()> {
        let _ = patience;
        unimplemented!()
    }
}
