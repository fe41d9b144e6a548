//! The exec service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;
use rcontainerd_task::{ExecProcess, Fifos, ProcessPipes, Stdio, Task};
use rcontainerd_types::{Error, ErrorKind, Result, id};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::table::ExecEntry;
use super::{CreateExec, Exec, ResizeExec, StartExec};
use crate::containers::registry::Entry;
use crate::containers::{Status, links, start as starting, stop};
use crate::engine::{Engine, NAMESPACE, blocking, container_event, owned};
use crate::io::{Output, OutputKind, OutputStream, ProcessIo};
use crate::rootfs::{Rootfs, diagnose, users};
use crate::spec;
use crate::stdin::InputWriter;

/// Bytes read from a process in one go.
const CHUNK: usize = 32 << 10;

/// How long a resize waits for the start that its client has asked for beside it, as dockerd's does.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Cheap to clone.
#[derive(Clone)]
pub struct Execs {
    engine: Arc<Engine>,
}

impl Execs {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Gives the exec's id.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the container does not run or is paused.
    pub async fn create(&self, command: CreateExec) -> Result<String> {
        let entry = self.engine.registry.find(&command.container)?;
        runnable(&entry).await?;
        if command.cmd.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        let id = id::generate()?;
        let event = container_event(&entry.view(), format!("exec_create: {}", command.cmd.join(" ")), &[("execID", id.clone())]);
        let exec = Exec {
            id: id.clone(),
            container_id: entry.id.clone(),
            created: Timestamp::now(),
            running: false,
            exit_code: None,
            start_failed: false,
            pid: 0,
            request: command,
        };
        self.engine.execs.insert(exec);
        self.engine.events.announce(event);
        Ok(id)
    }

    /// `None` when detached.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it ran already; the runtime's message with the cause in plain words.
    pub async fn start(&self, command: StartExec) -> Result<Option<ProcessIo>> {
        let exec = self.engine.execs.find(&command.id)?;
        let entry = self.engine.registry.find(&exec.record().container_id)?;
        let task = runnable(&entry).await?;
        exec.claim()?;
        let engine = Arc::clone(&self.engine);
        owned(async move {
            let started = start(&engine, &entry, &exec, task, &command).await;
            if let Err(err) = &started {
                let code = starting::exit_code_of(err);
                exec.change(|exec| {
                    exec.exit_code = Some(if code == 127 { 127 } else { 126 });
                    exec.start_failed = true;
                });
            }
            started
        })
        .await
    }

    /// # Errors
    /// `NotFound`.
    pub async fn inspect(&self, id: &str) -> Result<Exec> {
        Ok(self.engine.execs.find(id)?.record())
    }

    /// # Errors
    /// `NotFound`; `Conflict` without a terminal or when it has ended; `Unavailable` when it is not started.
    pub async fn resize(&self, command: ResizeExec) -> Result<()> {
        let exec = self.engine.execs.find(&command.id)?;
        // Clients tell the size right behind the request to start, on another connection; docker 20.10 gives up after 150 ms.
        let begun = tokio::time::timeout(START_PATIENCE, exec.until(|exec| exec.running || exec.exit_code.is_some())).await;
        let Ok(exec) = begun else {
            return Err(Error::new(ErrorKind::Unavailable, format!("timeout waiting for exec {} to be started", command.id)));
        };
        if !exec.request.tty || !exec.running {
            return Err(Error::conflict(format!("exec {} has no terminal or has ended", exec.id)));
        }
        let entry = self.engine.registry.find(&exec.container_id)?;
        let task = entry.running_task()?;
        let resized = task.resize(Some(&exec.id), command.columns.into(), command.rows.into()).await;
        stop::unless_ended(&entry, &task, resized).await
    }
}

async fn runnable(entry: &Entry) -> Result<Task> {
    match entry.view().state.status {
        Status::Paused => Err(Error::conflict(format!("Container {} is paused, unpause the container before exec", entry.id))),
        Status::Restarting => Err(Error::conflict(format!("Container {} is restarting, wait until the container is running", entry.id))),
        _ => entry.task_once_started().await,
    }
}

async fn start(
    engine: &Arc<Engine>,
    entry: &Arc<Entry>,
    exec: &Arc<ExecEntry>,
    task: Task,
    command: &StartExec,
) -> Result<Option<ProcessIo>> {
    let record = exec.record();
    let request = CreateExec { console_size: command.console_size.or(record.request.console_size), ..record.request.clone() };
    let fifos = if command.detach { None } else { Some(make_fifos(engine, entry, &record.id, &request)?) };
    let pipes = fifos.as_ref().map(Fifos::open).transpose()?;
    let stdio = fifos.as_ref().map_or_else(Stdio::default, |fifos| fifos.stdio().clone());
    let process_json = process(engine, entry, &request).await?;
    let process = ExecProcess { exec_id: record.id.clone(), process_json, terminal: request.tty, stdio };
    let launched = async {
        task.exec(process).await?;
        task.start(Some(&record.id)).await
    };
    let pid = match launched.await {
        Ok(pid) => pid,
        Err(err) => {
            let err = match stop::explained_by_end(entry, &task, err).await {
                Ok(told) => told,
                Err(err) => starting::blame(explain(engine, entry, &request, err).await),
            };
            // The shim may not know it at all by now.
            drop(task.delete(Some(&record.id)).await);
            return Err(err);
        }
    };
    exec.change(|exec| {
        exec.pid = pid;
        exec.running = true;
    });
    let action = format!("exec_start: {}", request.cmd.join(" "));
    engine.events.announce(container_event(&entry.view(), action, &[("execID", record.id.clone())]));
    follow(engine, entry, exec, task.clone());
    Ok(pipes.map(|pipes| streams(exec, pipes, &request, task)))
}

