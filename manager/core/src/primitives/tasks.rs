//! Tasks of containers that a client keeps itself (every namespace but Docker's): containerd's semantics over the task service.
//!
//! A record in the container store says what runs (`spec`) and by which shim (`runtime`); a task exists while its bundle does. Whoever
//! made a task deletes it; a shim that dies is cleaned up after and its end told, as no client may ever do that.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rcontainerd_store::Store;
use rcontainerd_store::records::{AnyValue, ContainerRecord};
use rcontainerd_task::{ExecProcess, ExitStatus, Mount, ProcessState, RuntimeOptions, Stdio, Task, TaskKey, TaskService};
use rcontainerd_types::{Error, ErrorKind, Result};
use tokio_util::sync::CancellationToken;

use crate::engine::{NAMESPACE, RuntimeConfig, blocking, owned};

/// Names of runtimes that stand for our own shim unless the configuration says otherwise: clients name one of these when their user
/// named none.
const OURS: [&str; 3] = ["io.containerd.rrun.v2", "io.containerd.runc.v2", "io.containerd.runc.v1"];

/// Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    tasks: TaskService,
    runtimes: BTreeMap<String, RuntimeConfig>,
    closing: CancellationToken,
    /// One creation or deletion of a task at a time.
    operations: Mutex<HashMap<TaskKey, Weak<tokio::sync::Mutex<()>>>>,
}

/// `create` of the main process of a container that has a record.
#[derive(Clone, Debug)]
pub struct CreateTask {
    pub key: TaskKey,
    pub rootfs: Vec<Mount>,
    pub stdio: Stdio,
    pub terminal: bool,
    /// For the shim; in place of the record's.
    pub options: Option<AnyValue>,
    /// Path of a shim, in place of the record's runtime; empty for none.
    pub runtime_path: String,
}

/// What is known of a process that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Host pid that it had.
    pub pid: u32,
    pub exit: ExitStatus,
}

impl Tasks {
    /// Takes up the tasks that an earlier manager left, and cleans up after those whose shim is gone.
    ///
    /// # Errors
    /// When STATE cannot be read. Problems of single tasks are logged.
    pub(crate) async fn open(
        store: Store,
        tasks: TaskService,
        runtimes: BTreeMap<String, RuntimeConfig>,
        closing: CancellationToken,
    ) -> Result<Self> {
        let inner = Arc::new(Inner { store, tasks, runtimes, closing, operations: Mutex::default() });
        let keys = inner.tasks.list().await?.into_iter().filter(|key| key.namespace != NAMESPACE);
        futures_util::future::join_all(keys.map(|key| inner.take_up(key))).await;
        Ok(Self { inner })
    }

    /// The task, connected to anew if this manager has not met it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, key: &TaskKey) -> Result<Task> {
        self.inner.tasks.get(key).ok_or_else(|| Error::not_found(format!("task {} not found", key.id)))
    }

    /// All tasks of a namespace with their states, by id. One that ends just now is no longer among them.
    ///
    /// # Errors
    /// When STATE cannot be read.
    pub async fn list(&self, namespace: &str) -> Result<Vec<(Task, ProcessState)>> {
        let keys = self.inner.tasks.list().await?.into_iter().filter(|key| key.namespace == namespace);
        let tasks = keys.filter_map(|key| self.inner.tasks.get(&key));
        let states = tasks.map(|task| async move { task.state(None).await.ok().map(|state| (task, state)) });
        Ok(futures_util::future::join_all(states).await.into_iter().flatten().collect())
    }

    /// Makes the container's process, which waits for its start. On failure nothing is left.
    ///
    /// # Errors
    /// `NotFound` without a record, `AlreadyExists` for a second task, `InvalidArgument` for a record without spec or an unknown
    /// runtime; else the runtime's own words.
    pub async fn create(&self, request: CreateTask) -> Result<Task> {
        refuse_docker(&request.key)?;
        let inner = Arc::clone(&self.inner);
        owned(async move { inner.create(request).await }).await
    }

    /// What the shim behind a runtime's name says of itself: an encoded `containerd.types.RuntimeInfo`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown runtime; the shim's own words.
    pub async fn runtime_info(&self, name: &str, options: &[u8]) -> Result<Vec<u8>> {
        let RuntimeConfig { shim, .. } = named(name, &self.inner.runtimes)?;
        self.inner.tasks.shim_info(shim.as_deref(), options).await
    }

    /// Adds a process beside the main one; `Task::start` runs it.
    ///
    /// # Errors
    /// `InvalidArgument` without a name; `AlreadyExists` for one in use.
    pub async fn exec(&self, key: &TaskKey, process: ExecProcess) -> Result<()> {
        if process.exec_id.is_empty() {
            return Err(Error::invalid("exec id cannot be empty"));
        }
        self.get(key).await?.exec(process).await
    }

    /// Deletes an ended (or never started) task: container, mounts, shim and bundle.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it runs.
    pub async fn delete(&self, key: &TaskKey) -> Result<Deleted> {
        refuse_docker(key)?;
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        owned(async move { inner.delete(&key).await }).await
    }

    /// Deletes an ended process that [`Self::exec`] added.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it runs.
    pub async fn delete_process(&self, key: &TaskKey, exec_id: &str) -> Result<Deleted> {
        if exec_id.is_empty() {
            return Err(Error::invalid("exec id cannot be empty"));
        }
        let task = self.get(key).await?;
        let pid = task.state(Some(exec_id)).await?.pid;
        Ok(Deleted { pid, exit: task.delete(Some(exec_id)).await? })
    }
}

