//! What happened, in order. Each event has a persisted, monotonic sequence number; a bounded number is kept for `since`.

mod service;

use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::Stream;
use jiff::Timestamp;
use rcontainerd_types::Result;
use serde::{Deserialize, Serialize};

pub use service::Events;

use crate::filters::Filters;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    Container,
    Image,
    Volume,
    Network,
    Daemon,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Daemon => "daemon",
        }
    }
}

/// Docker's event; `action` is Docker's word (`create`, `start`, `die`, `exec_create: ls`, …).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub sequence: u64,
    pub time: Timestamp,
    pub kind: EventKind,
    pub action: String,
    /// The object: container id, image id, volume or network name.
    pub actor: String,
    /// Labels and what the action adds (`image`, `name`, `exitCode`, `signal`, …).
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// An event that has no number and time yet.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub kind: EventKind,
    pub action: String,
    pub actor: String,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    pub since: Option<Timestamp>,
    /// The stream ends at this time; `None`: goes on.
    pub until: Option<Timestamp>,
    pub filters: Filters,
}

/// A reader that does not keep up is told so by an error and ended.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event>> + Send>>;
