//! Docker's containers: records, commands, service.

mod attach;
pub mod commands;
mod commit;
pub mod config;
mod create;
mod exit;
mod health;
pub(crate) mod host_end;
mod joined;
pub(crate) mod links;
mod list;
mod list_filters;
mod logs;
pub(crate) mod membership;
pub mod model;
mod network;
pub(crate) mod outline;
pub(crate) mod recover;
pub(crate) mod registry;
mod remove;
pub mod resolve;
pub(crate) mod runstate;
mod runtimes;
mod service;
mod sparse;
pub(crate) mod start;
mod stats;
pub(crate) mod stop;
mod top;
mod update;
mod volumes_from;

pub use commands::*;
pub use config::*;
pub use model::*;
pub use outline::{ConfigOutline, HostOutline, Outline};
pub use service::{Containers, Waiter};

/// Where programs are looked for unless the container's environment says so.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
