//! One task: a container's main process and those exec'd beside it.
//!
//! `exec_id: None` means the main process everywhere.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prost::{Message, Name};
use prost_types::Any;
use proto_containerd::containerd::v1::types::Status as WireStatus;
use proto_containerd::runc::v1::ProcessDetails;
use proto_containerd::task::v3 as api;
use rcontainerd_types::{Error, ErrorKind, Result};

use crate::bundle::{self, ShimRecord};
use crate::client::{CallError, Client};
use crate::events::exit_status;
use crate::journal::ShimJournal;
use crate::types::{ExecProcess, ExitStatus, ProcessInfo, ProcessState, ProcessStatus, Stdio, TaskConfig, TaskKey};

/// Go's shims accept a spec under this name; ours looks at the bytes alone.
const PROCESS_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const RESOURCES_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// Calls that run the runtime, whose hooks may take their time, may take so many times what others may.
const SLOW: u32 = 12;
/// Before the next attempt of somebody who waits for an end, when this process cannot connect just now.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);
/// So many connections may break, one after the other, before a shim counts as one that lives and is no good.
const BREAKS: usize = 8;

/// A handle; cheap to clone. Outlives nothing: dropping it leaves the container alone.
#[derive(Clone, Debug)]
pub struct Task {
    link: Arc<Link>,
    pid: u32,
}

/// The tasks that a service knows; a task takes itself out when it is deleted.
#[derive(Debug, Default)]
pub struct Registry(Mutex<HashMap<TaskKey, Task>>);

impl Registry {
    pub fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TaskKey, Task>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to a shim; connects anew when the connection breaks but the shim lives.
#[derive(Debug)]
pub struct Link {
    parts: LinkParts,
    client: Mutex<Arc<Client>>,
}

/// What a link is made of.
#[derive(Debug)]
pub struct LinkParts {
    pub config: Arc<TaskConfig>,
    pub registry: Weak<Registry>,
    pub key: TaskKey,
    pub bundle: PathBuf,
    pub record: ShimRecord,
    /// Held for as long as someone talks to the shim.
    pub _journal: ShimJournal,
}

impl std::ops::Deref for Link {
    type Target = LinkParts;

    fn deref(&self) -> &LinkParts {
        &self.parts
    }
}

impl Link {
    pub fn new(parts: LinkParts, client: Client) -> Self {
        Self { parts, client: Mutex::new(Arc::new(client)) }
    }

    /// # Errors
    /// `NotFound` when the task has ended and its shim with it; `Unavailable` when the shim lives and is silent, or cannot be reached; its own
    /// error otherwise.
    pub async fn call<A: Message + Default>(&self, method: &str, message: &impl Message) -> Result<A> {
        self.try_call(method, message, Some(self.config.timeout)).await.map_err(|err| self.explain(method, err))
    }

    /// # Errors
    /// As [`Self::call`].
    pub async fn call_slow<A: Message + Default>(&self, method: &str, message: &impl Message) -> Result<A> {
        self.try_call(method, message, Some(self.config.timeout * SLOW)).await.map_err(|err| self.explain(method, err))
    }

    fn explain(&self, method: &str, err: CallError) -> Error {
        err.into_error(&format!("{method} of container {}", self.key.id))
    }

    async fn try_call<A: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
        timeout: Option<Duration>,
    ) -> Result<A, CallError> {
        let client = self.client().await?;
        match client.call(self.service(), method, message, timeout).await {
            Err(CallError::Disconnected) => Err(self.after_break().await),
            answered => answered,
        }
    }

    /// What a connection that broke means. A shim that ends may still have a socket that takes connections for a moment: only one that
    /// answers lives.
    async fn after_break(&self) -> CallError {
        let request = api::ConnectRequest { id: self.key.id.clone() };
        for _ in 0..BREAKS {
            let client = match self.client().await {
                Ok(client) => client,
                Err(err) => return err,
            };
            let asked = client.call::<api::ConnectResponse>(self.service(), "Connect", &request, Some(self.config.timeout)).await;
            if !matches!(asked, Err(CallError::Disconnected)) {
                break;
            }
        }
        CallError::Disconnected
    }

    /// A connection to the shim; `None` once it has ended.
    async fn connected(&self) -> Option<Arc<Client>> {
        loop {
            match self.client().await {
                Ok(client) => return Some(client),
                Err(CallError::Unreachable(err)) => {
                    tracing::warn!(container = %self.key.id, "connect to the shim: {err}");
                    tokio::time::sleep(UNREACHABLE_PAUSE).await;
                }
                Err(_) => return None,
            }
        }
    }

