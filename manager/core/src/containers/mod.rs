//! Docker's containers: records, commands, service.

mod attach;
pub mod commands;
pub mod config;
mod create;
mod exit;
mod list;
mod logs;
pub mod model;
pub(crate) mod recover;
pub(crate) mod registry;
mod remove;
pub mod resolve;
mod runstate;
mod service;
pub(crate) mod start;
mod stats;
mod stop;
mod top;

pub use commands::*;
pub use config::*;
pub use model::*;
pub use service::{Containers, Waiter};

/// Where programs are looked for unless the container's environment says so.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
