//! The Docker Engine API over core: translate, call, translate back.
//!
//! ```text
//! request ─ server (version, headers) ─ handlers ─ convert ─ core
//!                                          │
//!                                          ├ wire      parameters, bodies, errors, frames
//!                                          ├ session   hijacked connections: attach, exec
//!                                          └ versions  what older API versions see
//! ```
//!
//! [`router`] over a [`DockerListener`] is all a server needs; it must serve HTTP/1.1 with upgrades enabled (`axum::serve` does).

mod convert;
mod handlers;
mod listener;
mod server;
mod session;
mod versions;
mod wire;

pub use listener::{DockerListener, HijackIo};
pub use server::router;