    fn service(&self) -> &'static str {
        if self.record.version >= 3 { "containerd.task.v3.Task" } else { "containerd.task.v2.Task" }
    }

    async fn client(&self) -> Result<Arc<Client>, CallError> {
        let current = Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner));
        if !current.is_closed() {
            return Ok(current);
        }
        let fresh = Arc::new(Client::connect(&self.record.socket).await.map_err(CallError::of_connect)?);
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        Ok(fresh)
    }

    /// Ends a shim that has no container, and waits for its end.
    pub async fn abandon(&self) {
        let request = api::ShutdownRequest { id: self.key.id.clone(), now: true };
        if let Err(err) = self.call::<()>("Shutdown", &request).await {
            tracing::warn!(container = %self.key.id, %err, "shut down a shim");
            return;
        }
        let client = Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner));
        if tokio::time::timeout(self.config.timeout, client.closed()).await.is_err() {
            tracing::warn!(container = %self.key.id, "a shim goes on after its shutdown");
        }
    }
}

impl Task {
    pub(crate) fn new(link: Link, pid: u32) -> Self {
        Self { link: Arc::new(link), pid }
    }

    /// Whether both are handles of one task, and not of two that had the same name one after the other.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }

    pub fn key(&self) -> &TaskKey {
        &self.link.key
    }

    /// Host pid of the main process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts the main process, or one that [`Self::exec`] added; gives its pid.
    ///
    /// # Errors
    /// The runtime's message whole (`exec: "foo": executable file not found in $PATH`).
    pub async fn start(&self, exec_id: Option<&str>) -> Result<u32> {
        let request = api::StartRequest { id: self.id(), exec_id: name(exec_id) };
        let answer: api::StartResponse = self.link.call_slow("Start", &request).await?;
        Ok(answer.pid)
    }

    /// Adds a process; [`Self::start`] runs it.
    ///
    /// # Errors
    /// `AlreadyExists` for a used exec id.
    pub async fn exec(&self, process: ExecProcess) -> Result<()> {
        let request = api::ExecProcessRequest {
            id: self.id(),
            exec_id: process.exec_id,
            terminal: process.terminal,
            stdin: process.stdio.stdin,
            stdout: process.stdio.stdout,
            stderr: process.stdio.stderr,
            spec: Some(Any { type_url: PROCESS_URL.to_owned(), value: process.process_json }),
        };
        self.link.call("Exec", &request).await
    }

    /// Resolves when the process has ended and all its output is delivered; also when the shim dies (then with the status that it left on
    /// disk, else unknown). Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` for an unknown exec id.
    pub async fn wait(&self, exec_id: Option<&str>) -> Result<ExitStatus> {
        let request = api::WaitRequest { id: self.id(), exec_id: name(exec_id) };
        loop {
            match self.link.try_call::<api::WaitResponse>("Wait", &request, None).await {
                Ok(answer) => return Ok(exit_status(answer.exit_status, answer.exited_at)),
                // The connection may have broken and the shim still live: then we ask again.
                Err(CallError::Disconnected | CallError::Unreachable(_)) if self.link.connected().await.is_some() => {}
                Err(CallError::Disconnected | CallError::Unreachable(_) | CallError::Gone) => {
                    return Ok(bundle::kept_exit(&self.link.bundle, exec_id).unwrap_or_else(ExitStatus::unknown));
                }
                Err(err) => return Err(self.link.explain("Wait", err)),
            }
        }
    }

    /// Resolves when nobody answers for the task any more: the shim has ended, by itself or after a delete. Cancel-safe.
    pub async fn gone(&self) {
        while let Some(client) = self.link.connected().await {
            client.closed().await;
        }
    }

    /// Whether nobody answers for the task any more.
    pub async fn is_gone(&self) -> bool {
        matches!(self.link.client().await, Err(CallError::Gone))
    }

    /// Every call that finds the shim ended, as its task has, fails with `NotFound`, as one for a process that the shim does not know.
    ///
    /// # Errors
    /// `NotFound` when the process has ended.
    pub async fn kill(&self, exec_id: Option<&str>, signal: u32, all: bool) -> Result<()> {
        let request = api::KillRequest { id: self.id(), exec_id: name(exec_id), signal, all };
        self.link.call("Kill", &request).await
    }

