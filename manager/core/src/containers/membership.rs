//! `network connect` and `disconnect`: a container changes its networks, running or not.

use std::sync::Arc;

use rcontainerd_types::{Error, ErrorKind, Result};

use super::model::{Container, Status};
use super::network::{self, Member};
use super::registry::{Entry, Live};
use super::resolve;
use super::runstate::RunState;
use super::start;
use crate::engine::{Engine, blocking};
use crate::events::{EventKind, NewEvent};
use crate::networks::catalog::Found;
use crate::networks::{ConnectNetwork, DisconnectNetwork};

pub(crate) async fn connect(engine: &Arc<Engine>, command: ConnectNetwork) -> Result<()> {
    let entry = engine.registry.find(&command.container)?;
    let _operation = entry.operation.lock().await;
    let container = engine.record(&entry).await?;
    let found = changeable(engine, &container, &command.network)?;
    if is_on(engine, &container, &found) {
        let message = format!("endpoint with name {} already exists in network {}", container.name, found.name());
        return Err(Error::new(ErrorKind::PermissionDenied, message));
    }
    resolve::refuse_endpoint(&command.endpoint)?;
    let name = found.name().to_owned();
    let event = told("connect", &found, &container);
    let request = command.endpoint;
    let mut next = container.clone();
    next.endpoints.insert(name, request.clone());
    // Judged before anything is changed.
    network::plan(engine, &next)?;
    if let Some(live) = entry.live() {
        let member = Member { found, request };
        change_run(engine, &entry, live, &next, move |engine, container, state| network::attach(engine, container, &member, state)).await?;
    }
    engine.update(&entry, vec![event], move |container| container.endpoints = next.endpoints).await
}

pub(crate) async fn disconnect(engine: &Arc<Engine>, command: DisconnectNetwork) -> Result<()> {
    let entry = engine.registry.find(&command.container)?;
    let _operation = entry.operation.lock().await;
    let container = engine.record(&entry).await?;
    let found = match changeable(engine, &container, &command.network) {
        // The network is gone: only the record knows it.
        Err(err) if err.kind() == ErrorKind::NotFound && command.force && container.endpoints.contains_key(&command.network) => {
            return engine.update(&entry, Vec::new(), move |container| drop(container.endpoints.remove(&command.network))).await;
        }
        other => other?,
    };
    if !is_on(engine, &container, &found) {
        return Err(network::not_connected(&container, found.name()));
    }
    let event = told("disconnect", &found, &container);
    let next = without(engine, &container, &found);
    if let Some(live) = entry.live() {
        let (id, name) = (found.bridge().unwrap_or_default().to_owned(), found.name().to_owned());
        change_run(engine, &entry, live, &next, move |engine, _, state| network::leave(engine, &id, &name, state)).await?;
    }
    let change = move |container: &mut Container| {
        container.endpoints = next.endpoints;
        container.left_mode = next.left_mode;
    };
    engine.update(&entry, vec![event], change).await
}

/// The record without the network.
fn without(engine: &Engine, container: &Container, found: &Found) -> Container {
    let mut next = container.clone();
    if let Some(name) = network::requests_by_id(engine, container).get(&found.id()) {
        next.endpoints.remove(name);
    }
    next.left_mode |= is_of_mode(engine, container, found);
    next
}

fn changeable(engine: &Engine, container: &Container, network: &str) -> Result<Found> {
    let refused = |message: String| Error::new(ErrorKind::PermissionDenied, message);
    if matches!(container.state.status, Status::Removing | Status::Dead) {
        return Err(refused(format!(
            "container {} is marked for removal and cannot be connected or disconnected to the network",
            container.id
        )));
    }
    let mode = container.host_config.network_mode.as_str();
    if resolve::other_container(mode).is_some() {
        return Err(refused(
            "container sharing network namespace with another container or host cannot be connected to any other network".to_owned(),
        ));
    }
    if mode == "host" {
        return Err(refused("container cannot be connected to host network or disconnected from it once it is created".to_owned()));
    }
    match engine.networks.find(network)? {
        Found::Host => Err(refused("container cannot be disconnected from host network or connected to host network".to_owned())),
        Found::None => {
            Err(refused("container cannot be connected to multiple networks with one of the networks in private (none) mode".to_owned()))
        }
        found => Ok(found),
    }
}

fn is_on(engine: &Engine, container: &Container, found: &Found) -> bool {
    is_of_mode(engine, container, found) || network::requests_by_id(engine, container).contains_key(&found.id())
}

/// Whether the container is on the network because its mode says so.
fn is_of_mode(engine: &Engine, container: &Container, found: &Found) -> bool {
    !container.left_mode && engine.networks.find(&container.host_config.network_mode).is_ok_and(|mode| mode == *found)
}

/// Changes a running container's connections, and everything that tells of them: STATE, names, its files.
async fn change_run(
    engine: &Arc<Engine>,
    entry: &Arc<Entry>,
    mut live: Live,
    next: &Container,
    change: impl FnOnce(&Engine, &Container, &mut RunState) -> Result<()> + Send + 'static,
) -> Result<()> {
    let (worker, next) = (Arc::clone(engine), next.clone());
    let dir = engine.run_dir(&entry.id);
    let state = blocking(move || {
        let mut state = RunState::read(&dir)?.ok_or_else(|| Error::internal("the state of the container's run is missing"))?;
        if state.netns.is_none() {
            // Started without a network: its namespace is the runtime's own.
            state.netns = Some(std::path::PathBuf::from(format!("/proc/{}/ns/net", next.state.pid)));
        }
        let changed = change(&worker, &next, &mut state);
        let told = network::tell_names(&worker, &next, &state.connections());
        let written = state.write(&dir).and_then(|()| start::write_files(&worker, &next, &state.attachments).map(drop));
        changed.and(told).and(written).map(|()| state)
    })
    .await?;
    live.connections = state.connections();
    entry.replace_live(live);
    engine.update_volatile(entry, Vec::new(), |own| {
        own.networks.clone_from(&state.networks);
        own.ports.clone_from(&state.ports);
    });
    Ok(())
}

fn told(action: &str, found: &Found, container: &Container) -> NewEvent {
    let attributes = [("container", container.id.as_str()), ("name", found.name()), ("type", "bridge")];
    let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    NewEvent { kind: EventKind::Network, action: action.into(), actor: found.id(), attributes }
}
