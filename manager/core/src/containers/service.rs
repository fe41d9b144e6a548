//! The container service: what Docker's API can do to a container. Each method takes one command.

use std::pin::Pin;
use std::sync::Arc;

use rcontainerd_types::{Digest, Error, ErrorKind, Result};

use super::commands::{
    AttachContainer, CommitContainer, ContainerDetails, ContainerSummary, CreateContainer, Created, InspectContainer, KillContainer,
    ListContainers, LogsQuery, ProcessTable, PruneReport, RemoveContainer, RenameContainer, ResizeTty, RestartContainer, StartContainer,
    StatsSample, StopContainer, TopContainer, UpdateContainer, WaitCondition, WaitContainer, Waited,
};
use super::outline::Outline;
use super::registry::Entry;
use super::{attach, commit, create, host_end, links, list, logs, remove, start, stats, stop, top, update};
use crate::engine::{Engine, blocking, container_event, owned};
use crate::filters::Filters;
use crate::images::ImageUser;
use crate::io::{LogStream, ProcessIo};

/// Cheap to clone. A caller that goes away cancels nothing half-way: mutations run in tasks of their own.
#[derive(Clone)]
pub struct Containers {
    engine: Arc<Engine>,
}

/// What `wait` hands out: subscribed when it is made, resolved later.
pub type Waiter = Pin<Box<dyn Future<Output = Result<Waited>> + Send>>;

impl Containers {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    fn find(&self, id: &str) -> Result<(Arc<Engine>, Arc<Entry>)> {
        Ok((Arc::clone(&self.engine), self.engine.registry.find(id)?))
    }

    pub(crate) async fn end_all(&self) {
        host_end::end_all(&self.engine).await;
    }

    /// # Errors
    /// `NotFound` for the image, `Conflict` for the name, `InvalidArgument`/`Unsupported` for the request.
    pub async fn create(&self, command: CreateContainer) -> Result<Created> {
        owned(create::create(Arc::clone(&self.engine), command)).await
    }

    /// # Errors
    /// `NotFound`; `NotModified` when it runs already; the runtime's message with the cause in plain words.
    pub async fn start(&self, command: StartContainer) -> Result<()> {
        let (engine, entry) = self.find(&command.id)?;
        owned(async move {
            let _operation = entry.operation.lock().await;
            start::start(&engine, &entry, command.console_size).await
        })
        .await
    }

    /// # Errors
    /// `NotFound`; `NotModified` when it does not run.
    pub async fn stop(&self, command: StopContainer) -> Result<()> {
        let (engine, entry) = self.find(&command.id)?;
        owned(async move { stop::stop(&engine, &entry, &command).await }).await
    }

    /// # Errors
    /// `NotFound`, or what start says.
    pub async fn restart(&self, command: RestartContainer) -> Result<()> {
        let (engine, entry) = self.find(&command.id)?;
        owned(async move {
            let stopping = StopContainer { id: command.id, timeout: command.timeout, signal: command.signal };
            match stop::stop(&engine, &entry, &stopping).await {
                Err(err) if err.kind() != ErrorKind::NotModified => return Err(err),
                _ => {}
            }
            let _operation = entry.operation.lock().await;
            start::start(&engine, &entry, None).await?;
            engine.events.announce(container_event(&entry.view(), "restart", &[]));
            Ok(())
        })
        .await
    }

    /// # Errors
    /// `NotFound`; `Conflict` when it does not run.
    pub async fn kill(&self, command: KillContainer) -> Result<()> {
        let (engine, entry) = self.find(&command.id)?;
        owned(async move { stop::kill(&engine, &entry, &command).await }).await
    }

    /// # Errors
    /// `NotFound`; `Conflict` while it runs, unless forced.
    pub async fn remove(&self, command: RemoveContainer) -> Result<()> {
        let (engine, entry) = self.find(&command.id)?;
        owned(async move { remove::remove(&engine, &entry, &command).await }).await
    }

    /// Takes a link away: `container/alias`.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for the name of a container.
    pub async fn remove_link(&self, name: &str) -> Result<()> {
        let (engine, name) = (Arc::clone(&self.engine), name.to_owned());
        owned(async move { links::remove(&engine, &name).await }).await
    }

    /// The new image's id.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a change; a full disk.
    pub async fn commit(&self, command: CommitContainer) -> Result<rcontainerd_types::Digest> {
        let (engine, entry) = self.find(&command.id)?;
        owned(async move { commit::commit(&engine, &entry, command).await }).await
    }

    /// Gives warnings.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for limits that contradict each other, as at creation.
    pub async fn update(&self, command: UpdateContainer) -> Result<Vec<String>> {
        let (engine, entry) = self.find(&command.id)?;
        owned(async move { update::update(&engine, &entry, command).await }).await
    }

    /// # Errors
    /// `NotFound`; `Conflict` for a name in use.
    pub async fn rename(&self, command: RenameContainer) -> Result<()> {
        let (engine, entry) = self.find(&command.id)?;
        let name = command.name.strip_prefix('/').unwrap_or(&command.name).to_owned();
        if name.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let refused = |err: Error| err.context("Error when allocating new name");
        crate::names::validate(&name).map_err(refused)?;
        owned(async move {
            let _operation = entry.operation.lock().await;
            let container = entry.view();
            if container.name == name {
                return Err(Error::invalid("Renaming a container with the same name as its current name"));
            }
            engine.registry.reserve(&name, &entry.id).map_err(refused)?;
            let event = container_event(&container, "rename", &[("oldName", format!("/{}", container.name))]);
            let new = name.clone();
            let renamed = engine.update(&entry, vec![event], move |container| container.name = new).await;
            engine.registry.release(if renamed.is_ok() { &container.name } else { &name }, &entry.id);
            renamed
        })
        .await
    }

