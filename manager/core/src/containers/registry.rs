//! The containers in memory: found by id, prefix or name; each with its locks.
//!
//! Order of locks: `Entry::operation` (async; one start, removal, rename, pause … at a time) → `Entry::files` → `Entry::writing` (one change of the record at
//! a time, held over its transaction) → the record, the live part, the index (momentary, none held over another). Stop, kill, attach, exec and
//! the readers take no `operation` while they wait for the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rcontainerd_store::Store;
use rcontainerd_store::metadata::Table;
use rcontainerd_task::{AttachStream, Task};
use rcontainerd_types::{Error, Result};
use tokio::sync::{oneshot, watch};

use super::model::{Container, MountKind, State};
use super::network::Connections;
use super::outline::{OUTLINES, Outline};

pub(crate) const CONTAINERS: Table<Container> = Table::new("docker.containers", 1);

/// One container in memory.
pub struct Entry {
    pub id: String,
    /// One operation that changes what it is at a time.
    pub operation: tokio::sync::Mutex<()>,
    /// Held shared by who reads the mounted root filesystem, alone by who mounts or removes it.
    pub files: tokio::sync::RwLock<()>,
    writing: Mutex<()>,
    outline: Mutex<Arc<Outline>>,
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
    pub connections: Connections,
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
    /// Why the last attempt to remove it failed.
    pub removal_failed: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    pub fn new(outline: Outline) -> Self {
        let phase = Phase { running: false, exit_code: outline.state.exit_code, ..Phase::default() };
        Self {
            id: outline.id.clone(),
            operation: tokio::sync::Mutex::default(),
            files: tokio::sync::RwLock::default(),
            writing: Mutex::default(),
            outline: Mutex::new(Arc::new(outline)),
            live: Mutex::default(),
            phase: watch::Sender::new(phase),
            pending: Mutex::default(),
        }
    }

    /// What is in memory of it, as it is now. The whole record: [`crate::engine::Engine::record`].
    pub fn view(&self) -> Arc<Outline> {
        Arc::clone(&lock(&self.outline))
    }

    pub fn set_outline(&self, outline: Outline) {
        *lock(&self.outline) = Arc::new(outline);
    }

