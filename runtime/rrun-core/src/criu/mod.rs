//! criu: who dumps the processes of a container into files, and restores them.
//!
//! ```text
//! rrun ── request ─→ criu swrk 3 ── notifications ─→ rrun judges, answers ─→ … ── answer ─→ rrun
//!      wire: bytes   rpc: criu's messages   session: the conversation   mounts, judge: what was restored is what config.json asks for
//! ```
//!
//! The directory of images is not trusted. Root, namespaces, external mounts, cgroup and terminal are what config.json says; what only
//! the image knows (the rest of the mounts, capabilities, files) is compared with config.json while every restored process still stands.

pub mod judge;
pub mod log;
pub mod mounts;
pub mod rpc;
pub mod session;
mod wire;

pub use rpc::CgroupMode;
pub use session::Criu;