    /// Subscribes before it returns, so that an exit right after is not missed; the future resolves when the condition holds, and to an
    /// error where a removal that is waited for has failed.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait(&self, command: WaitContainer) -> Result<Waiter> {
        let (_, entry) = self.find(&command.id)?;
        let mut phase = entry.phase.subscribe();
        let before = phase.borrow_and_update().exits;
        Ok(Box::pin(async move {
            let reached = phase.wait_for(|phase| {
                phase.removed
                    || match command.condition {
                        // An end is an end, also when the policy starts it again.
                        WaitCondition::NotRunning => !phase.running || phase.exits > before,
                        WaitCondition::NextExit => phase.exits > before,
                        WaitCondition::Removed => phase.removal_failed.is_some(),
                    }
            });
            let phase = reached.await.map_err(|_| Error::internal(format!("container {} vanished", entry.id)))?;
            if let (WaitCondition::Removed, false, Some(why)) = (command.condition, phase.removed, &phase.removal_failed) {
                return Err(Error::internal(format!("container {} could not be removed: {why}", entry.id)));
            }
            Ok(Waited { exit_code: phase.exit_code, error: phase.error.clone() })
        }))
    }

    /// # Errors
    /// `Conflict` when it does not run or has no terminal.
    pub async fn resize(&self, command: ResizeTty) -> Result<()> {
        let (engine, entry) = self.find(&command.id)?;
        let container = engine.record(&entry).await?;
        if !container.config.tty {
            return Err(Error::conflict(format!("container {} has no terminal", entry.id)));
        }
        let task = entry.task_once_started().await?;
        let resized = task.resize(None, command.columns.into(), command.rows.into()).await;
        stop::unless_ended(&entry, &task, resized).await?;
        let size = [("height", command.rows.to_string()), ("width", command.columns.to_string())];
        engine.events.announce(container_event(&entry.view(), "resize", &size));
        Ok(())
    }

    /// # Errors
    /// `Conflict` when it is not running.
    pub async fn pause(&self, id: &str) -> Result<()> {
        let (engine, entry) = self.find(id)?;
        owned(async move { stop::pause(&engine, &entry, true).await }).await
    }

    /// # Errors
    /// `Conflict` when it is not paused.
    pub async fn unpause(&self, id: &str) -> Result<()> {
        let (engine, entry) = self.find(id)?;
        owned(async move { stop::pause(&engine, &entry, false).await }).await
    }

    /// Works on a container that does not run too: then the streams begin with its start.
    ///
    /// # Errors
    /// `Conflict` for a paused container.
    pub async fn attach(&self, command: AttachContainer) -> Result<ProcessIo> {
        let (engine, entry) = self.find(&command.id)?;
        attach::attach(&engine, &entry, &command).await
    }

    /// # Errors
    /// `NotFound`; `Unsupported` when its log driver keeps nothing.
    pub async fn logs(&self, query: LogsQuery) -> Result<LogStream> {
        let (engine, entry) = self.find(&query.id)?;
        logs::logs(&engine, &entry, query).await
    }

    /// # Errors
    /// `Conflict` when it does not run.
    pub async fn top(&self, command: TopContainer) -> Result<ProcessTable> {
        let (engine, entry) = self.find(&command.id)?;
        let table = top::top(&entry, &command).await?;
        engine.events.announce(container_event(&entry.view(), "top", &[]));
        Ok(table)
    }

    /// The containers made from an image, for its removal.
    pub fn made_from(&self, image: &Digest) -> Vec<ImageUser> {
        let user = |container: Arc<Outline>| ImageUser {
            container_id: container.id.clone(),
            image_id: image.clone(),
            image_name: container.config.image.clone(),
            running: container.state.status.is_running(),
        };
        self.engine.registry.made_from(&image.to_string()).iter().map(|entry| user(entry.view())).collect()
    }

    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn list(&self, command: ListContainers) -> Result<Vec<ContainerSummary>> {
        list::list(&self.engine, command).await
    }

    /// # Errors
    /// `NotFound`.
    pub async fn inspect(&self, command: InspectContainer) -> Result<ContainerDetails> {
        let (engine, entry) = self.find(&command.id)?;
        list::inspect(&engine, &entry, &command).await
    }

    /// The full id for a name, id or unambiguous prefix.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for an ambiguous prefix.
    pub async fn resolve_id(&self, name: &str) -> Result<String> {
        self.engine.registry.find(name).map(|entry| entry.id.clone())
    }

    /// # Errors
    /// `NotFound`; a stopped container gives an empty sample.
    pub async fn stats(&self, id: &str) -> Result<StatsSample> {
        let (engine, entry) = self.find(id)?;
        blocking(move || stats::sample(&engine, &entry)).await
    }

    /// Removes every stopped container that passes the filters (`until`, `label`, `label!`).
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn prune(&self, filters: Filters) -> Result<PruneReport> {
        let engine = Arc::clone(&self.engine);
        owned(async move { list::prune(&engine, filters).await }).await
    }
}