/// Docker's containers have records of their own above their tasks: both views would break.
fn refuse_docker(key: &TaskKey) -> Result<()> {
    if key.namespace == NAMESPACE {
        return Err(Error::conflict(format!(
            "namespace {NAMESPACE:?} belongs to the Docker API: use it to start and remove container {}",
            key.id
        )));
    }
    Ok(())
}

impl Inner {
    fn operation(&self, key: &TaskKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = operations.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        operations.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::default());
        operations.insert(key.clone(), Arc::downgrade(&lock));
        lock
    }

    async fn create(self: Arc<Self>, request: CreateTask) -> Result<Task> {
        let key = request.key.clone();
        let operation = self.operation(&key);
        let _alone = operation.lock().await;
        if self.tasks.get(&key).is_some() {
            return Err(Error::already_exists(format!("task {} already exists", key.id)));
        }
        let record = self.record(&key).await?;
        let spec = record.spec.clone().filter(|spec| !spec.value.is_empty());
        let spec = spec.ok_or_else(|| Error::invalid(format!("container {} has no spec to run", key.id)))?;
        let runtime = self.runtime(&record, &request)?;
        self.tasks.create_bundle(&key, &spec.value).await?;
        let CreateTask { rootfs, stdio, terminal, .. } = request;
        let created = self.tasks.create(rcontainerd_task::CreateTask { key: key.clone(), rootfs, stdio, terminal, runtime }).await;
        match &created {
            Ok(task) => self.watch(task.clone()),
            Err(_) => self.undo(&key).await,
        }
        created
    }

    async fn record(self: &Arc<Self>, key: &TaskKey) -> Result<ContainerRecord> {
        let (inner, key) = (Arc::clone(self), key.clone());
        blocking(move || inner.store.containers(&key.namespace).get(&key.id)).await
    }

    async fn undo(&self, key: &TaskKey) {
        if let Err(err) = self.tasks.remove_bundle(key).await {
            tracing::warn!(namespace = key.namespace, task = key.id, "undo a failed create: {err}");
        }
    }

    fn runtime(&self, record: &ContainerRecord, request: &CreateTask) -> Result<RuntimeOptions> {
        let name = if request.runtime_path.is_empty() { &record.runtime_name } else { &request.runtime_path };
        let options = request.options.clone().filter(|options| !options.type_url.is_empty()).or_else(|| record.runtime_options.clone());
        let raw = options.filter(|options| !options.type_url.is_empty()).map(|options| (options.type_url, options.value));
        let RuntimeConfig { binary, shim } = named(name, &self.runtimes)?;
        Ok(RuntimeOptions { shim, binary, raw, ..RuntimeOptions::default() })
    }

    async fn delete(&self, key: &TaskKey) -> Result<Deleted> {
        let operation = self.operation(key);
        let _alone = operation.lock().await;
        let task = self.tasks.get(key).ok_or_else(|| Error::not_found(format!("task {} not found", key.id)))?;
        let pid = task.pid();
        match task.delete(None).await {
            Ok(exit) => Ok(Deleted { pid, exit }),
            Err(err) if err.kind() == ErrorKind::Unavailable || task.is_gone().await => {
                Ok(Deleted { pid, exit: self.clean_up(key).await? })
            }
            Err(err) => Err(err),
        }
    }

    async fn take_up(self: &Arc<Self>, key: TaskKey) {
        let operation = self.operation(&key);
        let _alone = operation.lock().await;
        let taken = match self.tasks.reattach(&key).await {
            Ok(Some(task)) => {
                self.watch(task);
                Ok(())
            }
            Ok(None) => self.clean_up(&key).await.map(drop),
            Err(err) => Err(err),
        };
        if let Err(err) = taken {
            tracing::warn!(namespace = key.namespace, task = key.id, "take up: {err}");
        }
    }

    /// Cleans up when the shim dies.
    fn watch(self: &Arc<Self>, task: Task) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            if inner.closing.run_until_cancelled(task.gone()).await.is_none() {
                return;
            }
            let key = task.key();
            let operation = inner.operation(key);
            let _alone = operation.lock().await;
            // Its shim ends with every task that is deleted, too; and a later task may have the name already.
            if inner.tasks.get(key).is_none_or(|now| !now.same(&task)) {
                return;
            }
            tracing::warn!(namespace = key.namespace, task = key.id, "its shim is gone");
            if let Err(err) = inner.clean_up(key).await {
                tracing::warn!(namespace = key.namespace, task = key.id, "clean up after its shim: {err}");
            }
        });
    }

    /// Removes what a dead shim left and tells the end in its place.
    async fn clean_up(&self, key: &TaskKey) -> Result<ExitStatus> {
        let pid = self.tasks.get(key).map_or(0, |task| task.pid());
        let exit = self.tasks.cleanup_dead(key).await?;
        self.tasks.publish_end(key, pid, &exit);
        Ok(exit)
    }
}

