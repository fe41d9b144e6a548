//! The Docker Engine API's JSON bodies as serde structs, shared by the server (`api-docker`) and the
//! command line client (`rdocker`). No logic lives here.
//!
//! Conventions, all following what Go's `encoding/json` does on both ends of the wire:
//! - every field may be missing or `null` in what is read; either means the type's default;
//! - a slice or map that a daemon may print as `null` is an `Option`, so that a body read and written
//!   again keeps its shape; one that is always printed (`[]`, `{}`) is a plain `Vec` or `BTreeMap`;
//! - a field Go marks `omitempty` is skipped when it has its default value;
//! - maps are `BTreeMap`s because Go prints them sorted by key;
//! - times are strings (RFC 3339 with nanoseconds) or whole seconds, as the field in question has it;
//! - fields unknown here are ignored when read, as dockerd ignores them.

mod null;

pub mod auth;
pub mod config;
pub mod container;
pub mod error;
pub mod events;
pub mod exec;
pub mod host_config;
pub mod image;
pub mod inspect;
pub mod network;
pub mod progress;
pub mod stats;
pub mod system;
pub mod volume;

use std::collections::BTreeMap;

/// Go's `map[string]string`.
pub type StringMap = BTreeMap<String, String>;
/// Go's `map[string]struct{}`: a set of strings, printed as `{"a": {}}`.
pub type StringSet = BTreeMap<String, Empty>;

null::dto! {
    /// The empty object `{}`.
    pub struct Empty {}
}
