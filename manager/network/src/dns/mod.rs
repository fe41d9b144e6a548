//! Names of containers on user-defined networks: Docker's resolver at 127.0.0.11.
//!
//! Each container has a view: the networks that it is on, and the servers that are asked for everything else. A name is looked up in
//! the container's networks in their order; what no network knows is forwarded. A container whose networks are all internal gets no
//! answer from outside (CVE-2024-29018).

pub mod forward;
pub mod message;
pub mod names;
pub mod serve;

pub use names::{Endpoint, Names, View};