    /// Changes the state in memory; called while [`Self::writing`] is held.
    pub fn change_state(&self, change: impl FnOnce(&mut State)) {
        change(&mut Arc::make_mut(&mut lock(&self.outline)).state);
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

    /// Puts in a changed live part, unless that run has ended meanwhile.
    pub fn replace_live(&self, changed: Live) {
        let mut live = lock(&self.live);
        if live.as_ref().is_some_and(|live| live.run == changed.run) {
            *live = Some(changed);
        }
    }

    pub fn add_pending(&self, pending: Pending) {
        let mut clients = lock(&self.pending);
        clients.retain(|client| !client.output.is_closed() || !client.task.is_closed());
        clients.push(pending);
    }

    pub fn take_pending(&self) -> Vec<Pending> {
        std::mem::take(&mut lock(&self.pending))
    }

    /// The live part, after a start under way: what the process prints is seen, and answered by a signal, before its start has been told.
    pub async fn live_once_started(&self) -> Option<Live> {
        if let Some(live) = self.live() {
            return Some(live);
        }
        drop(self.operation.lock().await);
        self.live()
    }

    /// The running task; a start under way is waited for.
    ///
    /// # Errors
    /// `Conflict` in Docker's words.
    pub async fn task_once_started(&self) -> Result<Task> {
        self.live_once_started().await.map(|live| live.task).ok_or_else(|| self.not_running())
    }

    /// The running task.
    ///
    /// # Errors
    /// `Conflict` in Docker's words.
    pub fn running_task(&self) -> Result<Task> {
        self.live().map(|live| live.task).ok_or_else(|| self.not_running())
    }

    fn not_running(&self) -> Error {
        Error::conflict(format!("container {} is not running", self.id))
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
    /// Those made from an image, by its id; a container is never another image's.
    by_image: HashMap<String, BTreeSet<String>>,
}

impl Index {
    /// The first of those whose id begins so.
    fn starting_with(&self, start: &str) -> Option<&Arc<Entry>> {
        let from = (std::ops::Bound::Included(start), std::ops::Bound::Unbounded);
        self.by_id.range::<str, _>(from).next().filter(|(id, _)| id.starts_with(start)).map(|(_, entry)| entry)
    }
}

impl Registry {
    /// # Errors
    /// When the records cannot be read.
    pub fn load(store: &Store) -> Result<Self> {
        let registry = Self::default();
        for (_, outline) in store.metadata().read(|tx| tx.list(OUTLINES))? {
            registry.reserve(&outline.name, &outline.id)?;
            registry.insert(Arc::new(Entry::new(outline)));
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

    /// By id or the start of one.
    pub fn find_id(&self, start: &str) -> Option<Arc<Entry>> {
        self.read().starting_with(start).map(Arc::clone)
    }

    /// Those made from the image with that id.
    pub fn made_from(&self, image_id: &str) -> Vec<Arc<Entry>> {
        let index = self.read();
        let ids = index.by_image.get(image_id).into_iter().flatten();
        ids.filter_map(|id| index.by_id.get(id)).map(Arc::clone).collect()
    }

    /// Whether a container was made from the image with that id.
    pub fn uses(&self, image_id: &str) -> bool {
        self.read().by_image.contains_key(image_id)
    }

    /// Whether a container with this id, or start of one, is there or being made.
    pub fn is_promised(&self, start: &str) -> bool {
        let index = self.read();
        // Only of what is just being made there is a name alone: a walk over all of them is for what is nobody's.
        index.starting_with(start).is_some() || index.names.values().any(|id| id.starts_with(start))
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
        let image = entry.view().image_id.clone();
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.by_image.entry(image).or_default().insert(entry.id.clone());
        index.by_id.insert(entry.id.clone(), entry);
    }

    pub fn remove(&self, id: &str) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = index.by_id.remove(id).map(|entry| entry.view().image_id.clone())
            && let Some(ids) = index.by_image.get_mut(&image)
        {
            ids.remove(id);
            if ids.is_empty() {
                index.by_image.remove(&image);
            }
        }
        index.names.retain(|_, holder| holder != id);
    }

    /// Volume name → ids of the containers that refer to it.
    pub fn volume_references(&self) -> BTreeMap<String, Vec<String>> {
        let mut references: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in self.all() {
            let container = entry.view();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, image: &str) -> Arc<Entry> {
        let record = serde_json::json!({
            "id": id, "name": id, "created": "2026-01-01T00:00:00Z", "image_id": image, "platform": "linux/amd64", "config": {},
            "host_config": {}, "path": "true", "args": [], "snapshot_key": id, "snapshotter": "native", "hostname": id, "state": {}
        });
        Arc::new(Entry::new(serde_json::from_value(record).expect("a record")))
    }

    #[test]
    fn containers_are_found_by_their_image_as_long_as_they_are_there() {
        let registry = Registry::default();
        for (id, image) in [("a1", "x"), ("a2", "y"), ("a3", "x")] {
            registry.insert(entry(id, image));
        }
        let made_from = |image| registry.made_from(image).iter().map(|entry| entry.id.clone()).collect::<Vec<_>>();
        assert_eq!((made_from("x"), made_from("y"), made_from("z")), (vec!["a1".into(), "a3".into()], vec!["a2".into()], vec![]));
        registry.remove("a1");
        registry.remove("a2");
        assert_eq!((made_from("x"), registry.uses("x"), registry.uses("y")), (vec!["a3".into()], true, false));
        registry.remove("a2");
        assert!(registry.uses("x"));
    }

    #[test]
    fn what_is_there_or_being_made_is_promised() {
        let registry = Registry::default();
        registry.insert(entry("abcd", "x"));
        registry.reserve("coming", "beef").expect("a free name");
        assert!(registry.is_promised("abcd") && registry.is_promised("ab") && registry.is_promised("bee"));
        assert!(!registry.is_promised("abcde") && !registry.is_promised("b0"));
        assert_eq!(registry.find_id("ab").map(|entry| entry.id.clone()), Some("abcd".to_owned()));
    }

    #[test]
    fn readers_share_a_record_until_it_changes() {
        let entry = entry("a", "x");
        let before = entry.view();
        assert!(Arc::ptr_eq(&before, &entry.view()), "nothing is copied for a list");
        entry.set_outline(Outline { name: "new".into(), ..Outline::clone(&before) });
        assert_eq!((before.name.as_str(), entry.view().name.as_str()), ("a", "new"));
    }
}
