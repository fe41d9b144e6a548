//! From the flags of `run` and `create` to the body of a create request.

mod build;
pub mod device;
pub mod env;
pub mod flags;
pub mod mount;
pub mod network;
pub mod port;
pub mod resources;
pub mod security;
mod volume;

pub use build::build;
pub use flags::{FLAGS, LIMITS};
