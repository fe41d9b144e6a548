//! Tasks: running containers, as seen through their shims. Speaks containerd's shim v2 protocol, so that our own shim and
//! foreign ones are driven alike.
//!
//! ```text
//! TaskService::open(config) ── events server on STATE/rcontainerd.sock.ttrpc ──→ EventStream
//!   create_bundle → (core writes config.json into it) → create → Task → start → wait → delete
//!   reattach after a restart of the manager; list names what is on disk
//! ```

mod bundle;
mod client;
mod events;
mod io;
mod journal;
mod service;
mod shim;
mod task;
mod types;

pub use events::{EventItem, EventStream};
pub use io::{AttachStream, Fifos, OutputFrame, ProcessPipes};
pub use service::TaskService;
pub use task::Task;
pub use types::{
    CreateTask, ExecProcess, ExitStatus, Mount, ProcessInfo, ProcessState, ProcessStatus, RuntimeOptions, Stdio, TaskConfig, TaskEvent,
    TaskEventKind, TaskKey,
};
