//! Start: network, files, bundle, shim, process. Steps with undo; the caller holds the container's operation lock.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_network::Attachment;
use rcontainerd_task::{AttachStream, CreateTask, Stdio, Task};
use rcontainerd_types::{Error, ErrorKind, Result};

use super::model::{Container, State, Status};
use super::network::{self, Connections};
use super::registry::{Entry, Live};
use super::runstate::RunState;
use super::{exit, health, joined, links, resolve, runstate, runtimes};
use crate::engine::{Engine, NAMESPACE, blocking, container_event, make_dir};
use crate::rootfs::{Rootfs, diagnose, users};
use crate::spec;

/// Name of the socket on which the shim gives the output to attached clients.
pub(super) const OUTPUT_SOCKET: &str = "out";
pub(super) const STDIN_FIFO: &str = "in";

pub(super) async fn start(engine: &Arc<Engine>, entry: &Arc<Entry>, console_size: Option<(u16, u16)>) -> Result<()> {
    startable(entry)?;
    match run(engine, entry, console_size, 0).await {
        Ok(()) => Ok(()),
        Err(err) => {
            let err = blame(explain(engine, entry, err).await);
            failed(engine, entry, &err).await;
            Err(err)
        }
    }
}

fn startable(entry: &Entry) -> Result<()> {
    match entry.view().state.status {
        Status::Created | Status::Exited | Status::Restarting => Ok(()),
        Status::Running => Err(Error::new(ErrorKind::NotModified, format!("container {} is already started", entry.id))),
        Status::Paused => Err(Error::conflict("cannot start a paused container, try unpause instead")),
        Status::Removing | Status::Dead => Err(Error::conflict("container is marked for removal and cannot be started")),
    }
}

/// Runs the container's process once; everything is undone on failure.
pub(super) async fn run(engine: &Arc<Engine>, entry: &Arc<Entry>, console_size: Option<(u16, u16)>, restarts: u32) -> Result<()> {
    // Whoever still reads the last run's root filesystem comes first: two mounts of one snapshot must not be.
    let _files = entry.files.write().await;
    let container = engine.record(entry).await?;
    let console_size = console_size.or(container.host_config.console_size);
    let mut state = RunState::new(container.state.run + 1, Timestamp::now());
    state.restart_count = restarts;
    let mut undo = Undo::new(engine, &container.id);
    let result = launch(engine, entry, &container, console_size, &mut state, &mut undo).await;
    match result {
        Ok(task) => {
            running(engine, entry, &state, &task);
            remember(engine, entry);
            health::watch(engine, entry, state.run, &container.config);
            exit::watch(engine, entry, state.run, task);
            links::tell(engine, &entry.id).await;
            Ok(())
        }
        Err(err) => {
            undo.roll_back().await;
            Err(err)
        }
    }
}

async fn launch(
    engine: &Arc<Engine>,
    entry: &Arc<Entry>,
    container: &Container,
    console_size: Option<(u16, u16)>,
    state: &mut RunState,
    undo: &mut Undo,
) -> Result<Task> {
    let run_dir = engine.run_dir(&container.id);
    undo.run_dir = true;
    prepare_run_dir(&run_dir, container)?;
    let shared = joined::find(engine, container)?;
    let joined = network::join(engine, container, state).await;
    undo.connections = state.connections();
    joined?;
    let (spec, rootfs) = bundle_parts(engine, container, console_size, state, shared).await?;
    let key = engine.task_key(&container.id);
    undo.bundle = true;
    engine.tasks.create_bundle(&key, &spec).await?;
    state.write(&run_dir)?;
    let stdio = stdio(engine, container, &run_dir).await?;
    let runtime = runtimes::options(engine, &container.host_config.runtime)?;
    let request = CreateTask { key, rootfs, stdio, terminal: container.config.tty, runtime };
    let task = engine.tasks.create(request).await?;
    undo.task = Some(task.clone());
    hand_out(entry, &run_dir, &task).await?;
    task.start(None).await?;
    Ok(task)
}

fn prepare_run_dir(dir: &Path, container: &Container) -> Result<()> {
    runstate::discard(dir)?;
    make_dir(dir, 0o700)?;
    if container.host_config.ipc_mode == "shareable" {
        runstate::share_memory(dir, container.host_config.shm_size)?;
    }
    if container.config.open_stdin {
        let fifo = dir.join(STDIN_FIFO);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
            .map_err(|err| Error::io(format!("make {}", fifo.display()), err.into()))?;
    }
    Ok(())
}

