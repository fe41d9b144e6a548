//! The services behind every API: adapters translate their protocol into one command struct, call one method here, translate back.
//!
//! ```text
//! Core ─┬ images      pull, load, list, remove; root filesystems of new containers
//!       ├ containers  create, start, stop, attach, logs, … (Docker's containers, namespace `moby`)
//!       ├ execs       further processes in running containers
//!       ├ volumes     named and anonymous
//!       ├ networks    bridge, host, none
//!       ├ events      persisted, monotonic
//!       └ system      info, version, disk usage
//! ```

pub mod containers;
pub mod events;
pub mod execs;
pub mod filters;
pub mod images;
pub mod io;
pub mod networks;
mod stdin;
pub mod system;
pub mod volumes;

pub use filters::Filters;

/// All services; cheap to clone.
#[derive(Clone)]
pub struct Core {
    pub images: images::ImageService,
    pub containers: containers::Containers,
    pub execs: execs::Execs,
    pub volumes: volumes::Volumes,
    pub networks: networks::Networks,
    pub events: events::Events,
    pub system: system::System,
}
