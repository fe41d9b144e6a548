//! What the services share: stores, task service, network, facts of the host, and the containers in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcontainerd_network::netd::Netd;
use rcontainerd_network::{Network, NetworkConfig};
use rcontainerd_store::Store;
use rcontainerd_store::metadata::WriteTx;
use rcontainerd_task::{TaskKey, TaskService};
use rcontainerd_types::{Error, Result};

use crate::containers::registry::{CONTAINERS, Entry, Registry};
use crate::containers::{Container, Outline, State};
use crate::events::{EventKind, Events, NewEvent};
use crate::execs::table::ExecTable;
use crate::host::HostFacts;
use crate::images::ImageService;
use crate::images::RegistryConfig;
use crate::networks::catalog::Catalog;
use crate::volumes::Volumes;

/// Docker's objects live in this namespace.
pub const NAMESPACE: &str = "moby";

/// What the composition root decides. All paths are absolute.
#[derive(Clone)]
pub struct CoreConfig {
    pub state_dir: PathBuf,
    /// The OCI runtime; told by `info`.
    pub runtime: PathBuf,
    /// PID 1 of containers started with `--init`.
    pub init: PathBuf,
    /// Absolute cgroup under which containers get theirs, such as `/rcontainerd`.
    pub cgroup_parent: String,
    pub network: NetworkConfig,
    /// The program and arguments that become netd, which serves `STATE/netd.sock`.
    pub netd: Vec<String>,
    pub registry: RegistryConfig,
    /// On what images may take.
    pub caps: crate::images::Caps,
    /// Runtimes by the name that clients use; our own serves all others that they usually name.
    pub runtimes: std::collections::BTreeMap<String, RuntimeConfig>,
    /// Of the manager, as `version` tells it.
    pub version: String,
    pub git_commit: String,
}

/// What a runtime's name stands for; what is `None` is our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The OCI runtime's binary.
    pub binary: Option<PathBuf>,
    pub shim: Option<PathBuf>,
}

pub(crate) struct Engine {
    pub config: CoreConfig,
    pub store: Store,
    pub tasks: TaskService,
    pub network: Arc<Network>,
    pub networks: Catalog,
    pub netd: Netd,
    pub images: ImageService,
    pub events: Events,
    pub volumes: Volumes,
    pub registry: Arc<Registry>,
    pub execs: ExecTable,
    pub host: HostFacts,
    pub opened: jiff::Timestamp,
    /// Cancelled when the manager ends: what only watches lets go; containers are not touched.
    pub closing: tokio_util::sync::CancellationToken,
    /// Cancelled when the host goes down: what ends now is not restarted before the manager is.
    pub host_ends: tokio_util::sync::CancellationToken,
}

impl Engine {
    /// ROOT/containers/<id>: files that live as long as the container.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.store.root().join("containers").join(id)
    }

    /// STATE/c/<half the id>: files that live as long as it runs; short, since a socket's path has at most 107 bytes.
    pub fn run_dir(&self, id: &str) -> PathBuf {
        self.config.state_dir.join("c").join(id.get(..32).unwrap_or(id))
    }

    pub fn task_key(&self, id: &str) -> TaskKey {
        TaskKey { namespace: NAMESPACE.to_owned(), id: id.to_owned() }
    }

    /// The whole record of a container, with the state that is in memory.
    ///
    /// # Errors
    /// `NotFound` for one that was removed; those of the database.
    pub async fn record(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Container> {
        let (engine, entry) = (Arc::clone(self), Arc::clone(entry));
        blocking(move || engine.record_now(&entry)).await
    }

    /// As [`Self::record`], for who may block.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn record_now(&self, entry: &Entry) -> Result<Container> {
        let kept = self.store.metadata().read(|tx| tx.get(CONTAINERS, &entry.id))?;
        with_state(kept, entry).ok_or_else(|| gone(entry))
    }

    /// Changes a record durably, the events in the same transaction.
    pub async fn update(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        events: Vec<NewEvent>,
        change: impl FnOnce(&mut Container) + Send + 'static,
    ) -> Result<()> {
        let (engine, entry) = (Arc::clone(self), Arc::clone(entry));
        blocking(move || {
            let _order = entry.writing();
            let (outline, recorded) = engine.store.metadata().write(|tx| {
                let mut container = with_state(tx.get(CONTAINERS, &entry.id)?, &entry).ok_or_else(|| gone(&entry))?;
                change(&mut container);
                tx.put(CONTAINERS, &container.id, &container)?;
                Ok((Outline::from(&container), engine.record_all(tx, events)?))
            })?;
            entry.set_outline(outline);
            recorded.into_iter().for_each(|event| engine.events.publish(event));
            Ok(())
        })
        .await
    }

    /// Writes the state as it is in memory, unless its container is gone by now.
    pub async fn rewrite(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<()> {
        let (engine, entry) = (Arc::clone(self), Arc::clone(entry));
        blocking(move || {
            let _order = entry.writing();
            engine.store.metadata().write(|tx| match with_state(tx.get(CONTAINERS, &entry.id)?, &entry) {
                Some(container) => tx.put(CONTAINERS, &container.id, &container),
                None => Ok(()),
            })
        })
        .await
    }

    /// Changes the state in memory only: what a crash of the manager may forget, because the shim and STATE know it.
    pub fn update_volatile(&self, entry: &Entry, events: Vec<NewEvent>, change: impl FnOnce(&mut State)) {
        let _order = entry.writing();
        entry.change_state(change);
        events.into_iter().for_each(|event| self.events.announce(event));
    }

    pub fn record_all(&self, tx: &WriteTx<'_>, events: Vec<NewEvent>) -> Result<Vec<crate::events::Event>> {
        events.into_iter().map(|event| self.events.record(tx, event)).collect()
    }
}

/// A record with the state that is in memory.
fn with_state(kept: Option<Container>, entry: &Entry) -> Option<Container> {
    kept.map(|kept| Container { state: entry.view().state.clone(), ..kept })
}

fn gone(entry: &Entry) -> Error {
    Error::not_found(format!("No such container: {}", entry.id))
}

/// An event of a container with Docker's attributes: image, name, the labels, and what the action adds.
pub(crate) fn container_event(container: &Outline, action: impl Into<String>, extra: &[(&str, String)]) -> NewEvent {
    let mut attributes = container.config.labels.clone();
    attributes.insert("image".into(), container.config.image.clone());
    attributes.insert("name".into(), container.name.clone());
    attributes.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    NewEvent { kind: EventKind::Container, action: action.into(), actor: container.id.clone(), attributes }
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|err| Error::internal(format!("work was cut off: {err}")))?
}

/// Runs a mutation in a task of its own: a caller that goes away cancels nothing half-way.
pub(crate) async fn owned<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let joined = tokio::spawn(work).await;
    joined.map_err(|err| Error::internal(format!("work was cut off: {err}")))?
}

/// Makes a directory and its parents.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|err| Error::io(format!("create {}", path.display()), err))
}

/// Removes a directory with all in it; one that is gone is no error.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {}", path.display()), err)),
        _ => Ok(()),
    }
}

/// How long a killed process may take to be gone before we say so.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);
