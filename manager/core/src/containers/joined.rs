//! `--network`, `--pid` and `--ipc` `container:ID`: what a start takes from containers that run already.

use std::path::PathBuf;
use std::sync::Arc;

use rcontainerd_types::{Error, Result};

use super::config::HostConfig;
use super::model::{Container, Status};
use super::registry::Entry;
use super::resolve::other_container;
use super::runstate;
use crate::engine::Engine;
use crate::spec;

/// What is shared with whom.
#[derive(Default)]
pub(super) struct Shared {
    /// The network namespace's file and the container whose it is.
    pub network: Option<(PathBuf, Container)>,
    pub namespaces: spec::Joined,
}

/// Names in `container:NAME` become ids: what the name means later does not matter.
pub(super) fn pin(engine: &Engine, host: &mut HostConfig) -> Result<()> {
    for mode in [&mut host.network_mode, &mut host.pid_mode, &mut host.ipc_mode] {
        if let Some(name) = other_container(mode).filter(|name| !name.is_empty()) {
            *mode = format!("container:{}", engine.registry.find(name)?.id);
        }
    }
    Ok(())
}

/// Finds the others' namespaces; all of them must run.
pub(super) fn find(engine: &Engine, container: &Container) -> Result<Shared> {
    let host = &container.host_config;
    let mut shared = Shared::default();
    if let Some(id) = other_container(&host.network_mode) {
        let (entry, pid) = running(engine, id, |id| format!("cannot join network of a non running container: {id}"))?;
        shared.network = Some((PathBuf::from(format!("/proc/{pid}/ns/net")), engine.record_now(&entry)?));
    }
    if let Some(id) = other_container(&host.pid_mode) {
        let (_, pid) = running(engine, id, |id| format!("cannot join PID namespace of a non running container: {id}"))?;
        shared.namespaces.pid = Some(PathBuf::from(format!("/proc/{pid}/ns/pid")));
    }
    if let Some(id) = other_container(&host.ipc_mode) {
        let stopped = |id: &str| format!("can't join IPC of container {id}: container {id} is not running");
        let (entry, pid) = running(engine, id, stopped)?;
        let donor = engine.record_now(&entry)?;
        if donor.host_config.ipc_mode != "shareable" {
            let id = donor.id;
            return Err(Error::invalid(format!(
                "can't join IPC of container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            )));
        }
        shared.namespaces.ipc = Some(PathBuf::from(format!("/proc/{pid}/ns/ipc")));
        shared.namespaces.shm = Some(engine.run_dir(&donor.id).join(runstate::SHARED_MEMORY));
    } else if host.ipc_mode == "shareable" {
        shared.namespaces.shm = Some(engine.run_dir(&container.id).join(runstate::SHARED_MEMORY));
    }
    Ok(shared)
}

fn running(engine: &Engine, id: &str, stopped: impl Fn(&str) -> String) -> Result<(Arc<Entry>, u32)> {
    let entry = engine.registry.find(id)?;
    let state = entry.view().state.clone();
    if state.status == Status::Restarting {
        return Err(Error::conflict(format!("Container {id} is restarting, wait until the container is running")));
    }
    match entry.live() {
        Some(_) if state.pid != 0 => Ok((entry, state.pid)),
        _ => Err(Error::conflict(stopped(id))),
    }
}
