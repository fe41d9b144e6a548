//! Attach: the live streams of the main process, from a moment or from before its start.

use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use rcontainerd_task::{AttachStream, Fifos, Task};
use rcontainerd_types::{Error, Result};
use tokio::sync::oneshot;

use super::commands::{AttachContainer, LogsQuery};
use super::model::{Container, Status};
use super::registry::{Entry, Pending};
use super::{logs, start};
use crate::engine::{Engine, container_event};
use crate::io::{Output, OutputKind, OutputStream, ProcessIo};
use crate::stdin::{InputWriter, Opened};

pub(super) async fn attach(engine: &Arc<Engine>, entry: &Arc<Entry>, command: &AttachContainer) -> Result<ProcessIo> {
    let container = engine.record(entry).await?;
    if container.state.status == Status::Paused {
        return Err(Error::conflict(format!("container {} is paused, unpause the container before attach", entry.id)));
    }
    let past = if command.logs { Some(replay(engine, entry, command).await?) } else { None };
    let (output, input) = if command.stream { live(engine, entry, command, &container).await? } else { (nothing(), None) };
    engine.events.announce(container_event(&entry.view(), "attach", &[]));
    let output: OutputStream = match past {
        Some(past) => Box::pin(past.chain(output)),
        None => output,
    };
    Ok(ProcessIo { tty: container.config.tty, output, input })
}

fn nothing() -> OutputStream {
    Box::pin(stream::empty())
}

async fn replay(engine: &Arc<Engine>, entry: &Arc<Entry>, command: &AttachContainer) -> Result<OutputStream> {
    let query = LogsQuery { id: entry.id.clone(), stdout: command.stdout, stderr: command.stderr, ..LogsQuery::default() };
    let entries = logs::logs(engine, entry, query).await?;
    Ok(Box::pin(entries.map(|entry| entry.map(|entry| Output { kind: entry.kind, data: entry.data }))))
}

async fn live(
    engine: &Arc<Engine>,
    entry: &Arc<Entry>,
    command: &AttachContainer,
    container: &Container,
) -> Result<(OutputStream, Option<InputWriter>)> {
    let with_input = command.stdin && container.config.open_stdin;
    let fifo = engine.run_dir(&entry.id).join(start::STDIN_FIFO);
    let closes = closes_stdin(container);
    match entry.live() {
        Some(live) => {
            let output = AttachStream::connect(&engine.run_dir(&entry.id).join(start::OUTPUT_SOCKET)).await?;
            let input = with_input
                .then(|| Fifos::open_stdin(&fifo).map(|pipe| InputWriter::new(pipe, live.task.clone(), None, closes)))
                .transpose()?;
            Ok((frames(output, command, container.config.tty), input))
        }
        None => Ok(before_start(entry, command, container, with_input.then_some(fifo))),
    }
}

/// Whether the process sees end of file when this client goes: never on a terminal, which others may attach to after a detach.
fn closes_stdin(container: &Container) -> bool {
    container.config.stdin_once && !container.config.tty
}

/// The streams begin with the start; they end at once if the container is removed or its start fails.
fn before_start(
    entry: &Arc<Entry>,
    command: &AttachContainer,
    container: &Container,
    fifo: Option<std::path::PathBuf>,
) -> (OutputStream, Option<InputWriter>) {
    let (output, receiver) = oneshot::channel::<AttachStream>();
    let (tty, closes) = (container.config.tty, closes_stdin(container));
    let (task, task_receiver) = oneshot::channel::<Task>();
    entry.add_pending(Pending { output, task });
    let command = command.clone();
    let opened = fifo.map(|fifo| {
        InputWriter::later(async move {
            let task = task_receiver.await.map_err(|_| Error::conflict("the container was not started"))?;
            Ok(Opened { pipe: Fifos::open_stdin(&fifo)?, task, exec_id: None, closes })
        })
    });
    let output = stream::once(async move {
        match receiver.await {
            Ok(output) => frames(output, &command, tty),
            Err(_) => nothing(),
        }
    });
    (Box::pin(output.flatten()), opened)
}

fn frames(source: AttachStream, command: &AttachContainer, tty: bool) -> OutputStream {
    let (stdout, stderr) = (command.stdout, command.stderr);
    let wanted = move |kind: OutputKind| if kind == OutputKind::Stderr { stderr } else { stdout };
    Box::pin(all_frames(source, tty).filter(move |item| {
        let pass = item.as_ref().map_or(true, |output| wanted(output.kind));
        async move { pass }
    }))
}

fn all_frames(source: AttachStream, tty: bool) -> impl Stream<Item = Result<Output>> + Send {
    stream::unfold(Some(source), move |source| async move {
        let mut source = source?;
        match source.next().await {
            Ok(Some(frame)) => {
                let kind = match (tty, frame.stderr) {
                    (true, _) => OutputKind::Console,
                    (false, true) => OutputKind::Stderr,
                    (false, false) => OutputKind::Stdout,
                };
                Some((Ok(Output { kind, data: frame.data }), Some(source)))
            }
            Ok(None) => None,
            Err(err) => Some((Err(err), None)),
        }
    })
}
