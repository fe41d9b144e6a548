//! The container runtime as a library.
//!
//! ```text
//! config.json ─spec→ Spec ─plan, with HostFacts→ Plan ─apply→ system calls
//!                                                  ├ parent/  makes the process, maps it, runs hooks, keeps the state
//!                                                  └ init/    is the process: a list of steps, the last is exec
//! ```
//!
//! One thread, no async runtime, nothing that needs dynamic loading.

pub mod caps;
mod error;
pub mod hooks;
pub mod init;
pub mod lifecycle;
pub mod log;
pub mod parent;
pub mod plan;
pub mod seal;
pub mod seccomp;
pub mod spec;
pub mod state;

pub use error::{Context, Error, Result};
