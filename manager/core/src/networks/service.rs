//! The network service.

use rcontainerd_types::{Error, Result};

use super::Network;
use crate::filters::Filters;

/// Cheap to clone.
#[derive(Clone)]
pub struct Networks {}

impl Networks {
    /// By name; filters `name`, `id`, `driver`, `type`, `scope`, `label`, `dangling`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn list(&self, _filters: Filters) -> Result<Vec<Network>> {
        Err(Error::unsupported("networks: not wired yet"))
    }

    /// By name, id or id prefix.
    ///
    /// # Errors
    /// `NotFound` (`network x not found`).
    pub async fn inspect(&self, _name: &str) -> Result<Network> {
        Err(Error::unsupported("networks: not wired yet"))
    }
}
