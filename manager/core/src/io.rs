//! The streams of a process as every API sees them: adapters only frame what is here.

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use jiff::Timestamp;
use rcontainerd_types::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    Stdout,
    Stderr,
    /// A terminal's output: both streams, raw.
    Console,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub kind: OutputKind,
    pub data: Bytes,
}

/// Ends once the process has exited and all its output has been delivered.
pub type OutputStream = Pin<Box<dyn Stream<Item = Result<Output>> + Send>>;

/// One line (or part of one) of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub kind: OutputKind,
    pub time: Timestamp,
    /// Labels, variables and a tag of the container (`--log-opt labels=…`), by name.
    pub attributes: BTreeMap<String, String>,
    /// With its newline, unless the line was cut into parts.
    pub data: Bytes,
}

pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogEntry>> + Send>>;

/// What attach and exec give. Dropping it detaches; the process goes on.
pub struct ProcessIo {
    /// Whether the process has a terminal: then all output is [`OutputKind::Console`].
    pub tty: bool,
    pub output: OutputStream,
    /// `None` unless stdin was asked for and the process has one.
    pub input: Option<InputWriter>,
}

impl std::fmt::Debug for ProcessIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessIo").field("tty", &self.tty).field("input", &self.input.is_some()).finish_non_exhaustive()
    }
}

pub use crate::stdin::InputWriter;
