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
pub mod criu;
mod error;
pub mod hooks;
mod host_root;
pub mod init;
pub mod lifecycle;
pub mod log;
mod netdev;
pub mod notify;
pub mod parent;
pub mod plan;
mod procfs;
pub mod rdt;
pub mod seal;
pub mod seccomp;
pub mod spec;
pub mod state;

use error::one_line;
pub use error::{Context, Error, Result};
