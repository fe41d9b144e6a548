//! The service: bundles, shims, tasks, events.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::{Message, Name};
use prost_types::Any;
use proto_containerd::events::{TaskDelete, TaskExit};
use proto_containerd::runc::v1::Options;
use proto_containerd::task::v3 as api;
use proto_containerd::types::{Envelope, Mount as WireMount};
use rcontainerd_types::{Error, Finding, Result, Severity};

use crate::bundle::{self, ShimRecord};
use crate::client::Client;
use crate::events::{self, EventHub, EventStream};
use crate::journal::{self, ShimJournal};
use crate::shim;
use crate::task::{Link, LinkParts, Registry, Task};
use crate::types::{CreateTask, ExitStatus, RuntimeOptions, TaskConfig, TaskKey};

/// One per manager; cheap to clone.
#[derive(Clone, Debug)]
pub struct TaskService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<TaskConfig>,
    hub: Arc<EventHub>,
    tasks: Arc<Registry>,
    events: tokio::task::JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.events.abort();
    }
}

impl TaskService {
    /// Makes the directories of STATE and listens for events on `STATE/rcontainerd.sock.ttrpc`.
    ///
    /// # Errors
    /// When a directory or the socket cannot be made.
    pub async fn open(config: TaskConfig) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        for (name, mode) in [("tasks", 0o711), ("s", 0o700), ("rrun", 0o700)] {
            let path = config.state_dir.join(name);
            let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(&path);
            made.map_err(|err| Error::io(format!("make {}", path.display()), err))?;
        }
        let hub = Arc::new(EventHub::new());
        let events = events::serve(&config.state_dir.join("rcontainerd.sock.ttrpc"), &hub)?;
        Ok(Self { inner: Arc::new(Inner { config: Arc::new(config), hub, tasks: Arc::default(), events }) })
    }

    /// `STATE/tasks/<ns>/<id>`.
    pub fn bundle_path(&self, key: &TaskKey) -> PathBuf {
        bundle::path_of(&self.inner.config.state_dir, key)
    }

    /// Makes the bundle directory (0711) with `rootfs/` and writes config.json.
    ///
    /// # Errors
    /// `AlreadyExists` when there is a bundle of that key.
    pub async fn create_bundle(&self, key: &TaskKey, config_json: &[u8]) -> Result<PathBuf> {
        bundle::create(&self.inner.config.state_dir, key, config_json)
    }

    /// Starts the shim, creates the container: its process exists and waits for `Task::start`. On failure nothing is left
    /// but the bundle as `create_bundle` made it; the runtime's own message is in the error.
    ///
    /// # Errors
    /// The runtime's or the shim's failure.
    pub async fn create(&self, request: CreateTask) -> Result<Task> {
        let bundle = self.bundle_path(&request.key);
        let shim = request.runtime.shim.clone().unwrap_or_else(|| self.inner.config.shim.clone());
        let launched = self.launch(&request, &bundle, &shim).await;
        let task = match launched {
            Ok(task) => task,
            Err(err) => {
                self.clear_away(&request.key, &bundle, &shim).await;
                return Err(err);
            }
        };
        self.tasks().insert(request.key, task.clone());
        Ok(task)
    }

    async fn launch(&self, request: &CreateTask, bundle: &Path, shim: &Path) -> Result<Task> {
        let journal = journal::follow(bundle, &request.key.id)?;
        ShimRecord::promised(shim.to_owned()).save(bundle)?;
        let endpoint = shim::start(&self.inner.config, shim, &request.key, bundle).await?;
        let record = ShimRecord::new(shim.to_owned(), endpoint.socket, endpoint.version);
        record.save(bundle)?;
        let client = Client::connect(&record.socket)
            .await
            .map_err(|err| Error::io(format!("connect to the shim at {}", record.socket.display()), err))?;
        let link = self.link(&request.key, bundle.to_owned(), record, client, journal);
        let created: Result<api::CreateTaskResponse> = link.call_slow("Create", &self.create_request(request, bundle)).await;
        match created {
            Ok(answer) => Ok(Task::new(link, answer.pid)),
            Err(err) => {
                link.abandon().await;
                Err(err)
            }
        }
    }

    /// After a failed launch: ends a shim that did not end when asked, with what it had made.
    async fn clear_away(&self, key: &TaskKey, bundle: &Path, shim: &Path) {
        match shim::end_leftovers(bundle, &key.id).await {
            Ok(0) => return,
            Ok(ended) => tracing::warn!(container = %key.id, shims = ended, "a shim that did not do its work was ended"),
            Err(err) => tracing::warn!(container = %key.id, %err, "end a shim that did not do its work"),
        }
        if let Err(err) = shim::delete(&self.inner.config, shim, key, bundle).await {
            tracing::warn!(container = %key.id, %err, "clean up after a shim");
        }
    }

    fn link(&self, key: &TaskKey, bundle: PathBuf, record: ShimRecord, client: Client, journal: ShimJournal) -> Link {
        let (config, registry) = (Arc::clone(&self.inner.config), Arc::downgrade(&self.inner.tasks));
        Link::new(LinkParts { config, registry, key: key.clone(), bundle, record, _journal: journal }, client)
    }

    fn create_request(&self, request: &CreateTask, bundle: &std::path::Path) -> api::CreateTaskRequest {
        let rootfs = request.rootfs.iter().map(|mount| WireMount {
            r#type: mount.fstype.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        });
        api::CreateTaskRequest {
            id: request.key.id.clone(),
            bundle: bundle.display().to_string(),
            rootfs: rootfs.collect(),
            terminal: request.terminal,
            stdin: request.stdio.stdin.clone(),
            stdout: request.stdio.stdout.clone(),
            stderr: request.stdio.stderr.clone(),
            checkpoint: String::new(),
            parent_checkpoint: String::new(),
            options: self.options(&request.runtime),
        }
    }

    /// What the shim is told of its runtime; nothing for a foreign shim that nobody gave options for.
    fn options(&self, runtime: &RuntimeOptions) -> Option<Any> {
        let kind = Kind::of(runtime.shim.as_deref());
        let given = match &runtime.raw {
            None if kind == Kind::Other && runtime.binary.is_none() => return None,
            None => stated(runtime),
            Some((type_url, value)) => match Options::decode(value.as_slice()) {
                Ok(options) if kind != Kind::Other && type_url.rsplit('/').next() == Some(Options::full_name().as_str()) => options,
                // The shim understands it, or tells what is wrong with it.
                _ => return Some(Any { type_url: type_url.clone(), value: value.clone() }),
            },
        };
        Some(Any { type_url: Options::full_name(), value: self.complete(given, runtime, kind).encode_to_vec() })
    }

    /// Fills what a shim should not have to guess: the runtime's binary, and a root of this manager that no two kinds of runtime share.
    fn complete(&self, mut options: Options, runtime: &RuntimeOptions, kind: Kind) -> Options {
        let config = &self.inner.config;
        if options.binary_name.is_empty() && kind == Kind::Ours {
            options.binary_name = runtime.binary.as_ref().unwrap_or(&config.runtime).display().to_string();
        }
        if options.root.is_empty() && kind != Kind::Other {
            let binary = if options.binary_name.is_empty() { "runc" } else { options.binary_name.as_str() };
            let foreign = Path::new(binary).file_name().filter(|name| Some(*name) != config.runtime.file_name());
            let own = || config.state_dir.join("rrun");
            options.root = foreign.map_or_else(own, |name| config.state_dir.join("runtimes").join(name)).display().to_string();
        }
        options
    }

    /// What a shim (`None`: ours) says of itself: an encoded `containerd.types.RuntimeInfo`; `options` as for `shim -info`.
    ///
    /// # Errors
    /// The shim's own words.
    pub async fn shim_info(&self, shim: Option<&Path>, options: &[u8]) -> Result<Vec<u8>> {
        let config = &self.inner.config;
        shim::info(config, shim.unwrap_or(&config.shim), options).await
    }

    /// A task that this manager created or reattached.
    pub fn get(&self, key: &TaskKey) -> Option<Task> {
        self.tasks().get(key).cloned()
    }

    /// Connects to the shim of a bundle that an earlier manager made; `None` when no shim answers any more (then
    /// [`Self::cleanup_dead`]).
    ///
    /// # Errors
    /// `NotFound` without a bundle.
    pub async fn reattach(&self, key: &TaskKey) -> Result<Option<Task>> {
        let bundle = self.bundle_path(key);
        if !bundle.is_dir() {
            return Err(Error::not_found(format!("no bundle {}", bundle.display())));
        }
        let Some(record) = ShimRecord::load(&bundle)? else { return Ok(None) };
        let Ok(client) = Client::connect(&record.socket).await else { return Ok(None) };
        let journal = journal::follow(&bundle, &key.id)?;
        let link = self.link(key, bundle, record, client, journal);
        let request = api::StateRequest { id: key.id.clone(), exec_id: String::new() };
        let state: api::StateResponse = match link.call("State", &request).await {
            Ok(state) => state,
            Err(err) if matches!(err.kind(), rcontainerd_types::ErrorKind::NotFound | rcontainerd_types::ErrorKind::Unavailable) => {
                // A shim whose container was deleted, or never created, by a manager that died then: of no use any more.
                link.abandon().await;
                return Ok(None);
            }
            Err(err) => return Err(err),
        };
        let task = Task::new(link, state.pid);
        self.tasks().insert(key.clone(), task.clone());
        Ok(Some(task))
    }

    /// For a bundle whose shim is gone: kills and deletes what is left by the shim's `delete` action, unmounts, removes the bundle;
    /// gives the status that was kept on disk, else unknown (255).
    ///
    /// # Errors
    /// When something could not be removed.
    pub async fn cleanup_dead(&self, key: &TaskKey) -> Result<ExitStatus> {
        let bundle = self.bundle_path(key);
        let kept = bundle::kept_exit(&bundle, None);
        if let Some(record) = ShimRecord::load(&bundle)? {
            // One that lives but answers nobody would only be in the way.
            shim::end_leftovers(&bundle, &key.id).await?;
            shim::delete(&self.inner.config, &record.shim, key, &bundle).await?;
        }
        self.tasks().remove(key);
        bundle::remove(&bundle)?;
        Ok(kept.unwrap_or_else(ExitStatus::unknown))
    }

    /// Removes the bundle of a task that was deleted (or never created).
    ///
    /// # Errors
    /// `Conflict` while something is mounted in it.
    pub async fn remove_bundle(&self, key: &TaskKey) -> Result<()> {
        self.tasks().remove(key);
        bundle::remove(&self.bundle_path(key))
    }

    /// Every bundle on disk, sorted.
    ///
    /// # Errors
    /// When STATE cannot be read.
    pub async fn list(&self) -> Result<Vec<TaskKey>> {
        bundle::list(&self.inner.config.state_dir)
    }

    /// Tells all subscribers of something that no shim tells. `event` is `(type_url, bytes)`; without a `time` it is now.
    pub fn publish(&self, namespace: &str, topic: &str, event: (String, Vec<u8>), time: Option<std::time::SystemTime>) {
        let event = Any { type_url: event.0, value: event.1 };
        let timestamp = time.unwrap_or_else(std::time::SystemTime::now).into();
        let envelope =
            Envelope { timestamp: Some(timestamp), namespace: namespace.to_owned(), topic: topic.to_owned(), event: Some(event) };
        self.inner.hub.publish(envelope);
    }

    /// Tells the end of a task in place of its dead shim: `/tasks/exit`, then `/tasks/delete`.
    pub fn publish_end(&self, key: &TaskKey, pid: u32, exit: &ExitStatus) {
        let exited_at = Some(exit.exited_at.into());
        let (container_id, exit_status) = (key.id.clone(), exit.code);
        let exited = TaskExit { id: key.id.clone(), container_id: container_id.clone(), pid, exit_status, exited_at };
        let deleted = TaskDelete { id: String::new(), container_id, pid, exit_status, exited_at };
        self.publish(&key.namespace, "/tasks/exit", (TaskExit::full_name(), exited.encode_to_vec()), None);
        self.publish(&key.namespace, "/tasks/delete", (TaskDelete::full_name(), deleted.encode_to_vec()), None);
    }

    pub fn subscribe(&self) -> EventStream {
        self.inner.hub.subscribe()
    }

    /// Whether shim and runtime are there and run.
    pub async fn check(&self) -> Vec<Finding> {
        let config = &self.inner.config;
        vec![program("shim", &config.shim, "-v").await, program("runtime", &config.runtime, "--version").await]
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, HashMap<TaskKey, Task>> {
        self.inner.tasks.lock()
    }
}

/// Whose options a shim takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    /// containerd's own for runc: the same options as ours.
    Runc,
    Other,
}

impl Kind {
    fn of(shim: Option<&Path>) -> Self {
        let Some(shim) = shim else { return Self::Ours };
        let name = shim.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.starts_with("containerd-shim-runc-") { Self::Runc } else { Self::Other }
    }
}

/// The options message that the manager's own words make.
fn stated(runtime: &RuntimeOptions) -> Options {
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    Options {
        no_pivot_root: runtime.no_pivot_root,
        io_uid: runtime.io_uid,
        io_gid: runtime.io_gid,
        binary_name: text(&runtime.binary),
        root: text(&runtime.root),
        systemd_cgroup: runtime.systemd_cgroup,
        ..Options::default()
    }
}

async fn program(role: &str, path: &std::path::Path, flag: &str) -> Finding {
    let output = tokio::process::Command::new(path).arg(flag).stdin(std::process::Stdio::null()).output().await;
    let (severity, observed) = match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            (Severity::Ok, format!("{}: {}", path.display(), text.split_whitespace().collect::<Vec<_>>().join(" ")))
        }
        Ok(output) => (Severity::Broken, format!("{} {flag}: {}", path.display(), output.status)),
        Err(err) => (Severity::Broken, format!("{}: {err}", path.display())),
    };
    let broken = severity == Severity::Broken;
    Finding {
        severity,
        subject: role.to_owned(),
        observed,
        cost: if broken { "no container can be started".to_owned() } else { String::new() },
        remedy: if broken { format!("install the {role} beside the manager, or name it in the configuration") } else { String::new() },
    }
}
