//! Log files of containers: Docker's JSON-file format, rotation, fan-out to attached clients, and the readers.
//!
//! A bottom crate: the shim writes with it, the manager reads with it; both agree on [`LogUri`], which tells the shim where a
//! container's output goes.

mod reader;
mod record;
mod uri;

pub use reader::{Next, ReadOptions, Reader};
pub use record::{Record, Stream};
pub use uri::{Driver, LogUri};
