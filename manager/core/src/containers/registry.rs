//! The containers in memory: found by id, prefix or name; each with its locks.
//!
//! Order of locks: `Entry::operation` (async; one start, removal, rename, pause … at a time) → `Entry::writing` (one change of the record at
//! a time, held over its transaction) → the record, the live part, the index (momentary, none held over another). Stop, kill, attach, exec and
//! the readers take no `operation` while they wait for the process.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rcontainerd_network::Attachment;
use rcontainerd_store::Store;
use rcontainerd_store::metadata::Table;
use rcontainerd_task::{AttachStream, Task};
use rcontainerd_types::{Error, Result};
use tokio::sync::{oneshot, watch};

use super::model::{Container, MountKind};

pub(crate) const CONTAINERS: Table<Container> = Table::new("docker.containers", 1);

/// One container in memory.
pub struct Entry {
    pub id: String,
    /// One operation that changes what it is at a time.
    pub operation: tokio::sync::Mutex<()>,
    writing: Mutex<()>,
    record: Mutex<Container>,
    live: Mutex<Option<Live>>,
    pub phase: watch::Sender<Phase>,
    /// Clients that attached before the start.
    pending: Mutex<Vec<Pending>>,
}

/// What exists only while a process runs.
#[derive(Clone)]
pub struct Live {
    pub task: Task,
    pub run: u64,
    pub netns: Option<PathBuf>,
    pub attachment: Option<Attachment>,
}

/// A client that attached before the start; both halves are told apart, since it may read one before the other.
pub struct Pending {
    pub output: oneshot::Sender<AttachStream>,
    pub task: oneshot::Sender<Task>,
}

/// What waiters watch.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    pub running: bool,
    /// Counts the exits.
    pub exits: u64,
    pub exit_code: i64,
    pub error: Option<String>,
    pub removed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    pub fn new(container: Container) -> Self {
        let phase = Phase { running: false, exit_code: container.state.exit_code, ..Phase::default() };
        Self {
            id: container.id.clone(),
            operation: tokio::sync::Mutex::default(),
            writing: Mutex::default(),
            record: Mutex::new(container),
            live: Mutex::default(),
            phase: watch::Sender::new(phase),
            pending: Mutex::default(),
        }
    }

    pub fn record(&self) -> Container {
        lock(&self.record).clone()
    }

    pub fn set_record(&self, container: Container) {
        *lock(&self.record) = container;
    }

    pub fn writing(&self) -> MutexGuard<'_, ()> {
        lock(&self.writing)
    }

    pub fn live(&self) -> Option<Live> {
        lock(&self.live).clone()
    }

    pub fn set_live(&self, live: Option<Live>) -> Option<Live> {
        std::mem::replace(&mut lock(&self.live), live)
    }

    pub fn add_pending(&self, pending: Pending) {
        let mut clients = lock(&self.pending);
        clients.retain(|client| !client.output.is_closed() || !client.task.is_closed());
        clients.push(pending);
    }

    pub fn take_pending(&self) -> Vec<Pending> {
        std::mem::take(&mut lock(&self.pending))
    }

    /// The running task.
    ///
    /// # Errors
    /// `Conflict` in Docker's words.
    pub fn running_task(&self) -> Result<Task> {
        self.live().map(|live| live.task).ok_or_else(|| Error::conflict(format!("container {} is not running", self.id)))
    }
}

/// All containers.
#[derive(Default)]
pub struct Registry {
    index: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Entry>>,
    /// Also names reserved by a create or rename under way.
    names: HashMap<String, String>,
}

impl Registry {
    /// # Errors
    /// When the records cannot be read.
    pub fn load(store: &Store) -> Result<Self> {
        let registry = Self::default();
        for (_, container) in store.metadata().read(|tx| tx.list(CONTAINERS))? {
            registry.reserve(&container.name, &container.id)?;
            registry.insert(Arc::new(Entry::new(container)));
        }
        Ok(registry)
    }

    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.read().by_id.values().cloned().collect()
    }

    /// By full id, then name, then unambiguous prefix.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for an ambiguous prefix.
    pub fn find(&self, wanted: &str) -> Result<Arc<Entry>> {
        let index = self.read();
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        if let Some(entry) = index.by_id.get(wanted).or_else(|| index.by_id.get(index.names.get(name)?)) {
            return Ok(Arc::clone(entry));
        }
        let missing = || Error::not_found(format!("No such container: {wanted}"));
        if wanted.is_empty() || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut matches = index.by_id.range(wanted.to_owned()..).take_while(|(id, _)| id.starts_with(wanted));
        match (matches.next(), matches.next()) {
            (Some((_, entry)), None) => Ok(Arc::clone(entry)),
            (Some(_), Some(_)) => Err(Error::invalid(format!("multiple IDs found with provided prefix: {wanted}"))),
            (None, _) => Err(missing()),
        }
    }

    /// Takes a name for an id.
    ///
    /// # Errors
    /// `Conflict` in Docker's words when another container has it.
    pub fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = index.names.get(name).filter(|holder| *holder != id) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        index.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    pub fn release(&self, name: &str, id: &str) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if index.names.get(name).is_some_and(|holder| holder == id) {
            index.names.remove(name);
        }
    }

    pub fn name_taken(&self, name: &str) -> bool {
        self.read().names.contains_key(name)
    }

    pub fn insert(&self, entry: Arc<Entry>) {
        self.index.write().unwrap_or_else(PoisonError::into_inner).by_id.insert(entry.id.clone(), entry);
    }

    pub fn remove(&self, id: &str) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.by_id.remove(id);
        index.names.retain(|_, holder| holder != id);
    }

    /// Volume name → ids of the containers that refer to it.
    pub fn volume_references(&self) -> BTreeMap<String, Vec<String>> {
        let mut references: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in self.all() {
            let container = entry.record();
            for mount in container.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
                references.entry(mount.name.clone()).or_default().push(container.id.clone());
            }
        }
        references
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }
}