    /// Deletes an ended process. For the main one: the container too, its rootfs unmounted, the shim shut down and the bundle removed.
    ///
    /// # Errors
    /// `Conflict` while it runs.
    pub async fn delete(&self, exec_id: Option<&str>) -> Result<ExitStatus> {
        let request = api::DeleteRequest { id: self.id(), exec_id: name(exec_id) };
        let answer: api::DeleteResponse = self.link.call_slow("Delete", &request).await?;
        if exec_id.is_none() {
            self.link.abandon().await;
            if let Some(registry) = self.link.registry.upgrade() {
                registry.lock().remove(&self.link.key);
            }
            bundle::remove(&self.link.bundle)?;
        }
        Ok(exit_status(answer.exit_status, answer.exited_at))
    }

    /// # Errors
    /// `NotFound` for an unknown exec id.
    pub async fn state(&self, exec_id: Option<&str>) -> Result<ProcessState> {
        let request = api::StateRequest { id: self.id(), exec_id: name(exec_id) };
        let answer: api::StateResponse = self.link.call("State", &request).await?;
        let status = match answer.status() {
            WireStatus::Unknown => ProcessStatus::Unknown,
            WireStatus::Created => ProcessStatus::Created,
            WireStatus::Running => ProcessStatus::Running,
            WireStatus::Stopped => ProcessStatus::Stopped,
            WireStatus::Paused => ProcessStatus::Paused,
            WireStatus::Pausing => ProcessStatus::Pausing,
        };
        Ok(ProcessState {
            status,
            pid: answer.pid,
            terminal: answer.terminal,
            exit: (status == ProcessStatus::Stopped).then(|| exit_status(answer.exit_status, answer.exited_at)),
            stdio: Stdio { stdin: answer.stdin, stdout: answer.stdout, stderr: answer.stderr },
        })
    }

    /// Every process in the container.
    ///
    /// # Errors
    /// The shim's failure.
    pub async fn pids(&self) -> Result<Vec<ProcessInfo>> {
        let answer: api::PidsResponse = self.link.call("Pids", &api::PidsRequest { id: self.id() }).await?;
        let exec_id = |any: Any| {
            let ours = any.type_url.rsplit('/').next() == Some(ProcessDetails::full_name().as_str());
            ours.then(|| ProcessDetails::decode(any.value.as_slice()).ok()).flatten().map(|details| details.exec_id)
        };
        Ok(answer.processes.into_iter().map(|process| ProcessInfo { pid: process.pid, exec_id: process.info.and_then(exec_id) }).collect())
    }

    /// # Errors
    /// `Conflict` without a terminal.
    pub async fn resize(&self, exec_id: Option<&str>, width: u32, height: u32) -> Result<()> {
        self.link.call("ResizePty", &api::ResizePtyRequest { id: self.id(), exec_id: name(exec_id), width, height }).await
    }

    /// End of file on stdin once what is in the FIFO has been read.
    ///
    /// # Errors
    /// `NotFound` for an unknown exec id.
    pub async fn close_stdin(&self, exec_id: Option<&str>) -> Result<()> {
        self.link.call("CloseIO", &api::CloseIoRequest { id: self.id(), exec_id: name(exec_id), stdin: true }).await
    }

    /// # Errors
    /// `Conflict` when not running.
    pub async fn pause(&self) -> Result<()> {
        self.link.call("Pause", &api::PauseRequest { id: self.id() }).await
    }

    /// # Errors
    /// `Conflict` when not paused.
    pub async fn resume(&self) -> Result<()> {
        self.link.call("Resume", &api::ResumeRequest { id: self.id() }).await
    }

    /// `resources_json`: the OCI runtime spec's `linux.resources`. Annotations are for shims that know some; ours knows none.
    ///
    /// # Errors
    /// The runtime's message.
    pub async fn update(&self, resources_json: Vec<u8>, annotations: HashMap<String, String>) -> Result<()> {
        let resources = Some(Any { type_url: RESOURCES_URL.to_owned(), value: resources_json });
        self.link.call("Update", &api::UpdateTaskRequest { id: self.id(), resources, annotations }).await
    }

    /// The metrics message as `(type_url, bytes)`: `io.containerd.cgroups.v1.Metrics` or `….v2.Metrics` (see `proto_containerd::cgroups`).
    ///
    /// # Errors
    /// `Conflict` when not running.
    pub async fn stats(&self) -> Result<(String, Vec<u8>)> {
        let answer: api::StatsResponse = self.link.call("Stats", &api::StatsRequest { id: self.id() }).await?;
        let any = answer.stats.ok_or_else(|| Error::new(ErrorKind::Internal, "the shim told no metrics"))?;
        Ok((any.type_url, any.value))
    }

    fn id(&self) -> String {
        self.link.key.id.clone()
    }
}

fn name(exec_id: Option<&str>) -> String {
    exec_id.unwrap_or_default().to_owned()
}
