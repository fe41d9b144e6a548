//! Docker's containers: records, commands, service.

pub mod commands;
pub mod config;
pub mod model;
mod service;

pub use commands::*;
pub use config::*;
pub use model::*;
pub use service::{Containers, Waiter};
