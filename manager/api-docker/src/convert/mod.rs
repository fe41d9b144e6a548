//! Docker's bodies ↔ core's commands and answers. Pure; no decisions beyond spelling.

pub(crate) mod container;
pub(crate) mod create;
pub(crate) mod event;
pub(crate) mod files;
pub(crate) mod host_config;
pub(crate) mod image;
pub(crate) mod network;
pub(crate) mod stats;
pub(crate) mod system;
pub(crate) mod volume;
