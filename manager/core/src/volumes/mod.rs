//! Volumes: directories that outlive containers.

mod service;

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use service::Volumes;
pub(crate) use service::disk_usage;

#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// Empty: a random one of 64 hex digits (anonymous).
    pub name: String,
    /// Empty or `local`.
    pub driver: String,
    pub driver_options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    pub mountpoint: PathBuf,
    pub created: Timestamp,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub driver_options: BTreeMap<String, String>,
    #[serde(default)]
    pub anonymous: bool,
    /// Whether the image's files were copied in (or a container used it without).
    #[serde(default)]
    pub populated: bool,
}

#[derive(Clone, Debug, Default)]
pub struct RemoveVolume {
    pub name: String,
    /// A volume that does not exist is no error.
    pub force: bool,
}
