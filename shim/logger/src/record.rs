//! One log record: a line, or a 16 KiB piece of a longer one.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Where a piece of output came from; the numbers are those of Docker's raw-stream frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout = 1,
    Stderr = 2,
}

impl Stream {
    /// The name in the JSON file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One entry of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub stream: Stream,
    pub time: Timestamp,
    /// The bytes as printed by the process, with the newline; without one when the line goes on in a later record
    /// of the same stream (lines above 16 KiB) or ended without one.
    pub line: Vec<u8>,
    /// What the container's owner wanted to find with each record, by name.
    pub attributes: BTreeMap<String, String>,
    /// Whether this is a later piece of a line whose earlier piece came before on the same stream.
    pub continues: bool,
}