/// What a runtime's name stands for.
fn named(name: &str, configured: &BTreeMap<String, RuntimeConfig>) -> Result<RuntimeConfig> {
    if let Some(runtime) = configured.get(name) {
        return Ok(runtime.clone());
    }
    if OURS.contains(&name) {
        return Ok(RuntimeConfig::default());
    }
    let path = Path::new(name);
    if path.is_absolute() && !path.is_file() {
        return Err(Error::invalid(format!("runtime {name:?} is no file: name a shim's binary, or install it there")));
    }
    let shim = if path.is_absolute() { path.to_owned() } else { installed(name)? };
    Ok(RuntimeConfig { shim: Some(shim), binary: None })
}

fn installed(name: &str) -> Result<PathBuf> {
    let binary = binary_name(name).ok_or_else(|| {
        Error::invalid(format!("runtime name {name:?} is invalid: expected a form like io.containerd.runc.v2, or a shim's absolute path"))
    })?;
    find(&binary).ok_or_else(|| {
        Error::invalid(format!("runtime {name:?}: {binary} is neither beside rcontainerd nor on PATH: install it, or configure its shim"))
    })
}

/// containerd's convention: `io.containerd.runc.v2` is served by `containerd-shim-runc-v2`.
fn binary_name(runtime: &str) -> Option<String> {
    let mut parts = runtime.rsplit('.');
    let (version, name) = (parts.next()?, parts.next()?);
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    (plain(version) && plain(name)).then(|| format!("containerd-shim-{name}-{version}"))
}

fn find(binary: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(binary)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join(binary))).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_clients_use_are_ours_unless_configured() {
        let none = BTreeMap::new();
        for name in OURS {
            assert_eq!(named(name, &none).expect("ours"), RuntimeConfig::default(), "{name}");
        }
        let foreign = RuntimeConfig { shim: Some("/opt/shim".into()), binary: None };
        let configured = BTreeMap::from([("io.containerd.runc.v2".to_owned(), foreign.clone())]);
        assert_eq!(named("io.containerd.runc.v2", &configured).expect("configured"), foreign);
        assert_eq!(named("/bin/sh", &none).expect("a path").shim, Some("/bin/sh".into()));
    }

    #[test]
    fn other_names_are_looked_for_and_never_guessed() {
        assert_eq!(binary_name("io.containerd.kata.v2").as_deref(), Some("containerd-shim-kata-v2"));
        for bad in ["", "runc", "a./../x.v1", "io.containerd..v2"] {
            assert_eq!(binary_name(bad), None, "{bad:?}");
            assert_eq!(named(bad, &BTreeMap::new()).expect_err("refused").kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
        let err = named("io.containerd.no-such-thing.v9", &BTreeMap::new()).expect_err("not installed");
        assert!(err.message().contains("containerd-shim-no-such-thing-v9 is neither"), "{err}");
        assert!(named("/no/such/shim", &BTreeMap::new()).is_err());
    }
}
