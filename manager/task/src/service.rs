//! The service: bundles, shims, tasks, events.

use std::path::PathBuf;

use rcontainerd_types::{Error, Finding, Result};

use crate::task::Task;
use crate::types::{CreateTask, ExitStatus, TaskConfig, TaskEvent, TaskKey};

/// One per manager; cheap to clone.
#[derive(Clone, Debug)]
pub struct TaskService {
    config: std::sync::Arc<TaskConfig>,
}

/// Receives every event from the moment of `subscribe`.
#[derive(Debug)]
pub struct EventStream {}

/// What [`EventStream::next`] gives.
#[derive(Debug)]
pub enum EventItem {
    Event(TaskEvent),
    /// The receiver was too slow and so many events were dropped: look at the tasks' states.
    Lagged(u64),
}

impl EventStream {
    /// `None` once the service is gone.
    pub async fn next(&mut self) -> Option<EventItem> {
        None
    }
}

fn unwired<T>(what: &str) -> Result<T> {
    Err(Error::unsupported(format!("{what}: not wired yet")))
}

impl TaskService {
    /// Makes the directories of STATE and listens for events on `STATE/rcontainerd.sock.ttrpc`.
    ///
    /// # Errors
    /// When a directory or the socket cannot be made.
    pub async fn open(config: TaskConfig) -> Result<Self> {
        Ok(Self { config: std::sync::Arc::new(config) })
    }

    /// `STATE/tasks/<ns>/<id>`.
    pub fn bundle_path(&self, key: &TaskKey) -> PathBuf {
        self.config.state_dir.join("tasks").join(&key.namespace).join(&key.id)
    }

    /// Makes the bundle directory (0711) with `rootfs/` and writes config.json.
    ///
    /// # Errors
    /// `AlreadyExists` when there is a bundle of that key.
    pub async fn create_bundle(&self, key: &TaskKey, config_json: &[u8]) -> Result<PathBuf> {
        let _ = (key, config_json);
        unwired("create_bundle")
    }

    /// Starts the shim, creates the container: its process exists and waits for `Task::start`. On failure nothing is left
    /// but the bundle as `create_bundle` made it; the runtime's own message is in the error.
    ///
    /// # Errors
    /// The runtime's or the shim's failure.
    pub async fn create(&self, request: CreateTask) -> Result<Task> {
        let _ = request;
        unwired("create")
    }

    /// Connects to the shim of a bundle that an earlier manager made; `None` when no shim answers any more (then
    /// [`Self::cleanup_dead`]).
    ///
    /// # Errors
    /// `NotFound` without a bundle.
    pub async fn reattach(&self, key: &TaskKey) -> Result<Option<Task>> {
        let _ = key;
        unwired("reattach")
    }

    /// For a bundle whose shim is gone: kills and deletes what is left by the shim's `delete` action, unmounts, removes the bundle;
    /// gives the status that was kept on disk, else unknown (255).
    ///
    /// # Errors
    /// When something could not be removed.
    pub async fn cleanup_dead(&self, key: &TaskKey) -> Result<ExitStatus> {
        let _ = key;
        unwired("cleanup_dead")
    }

    /// Removes the bundle of a task that was deleted (or never created).
    ///
    /// # Errors
    /// `Conflict` while something is mounted in it.
    pub async fn remove_bundle(&self, key: &TaskKey) -> Result<()> {
        let _ = key;
        unwired("remove_bundle")
    }

    /// Every bundle on disk, sorted.
    ///
    /// # Errors
    /// When STATE cannot be read.
    pub async fn list(&self) -> Result<Vec<TaskKey>> {
        unwired("list")
    }

    pub fn subscribe(&self) -> EventStream {
        EventStream {}
    }

    /// Whether shim and runtime are there and run.
    pub async fn check(&self) -> Vec<Finding> {
        Vec::new()
    }
}
