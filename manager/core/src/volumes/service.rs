//! The volume service.

use rcontainerd_types::{Error, Result};

use super::{CreateVolume, RemoveVolume, Volume};
use crate::containers::PruneReport;
use crate::filters::Filters;

/// Cheap to clone.
#[derive(Clone)]
pub struct Volumes {}

fn unwired<T>() -> Result<T> {
    Err(Error::unsupported("volumes: not wired yet"))
}

impl Volumes {
    /// The volume of that name if it exists already.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed name, `Unsupported` for a driver or option that is not ours.
    pub async fn create(&self, _command: CreateVolume) -> Result<Volume> {
        unwired()
    }

    /// # Errors
    /// `NotFound` (`get x: no such volume`).
    pub async fn inspect(&self, _name: &str) -> Result<Volume> {
        unwired()
    }

    /// By name; filters `name`, `label`, `driver`, `dangling`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn list(&self, _filters: Filters) -> Result<Vec<Volume>> {
        unwired()
    }

    /// # Errors
    /// `NotFound`; `Conflict` while a container refers to it.
    pub async fn remove(&self, _command: RemoveVolume) -> Result<()> {
        unwired()
    }

    /// Removes unused anonymous volumes, with filter `all=true` named ones too.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn prune(&self, _filters: Filters) -> Result<PruneReport> {
        unwired()
    }
}