fn make_fifos(engine: &Engine, entry: &Entry, id: &str, request: &CreateExec) -> Result<Fifos> {
    let stderr = request.attach_stderr && !request.tty;
    Fifos::create(&engine.run_dir(&entry.id), &id[..16], request.attach_stdin, request.attach_stdout || request.tty, stderr)
}

async fn process(engine: &Arc<Engine>, entry: &Arc<Entry>, request: &CreateExec) -> Result<Vec<u8>> {
    let (engine, entry, request) = (Arc::clone(engine), Arc::clone(entry), request.clone());
    blocking(move || {
        let mut container = engine.record_now(&entry)?;
        let dirs = engine.store.snapshotter(NAMESPACE, &container.snapshotter)?.layer_dirs(&container.snapshot_key)?;
        let user = if request.user.is_empty() { &container.config.user } else { &request.user };
        let user = users::resolve(&Rootfs::open(&dirs)?, user, &container.host_config.group_add)?;
        let variables = links::reachable(&engine, &container).variables;
        container.config.env.splice(0..0, variables);
        let process = spec::exec_process(&container, &request, &user, &engine.host)?;
        serde_json::to_vec(&process).map_err(|err| Error::internal(format!("encode the process: {err}")))
    })
    .await
}

async fn explain(engine: &Arc<Engine>, entry: &Arc<Entry>, request: &CreateExec, err: Error) -> Error {
    let (engine, entry, request) = (Arc::clone(engine), Arc::clone(entry), request.clone());
    let told = blocking(move || {
        let container = engine.record_now(&entry)?;
        let dirs = engine.store.snapshotter(NAMESPACE, &container.snapshotter)?.layer_dirs(&container.snapshot_key)?;
        let rootfs = Rootfs::open(&dirs)?;
        let program = request.cmd.first().map_or("", String::as_str);
        let shell = matches!(program, "bash" | "/bin/bash" | "/usr/bin/bash" | "zsh" | "/bin/zsh");
        let has_sh = shell && matches!(rootfs.lookup(std::path::Path::new("/bin/sh")), Ok(Some(_)));
        let advice = has_sh.then(|| format!("the image has no {program}, but it has sh: use that"));
        let missing = matches!(rootfs.lookup(std::path::Path::new(program)), Ok(None)) || !program.starts_with('/');
        Ok(diagnose::explain(&rootfs, program, &container.config.env, &container.config.working_dir).or(advice.filter(|_| missing)))
    });
    match told.await {
        Ok(Some(why)) => {
            let message = format!("{}: {why}", err.message());
            Error::new(err.kind(), message).with_source(err)
        }
        _ => err,
    }
}

/// Records the end, in a task of its own.
fn follow(engine: &Arc<Engine>, entry: &Arc<Entry>, exec: &Arc<ExecEntry>, task: Task) {
    let (engine, entry, exec) = (Arc::clone(engine), Arc::clone(entry), Arc::clone(exec));
    tokio::spawn(async move {
        let id = exec.record().id;
        let code = match engine.closing.run_until_cancelled(task.wait(Some(&id))).await {
            None => return,
            Some(Ok(status)) => i64::from(status.code),
            Some(Err(err)) => {
                tracing::debug!(exec = id, "wait for the end: {err}");
                255
            }
        };
        exec.change(|exec| {
            exec.running = false;
            exec.exit_code = Some(code);
        });
        let event = container_event(&entry.view(), "exec_die", &[("execID", id.clone()), ("exitCode", code.to_string())]);
        engine.events.announce(event);
        // When the container has ended too, its shim is gone with all its processes.
        if let Err(err) = task.delete(Some(&id)).await {
            tracing::debug!(exec = id, "delete: {err}");
        }
    });
}

fn streams(exec: &Arc<ExecEntry>, pipes: ProcessPipes, request: &CreateExec, task: Task) -> ProcessIo {
    let kind = if request.tty { OutputKind::Console } else { OutputKind::Stdout };
    let stdout = pipes.stdout.map_or_else(|| stream::empty().boxed(), |pipe| read(pipe, kind).boxed());
    let stderr = pipes.stderr.map_or_else(|| stream::empty().boxed(), |pipe| read(pipe, OutputKind::Stderr).boxed());
    let ending = Arc::clone(exec);
    // The stream ends only when the exit code is known: clients ask for it next.
    let last = stream::once(async move {
        ending.until(|exec| exec.exit_code.is_some()).await;
    });
    let output: OutputStream = Box::pin(stream::select(stdout, stderr).chain(last.filter_map(|()| async { None })));
    let input = pipes.stdin.map(|pipe| InputWriter::new(pipe, task, Some(exec.record().id), true));
    ProcessIo { tty: request.tty, output, input }
}

fn read(pipe: pipe::Receiver, kind: OutputKind) -> impl Stream<Item = Result<Output>> + Send {
    stream::unfold(Some(pipe), move |pipe| async move {
        let mut pipe = pipe?;
        let mut buffer = Vec::with_capacity(CHUNK);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Output { kind, data: Bytes::from(buffer) }), Some(pipe))),
            Err(err) => Some((Err(Error::io("read the process's output", err)), None)),
        }
    })
}
