//! Control groups of containers: cgroup v1, hybrid and v2, made by ourselves or through systemd.
//!
//! ```text
//! Host::detect → locate(cgroupsPath) → Location ─┬→ Plan::for_create(resources)   pure: a list of writes
//!                                                └→ Cgroup::create → apply(plan) → clone3 into unified_fd() / attach(pid)
//! state file ──Location──→ Cgroup::open → apply(update) · freeze · thaw · signal · pids · stats · oom_watch · remove
//! ```
//!
//! `Host`, `Location` and `Plan` decide; only [`Cgroup`] touches the cgroup file systems. A [`Cgroup::create`] that fails
//! takes back every directory it made. Parents that had to be made stay after [`Cgroup::remove`]: they are shared by
//! containers, and a parent removed under a container that is just being created would fail it.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps in vain has failed, as it should"))]

mod apply;
mod control;
mod devices;
mod error;
mod fsio;
mod group;
mod host;
mod location;
mod make;
mod mountinfo;
mod oom;
mod plan;
mod pressure;
mod resources;
mod stats;
mod systemd;

pub use control::FreezerState;
pub use devices::{Key as DeviceKey, Kind as DeviceKind, Policy as DevicePolicy};
pub use error::{Error, Result};
pub use group::Cgroup;
pub use host::{Driver, Host, Mode, Mount, Version};
pub use location::{Dir, Location};
pub use mountinfo::{Membership, cgroup_mounts, decode as decode_mountinfo_path, memberships};
pub use oom::{OomEvent, OomWatch};
pub use plan::{Plan, PlanOptions, Step, Write};
pub use pressure::PressureWatch;
pub use resources::*;
pub use stats::*;
pub use systemd::{Scope, ScopeProperties, Systemd, Unit};