/// config.json and the mounts of the root filesystem.
async fn bundle_parts(
    engine: &Arc<Engine>,
    container: &Container,
    console_size: Option<(u16, u16)>,
    state: &RunState,
    shared: joined::Shared,
) -> Result<(Vec<u8>, Vec<rcontainerd_task::Mount>)> {
    let (engine, container, state) = (Arc::clone(engine), container.clone(), state.clone());
    blocking(move || {
        let snapshots = engine.store.snapshotter(NAMESPACE, &container.snapshotter)?;
        let mounts = snapshots.mounts(&container.snapshot_key)?;
        let rootfs = Rootfs::open(&snapshots.layer_dirs(&container.snapshot_key)?)?;
        let user = users::resolve(&rootfs, &container.config.user, &container.host_config.group_add)?;
        spec::propagation::check(&container.mounts)?;
        let mut container = container;
        let files = match &shared.network {
            // Who shares a network shares its names too.
            Some((_, other)) => {
                container.hostname.clone_from(&other.hostname);
                files_of(&engine, &other.id)
            }
            None => write_files(&engine, &container, &state.attachments)?,
        };
        container.config.env.splice(0..0, links::linked(&engine, &container)?.variables);
        let inputs = spec::Inputs {
            host: &engine.host,
            user: &user,
            netns: state.netns.as_deref().or(shared.network.as_ref().map(|(path, _)| path.as_path())),
            joined: shared.namespaces,
            cgroups_path: cgroups_path(&engine, &container)?,
            files,
            init: &engine.config.init,
            console_size,
        };
        let spec =
            serde_json::to_vec(&spec::build(&container, &inputs)?).map_err(|err| Error::internal(format!("encode config.json: {err}")))?;
        let mount = |mount: rcontainerd_store::Mount| rcontainerd_task::Mount {
            fstype: mount.fstype,
            source: mount.source,
            target: String::new(),
            options: mount.options,
        };
        Ok((spec, mounts.into_iter().map(mount).collect()))
    })
    .await
}

pub(super) fn cgroups_path(engine: &Engine, container: &Container) -> Result<String> {
    let parent = match container.host_config.resources.cgroup_parent.as_str() {
        "" => &engine.config.cgroup_parent,
        own => own,
    };
    if parent.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!("invalid cgroup parent {parent:?}: it must not contain '..'")));
    }
    Ok(format!("/{}/{}", parent.trim_matches('/'), container.id))
}

pub(super) fn files_of(engine: &Engine, id: &str) -> spec::Files {
    let dir = engine.container_dir(id);
    spec::Files { hosts: dir.join("hosts"), hostname: dir.join("hostname"), resolv_conf: dir.join("resolv.conf") }
}

/// /etc/hosts, /etc/hostname and /etc/resolv.conf as this run needs them.
pub(super) fn write_files(engine: &Engine, container: &Container, attachments: &[Attachment]) -> Result<spec::Files> {
    let shares_host = container.host_config.network_mode == "host";
    let files = files_of(engine, &container.id);
    let host_file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hosts = if shares_host && container.host_config.extra_hosts.is_empty() {
        host_file("/etc/hosts")
    } else {
        network::hosts(engine, container, attachments)?
    };
    let resolv_conf = network::resolv_conf(engine, container, attachments, &host_file("/etc/resolv.conf"))?;
    for (path, text) in [(&files.hosts, hosts), (&files.hostname, format!("{}\n", container.hostname)), (&files.resolv_conf, resolv_conf)] {
        std::fs::write(path, text).map_err(|err| Error::io(format!("write {}", path.display()), err))?;
    }
    Ok(files)
}

async fn stdio(engine: &Engine, container: &Container, run_dir: &Path) -> Result<Stdio> {
    let log = resolve::LogPlan::parse(&container.host_config.log_config)?;
    let output = log.uri(container, &super::logs::path(engine, &container.id), run_dir.join(OUTPUT_SOCKET)).await?.to_string();
    let stdin = if container.config.open_stdin { run_dir.join(STDIN_FIFO).to_string_lossy().into_owned() } else { String::new() };
    let stderr = if container.config.tty { String::new() } else { output.clone() };
    Ok(Stdio { stdin, stdout: output, stderr })
}

/// Connects the clients that attached before the start, so that they miss nothing.
async fn hand_out(entry: &Entry, run_dir: &Path, task: &Task) -> Result<()> {
    for client in entry.take_pending() {
        if client.output.is_closed() && client.task.is_closed() {
            continue;
        }
        let output = AttachStream::connect(&run_dir.join(OUTPUT_SOCKET)).await?;
        // The client may have gone away meanwhile, or wants one half only: then the other is dropped.
        drop(client.output.send(output));
        drop(client.task.send(task.clone()));
    }
    Ok(())
}

/// From here on the container is running for everybody.
fn running(engine: &Engine, entry: &Entry, state: &RunState, task: &Task) {
    let live = Live { task: task.clone(), run: state.run, connections: state.connections() };
    entry.set_live(Some(live));
    let container = entry.view();
    let mut events = network::events("connect", &container.id, &state.networks);
    events.push(container_event(&container, "start", &[]));
    engine.update_volatile(entry, events, |own| apply(own, state, task.pid()));
    entry.phase.send_modify(|phase| {
        phase.running = true;
        phase.error = None;
    });
}

/// Writes that it runs, so that a reboot finds it was; off the start's path, since STATE tells it to a new manager anyway. A container
/// that is removed at its end needs no such record.
fn remember(engine: &Arc<Engine>, entry: &Arc<Entry>) {
    if entry.view().host_config.auto_remove {
        return;
    }
    let (engine, entry) = (Arc::clone(engine), Arc::clone(entry));
    tokio::spawn(async move {
        if entry.phase.borrow().removed {
            return;
        }
        if let Err(err) = engine.rewrite(&entry).await {
            tracing::error!(container = entry.id, "record that it runs: {err}");
        }
    });
}

