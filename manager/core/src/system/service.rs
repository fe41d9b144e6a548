//! The system service.

use rcontainerd_types::{Error, Result};

use super::{DiskUsage, Info, Version};

/// Cheap to clone.
#[derive(Clone)]
pub struct System {}

impl System {
    pub async fn version(&self) -> Result<Version> {
        Err(Error::unsupported("system: not wired yet"))
    }

    pub async fn info(&self) -> Result<Info> {
        Err(Error::unsupported("system: not wired yet"))
    }

    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        Err(Error::unsupported("system: not wired yet"))
    }
}
