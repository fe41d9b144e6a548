//! Logs: what the shim wrote, as a stream.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use rcontainerd_types::{Error, Result};
use shim_logger::{Next, ReadOptions, Reader, Record, Stream};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::commands::LogsQuery;
use super::registry::Entry;
use super::resolve::LogPlan;
use crate::engine::{Engine, blocking};
use crate::io::{LogEntry, LogStream, OutputKind};

/// Records read in one go off the async threads.
const BATCH: usize = 128;

/// ROOT/containers/<id>/<id>-json.log, Docker's name.
pub(super) fn path(engine: &Engine, id: &str) -> PathBuf {
    engine.container_dir(id).join(format!("{id}-json.log"))
}

pub(super) async fn logs(engine: &Arc<Engine>, entry: &Arc<Entry>, query: LogsQuery) -> Result<LogStream> {
    let container = engine.record(entry).await?;
    if !LogPlan::parse(&container.host_config.log_config)?.keeps() {
        return Err(Error::unsupported("configured logging driver does not support reading"));
    }
    if !query.stdout && !query.stderr {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let follow = query.follow && container.state.status.is_running();
    let options =
        ReadOptions { stdout: query.stdout, stderr: query.stderr, tail: query.tail, since: query.since, until: query.until, follow };
    let path = path(engine, &entry.id);
    let opened = blocking(move || Reader::open(&path, options).map_err(|err| Error::io(format!("open log {}", path.display()), err)));
    let reader = opened.await?;
    let wake = match reader.wait_fd() {
        Some(fd) => Some(watch(fd.try_clone_to_owned().map_err(|err| Error::io("follow the log", err))?)?),
        None => None,
    };
    let tail =
        Tail { reader: Some(reader), wake, entry: Arc::clone(entry), ready: VecDeque::new(), ended: false, tty: container.config.tty };
    Ok(Box::pin(stream::unfold(Some(tail), |tail| async {
        let mut tail = tail?;
        match tail.next().await {
            Ok(Some(entry)) => Some((Ok(entry), Some(tail))),
            Ok(None) => None,
            Err(err) => Some((Err(err), None)),
        }
    })))
}

#[expect(deprecated, reason = "sound here: the descriptor is owned and lives as long as its registration")]
fn watch(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE).map_err(|err| Error::io("follow the log", err))
}

struct Tail {
    reader: Option<Reader>,
    /// Readable when the log may have grown; only when following.
    wake: Option<AsyncFd<OwnedFd>>,
    entry: Arc<Entry>,
    ready: VecDeque<Record>,
    ended: bool,
    tty: bool,
}

impl Tail {
    async fn next(&mut self) -> Result<Option<LogEntry>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(self.translate(record)));
            }
            if self.ended {
                return Ok(None);
            }
            if self.fill().await? {
                self.wait().await?;
            }
        }
    }

    /// Reads a batch; says whether there is nothing new yet.
    async fn fill(&mut self) -> Result<bool> {
        let Some(mut reader) = self.reader.take() else { return Ok(false) };
        let (reader, batch, last) = blocking(move || {
            let mut batch = VecDeque::new();
            loop {
                match reader.next().map_err(|err| Error::io("read the log", err))? {
                    Next::Record(record) if batch.len() + 1 < BATCH => batch.push_back(record),
                    Next::Record(record) => {
                        batch.push_back(record);
                        return Ok((reader, batch, None));
                    }
                    Next::Pending => return Ok((reader, batch, Some(true))),
                    Next::End => return Ok((reader, batch, Some(false))),
                }
            }
        })
        .await?;
        self.ended = last == Some(false);
        self.reader = Some(reader);
        self.ready = batch;
        Ok(last == Some(true) && self.ready.is_empty())
    }

    /// Until the log has grown or the container has ended.
    async fn wait(&mut self) -> Result<()> {
        let mut phase = self.entry.phase.subscribe();
        let Some(wake) = &self.wake else {
            self.ended = true;
            return Ok(());
        };
        tokio::select! {
            ready = wake.readable() => {
                let mut ready = ready.map_err(|err| Error::io("follow the log", err))?;
                ready.clear_ready();
            }
            // The sender lives in the entry that we hold.
            _ = phase.wait_for(|phase| !phase.running) => {
                if let Some(reader) = &mut self.reader {
                    reader.finish();
                }
            }
        }
        Ok(())
    }

    fn translate(&self, record: Record) -> LogEntry {
        let kind = match (self.tty, record.stream) {
            (true, _) => OutputKind::Console,
            (false, Stream::Stdout) => OutputKind::Stdout,
            (false, Stream::Stderr) => OutputKind::Stderr,
        };
        LogEntry { kind, time: record.time, attributes: record.attributes, data: Bytes::from(record.line) }
    }
}