/// The record of a running container.
pub(super) fn apply(own: &mut State, state: &RunState, pid: u32) {
    own.status = Status::Running;
    own.pid = pid;
    own.exit_code = 0;
    own.error.clear();
    own.oom_killed = false;
    own.manually_stopped = false;
    own.started_at = Some(state.started_at);
    own.finished_at = None;
    own.restart_count = state.restart_count;
    own.networks.clone_from(&state.networks);
    own.ports.clone_from(&state.ports);
    own.run = state.run;
    own.health = None;
}

/// Adds what the image says about the program, in plain words.
async fn explain(engine: &Arc<Engine>, entry: &Arc<Entry>, err: Error) -> Error {
    let about_program = ["exec", "no such file", "permission denied", "executable file not found"];
    if !about_program.iter().any(|words| err.message().contains(words)) {
        return err;
    }
    let (engine, entry) = (Arc::clone(engine), Arc::clone(entry));
    let told = blocking(move || {
        let container = engine.record_now(&entry)?;
        let dirs = engine.store.snapshotter(NAMESPACE, &container.snapshotter)?.layer_dirs(&container.snapshot_key)?;
        Ok(diagnose::explain(&Rootfs::open(&dirs)?, &container.path, &container.config.env, &container.config.working_dir))
    });
    match told.await {
        Ok(Some(why)) => {
            let message = format!("{}: {why}", err.message());
            Error::new(err.kind(), message).with_source(err)
        }
        _ => err,
    }
}

/// A program that cannot be run is the request's fault, not ours.
pub(crate) fn blame(err: Error) -> Error {
    if err.message().contains("error mounting") && err.message().contains("not a directory") {
        let advice = "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";
        let message = format!("{}: {advice}", err.message());
        return Error::invalid(message).with_source(err);
    }
    match (err.kind(), exit_code_of(&err)) {
        (ErrorKind::Internal | ErrorKind::NotFound, 126 | 127) => err.with_kind(ErrorKind::InvalidArgument),
        _ => err,
    }
}

/// The shell's code for a program that could not be started: 127 not found, 126 not executable, 128 anything else.
pub(crate) fn exit_code_of(err: &Error) -> i64 {
    let message = err.message();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&[
        "executable file not found",
        "no such file or directory",
        "No such file or directory",
        "not in the image",
        "Are you trying to mount",
    ]) {
        127
    } else if has(&["permission denied", "Permission denied", "exec format error", "Exec format error", "not executable", "is a directory"])
    {
        126
    } else {
        128
    }
}

/// A start that failed leaves its reason and code; `--rm` removes the container.
async fn failed(engine: &Arc<Engine>, entry: &Arc<Entry>, err: &Error) {
    let (message, code) = (err.message().to_owned(), exit_code_of(err));
    drop(entry.take_pending());
    let recorded = engine.update(entry, Vec::new(), move |container| {
        container.state.error = message;
        container.state.exit_code = code;
        if container.state.status == Status::Restarting {
            container.state.status = Status::Exited;
        }
    });
    if let Err(err) = recorded.await {
        tracing::warn!(container = entry.id, "record a failed start: {err}");
    }
    entry.phase.send_modify(|phase| {
        phase.running = false;
        phase.exits += 1;
        // The start's caller is told why; to those who wait it is an end like any other.
        phase.exit_code = code;
    });
    if entry.view().host_config.auto_remove
        && let Err(err) = super::remove::discard(engine, entry, true).await
    {
        tracing::warn!(container = entry.id, "remove after a failed start: {err}");
    }
}

/// What a start has made so far.
struct Undo {
    engine: Arc<Engine>,
    id: String,
    run_dir: bool,
    bundle: bool,
    task: Option<Task>,
    connections: Connections,
}

impl Undo {
    fn new(engine: &Arc<Engine>, id: &str) -> Self {
        Self {
            engine: Arc::clone(engine),
            id: id.to_owned(),
            run_dir: false,
            bundle: false,
            task: None,
            connections: Connections::default(),
        }
    }

    /// Takes everything back, last first; failures are logged, the first error is the one told.
    async fn roll_back(self) {
        let key = self.engine.task_key(&self.id);
        let log = |what: &str, result: Result<()>| match result {
            Err(err) if err.kind() != ErrorKind::NotFound => tracing::warn!(container = self.id, "undo a failed start: {what}: {err}"),
            _ => {}
        };
        if let Some(task) = &self.task {
            log("kill", task.kill(None, crate::signal::KILL, true).await);
            if task.delete(None).await.is_err() {
                log("clean up", self.engine.tasks.cleanup_dead(&key).await.map(|_| ()));
            }
        }
        if self.bundle {
            log("remove the bundle", self.engine.tasks.remove_bundle(&key).await);
        }
        log("disconnect", network::release(&self.engine, &self.id, self.connections.clone()).await);
        if self.run_dir {
            log("remove run files", runstate::discard(&self.engine.run_dir(&self.id)));
        }
    }
}
