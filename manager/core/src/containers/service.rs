//! The container service: what Docker's API can do to a container. Each method takes one command.

use rcontainerd_types::{Error, Result};

use super::commands::{
    AttachContainer, ContainerDetails, ContainerSummary, CreateContainer, Created, InspectContainer, KillContainer, ListContainers,
    LogsQuery, ProcessTable, PruneReport, RemoveContainer, RenameContainer, ResizeTty, RestartContainer, StartContainer, StatsSample,
    StopContainer, TopContainer, WaitContainer, Waited,
};
use crate::filters::Filters;
use crate::io::{LogStream, ProcessIo};

/// Cheap to clone. A caller that goes away cancels nothing half-way: mutations run in tasks of their own.
#[derive(Clone)]
pub struct Containers {}

/// What `wait` hands out: subscribed when it is made, resolved later.
pub type Waiter = std::pin::Pin<Box<dyn Future<Output = Result<Waited>> + Send>>;

fn unwired<T>() -> Result<T> {
    Err(Error::unsupported("containers: not wired yet"))
}

impl Containers {
    /// # Errors
    /// `NotFound` for the image, `Conflict` for the name, `InvalidArgument`/`Unsupported` for the request.
    pub async fn create(&self, _command: CreateContainer) -> Result<Created> {
        unwired()
    }

    /// # Errors
    /// `NotFound`; `NotModified` when it runs already; `InvalidArgument` with the cause in plain words.
    pub async fn start(&self, _command: StartContainer) -> Result<()> {
        unwired()
    }

    /// # Errors
    /// `NotFound`; `NotModified` when it does not run.
    pub async fn stop(&self, _command: StopContainer) -> Result<()> {
        unwired()
    }

    /// # Errors
    /// `NotFound`, or what start says.
    pub async fn restart(&self, _command: RestartContainer) -> Result<()> {
        unwired()
    }

    /// # Errors
    /// `NotFound`; `Conflict` when it does not run.
    pub async fn kill(&self, _command: KillContainer) -> Result<()> {
        unwired()
    }

    /// # Errors
    /// `NotFound`; `Conflict` while it runs, unless forced.
    pub async fn remove(&self, _command: RemoveContainer) -> Result<()> {
        unwired()
    }

    /// # Errors
    /// `NotFound`; `Conflict` for a name in use.
    pub async fn rename(&self, _command: RenameContainer) -> Result<()> {
        unwired()
    }

    /// Subscribes before it returns, so that an exit right after is not missed; the future resolves when the condition holds.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait(&self, _command: WaitContainer) -> Result<Waiter> {
        unwired()
    }

    /// # Errors
    /// `Conflict` when it does not run or has no terminal.
    pub async fn resize(&self, _command: ResizeTty) -> Result<()> {
        unwired()
    }

    /// # Errors
    /// `Conflict` when it is not running.
    pub async fn pause(&self, _id: &str) -> Result<()> {
        unwired()
    }

    /// # Errors
    /// `Conflict` when it is not paused.
    pub async fn unpause(&self, _id: &str) -> Result<()> {
        unwired()
    }

    /// Works on a created container too: then the streams begin with its start.
    ///
    /// # Errors
    /// `Conflict` for a stopped or paused container.
    pub async fn attach(&self, _command: AttachContainer) -> Result<ProcessIo> {
        unwired()
    }

    /// # Errors
    /// `NotFound`; `Unsupported` when its log driver keeps nothing.
    pub async fn logs(&self, _query: LogsQuery) -> Result<LogStream> {
        unwired()
    }

    /// # Errors
    /// `Conflict` when it does not run.
    pub async fn top(&self, _command: TopContainer) -> Result<ProcessTable> {
        unwired()
    }

    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn list(&self, _command: ListContainers) -> Result<Vec<ContainerSummary>> {
        unwired()
    }

    /// # Errors
    /// `NotFound`.
    pub async fn inspect(&self, _command: InspectContainer) -> Result<ContainerDetails> {
        unwired()
    }

    /// The full id for a name, id or unambiguous prefix.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for an ambiguous prefix.
    pub async fn resolve_id(&self, _name: &str) -> Result<String> {
        unwired()
    }

    /// # Errors
    /// `NotFound`; a stopped container gives an empty sample.
    pub async fn stats(&self, _id: &str) -> Result<StatsSample> {
        unwired()
    }

    /// Removes every stopped container that passes the filters (`until`, `label`, `label!`).
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn prune(&self, _filters: Filters) -> Result<PruneReport> {
        unwired()
    }
}
