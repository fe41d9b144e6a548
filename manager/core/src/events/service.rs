//! The event service.

use rcontainerd_types::{Error, Result};

use super::{EventQuery, EventStream};

/// Cheap to clone.
#[derive(Clone)]
pub struct Events {}

impl Events {
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn subscribe(&self, _query: EventQuery) -> Result<EventStream> {
        Err(Error::unsupported("events: not wired yet"))
    }
}
