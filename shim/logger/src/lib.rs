//! Containers' logs: files in Docker's JSON-file format, rotation, services of the host, fan-out to attached clients, and the readers.
//!
//! A bottom crate: the shim writes with it, the manager reads with it; both agree on [`LogUri`], which tells the shim where a
//! container's output goes.

mod encode;
mod fanout;
mod files;
pub mod forward;
mod reader;
mod record;
mod squeeze;
mod uri;
mod writer;

pub use fanout::{Client, Fanout, MAX_CLIENTS, PATIENCE, QUEUE_LIMIT};
pub use reader::{Next, ReadOptions, Reader};
pub use record::{Record, Stream};
pub use uri::{Driver, LogUri, UriError};
pub use writer::{LogWriter, PIECE};
