//! containerd's level: content, snapshots, image names, leases, container records and tasks, each in a namespace. Docker's objects
//! (namespace `moby`) stand on these; adapters of containerd's own API work on them directly.

pub mod diff;
pub mod namespaces;
pub mod sandboxes;
pub mod tasks;
pub mod transfer;

pub use rcontainerd_store as store;
pub use rcontainerd_task as task;
