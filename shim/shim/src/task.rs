//! Containers and their processes, as state.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use proto_containerd::containerd::v1::types::Status as TaskStatus;
use rrun_cgroup::OomWatch;
use shim_ttrpc::Status;

use crate::connection::ReplyTo;
use crate::disk::Exit;
use crate::poller::Token;
use crate::runtime::Runtime;

/// The stdio strings of a request, kept for `State`.
#[derive(Clone, Debug, Default)]
pub struct StdioSpec {
    /// Told to a logging binary.
    pub container_id: String,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Exec added, or the container created: `Start` is next.
    Created,
    /// The runtime is at work on `Start`: an end of the process is told after its start.
    Starting,
    Running,
    Stopped,
}

/// The copying for one process: ids of relays and of the sink in the server.
#[derive(Clone, Debug, Default)]
pub struct ProcessIo {
    pub stdin: Option<u64>,
    pub outputs: Vec<u64>,
    pub sink: Option<u64>,
    /// Whether outputs begin to be read only when the server releases them.
    pub held: bool,
}

/// A main process (`exec_id` empty) or an exec'd one.
#[derive(Debug)]
pub struct Process {
    pub exec_id: String,
    /// Host pid; 0 before it runs.
    pub pid: i32,
    pub phase: Phase,
    pub stdio: StdioSpec,
    pub io: ProcessIo,
    pub console: Option<OwnedFd>,
    pub exit: Option<Exit>,
    pub waiters: Vec<ReplyTo>,
    /// An exec'd process's OCI `process` object as JSON.
    pub spec: Vec<u8>,
}

impl Process {
    pub fn new(exec_id: &str, stdio: StdioSpec) -> Self {
        Self {
            exec_id: exec_id.to_owned(),
            pid: 0,
            phase: Phase::Created,
            stdio,
            io: ProcessIo::default(),
            console: None,
            exit: None,
            waiters: Vec::new(),
            spec: Vec::new(),
        }
    }

    pub fn wire_pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }
}

#[derive(Debug)]
pub struct Container {
    /// Number in the server, for event sources.
    pub number: u64,
    pub id: String,
    pub bundle: PathBuf,
    pub runtime: Runtime,
    /// Owner of the stdio pipes: the container's root with a user namespace.
    pub io_owner: (u32, u32),
    pub init: Process,
    pub execs: BTreeMap<String, Process>,
    pub paused: bool,
    /// A pause or a resume is under way.
    pub freezing: bool,
    /// Whether its processes are in a pid namespace of their own, and so end with the first of them.
    pub has_own_pids: bool,
    pub mounted: bool,
    pub oom: Option<(OomWatch, Token)>,
}

impl Container {
    /// # Errors
    /// `NotFound` naming both ids.
    pub fn process(&self, exec_id: &str) -> Result<&Process, Status> {
        if exec_id.is_empty() { Ok(&self.init) } else { self.execs.get(exec_id).ok_or_else(|| self.no_exec(exec_id)) }
    }

    /// # Errors
    /// `NotFound` naming both ids.
    pub fn process_mut(&mut self, exec_id: &str) -> Result<&mut Process, Status> {
        if exec_id.is_empty() {
            return Ok(&mut self.init);
        }
        if !self.execs.contains_key(exec_id) {
            return Err(self.no_exec(exec_id));
        }
        self.execs.get_mut(exec_id).ok_or_else(|| Status::not_found("exec vanished"))
    }

    fn no_exec(&self, exec_id: &str) -> Status {
        Status::not_found(format!("process {exec_id} does not exist in container {}", self.id))
    }

    pub fn status(&self, process: &Process) -> TaskStatus {
        match process.phase {
            Phase::Created | Phase::Starting => TaskStatus::Created,
            Phase::Stopped => TaskStatus::Stopped,
            Phase::Running if self.paused => TaskStatus::Paused,
            Phase::Running => TaskStatus::Running,
        }
    }

    /// File that a runtime call for this process logs to: one per process, since execs run side by side.
    pub fn log_path(&self, exec_id: &str) -> PathBuf {
        if exec_id.is_empty() { self.bundle.join("log.json") } else { self.bundle.join(format!("exec-{exec_id}.log.json")) }
    }
}
