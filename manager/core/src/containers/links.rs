//! `--link`: other containers under names that this one alone knows.
//!
//! On the default network a link is a line in /etc/hosts and some variables, and both containers must be on it; on a user-defined network
//! it is a name that the resolver answers to this container only. Kept as `ID:alias`, so that a rename changes nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rcontainerd_types::{Error, ErrorKind, Result, id};

use super::commands::CreateContainer;
use super::config::EndpointRequest;
use super::model::{Container, Status};
use super::outline::Outline;
use super::registry::Entry;
use super::start;
use crate::engine::{Engine, blocking};
use crate::networks::catalog::Found;

/// The default network's name, as endpoints are recorded under it.
const BRIDGE: &str = "bridge";

/// `name` (also its alias), `name:alias`, or inspect's `/name:/self/alias`.
fn parse(link: &str) -> Result<(&str, &str)> {
    let base = |name: &'_ str| name.rsplit('/').next().map_or(0, |last| name.len() - last.len());
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    let (name, alias) = (name.trim_start_matches('/'), &alias[base(alias)..]);
    if name.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(Error::invalid(format!("bad format for links: {link}")));
    }
    Ok((name, alias))
}

/// Names become ids; links of a container on a user-defined network are that network's.
///
/// # Errors
/// `InvalidArgument` in Docker's words.
pub(super) fn pin(engine: &Engine, request: &mut CreateContainer) -> Result<()> {
    let mode = request.host_config.network_mode.clone();
    let mut links = std::mem::take(&mut request.host_config.links);
    links.retain(|link| !link.is_empty());
    if links.is_empty() {
        return Ok(());
    }
    match mode.as_str() {
        "" | "default" | BRIDGE => {
            request.host_config.links = links.iter().map(|link| pinned(engine, link)).collect::<Result<_>>()?;
            Ok(())
        }
        "host" | "none" => Err(conflict(&format!("{mode} type networking"))),
        mode if super::resolve::other_container(mode).is_some() => Err(conflict("container type network")),
        mode => {
            let own = &mut request.endpoints.entry(mode.to_owned()).or_default().links;
            own.extend(links.into_iter().filter(|link| !own.contains(link)).collect::<Vec<_>>());
            Ok(())
        }
    }
}

fn conflict(what: &str) -> Error {
    Error::invalid(format!("conflicting options: {what} can't be used with links. This would result in undefined behavior"))
}

fn pinned(engine: &Engine, link: &str) -> Result<String> {
    let (name, alias) = parse(link)?;
    let entry = engine.registry.find(name).map_err(|err| match err.kind() {
        ErrorKind::NotFound => err.with_kind(ErrorKind::InvalidArgument).context(format!("could not get container for {name}")),
        _ => err,
    })?;
    if entry.view().host_config.network_mode == "host" {
        return Err(conflict("host type networking"));
    }
    Ok(format!("{}:{alias}", entry.id))
}

/// # Errors
/// `InvalidArgument` for what is no link.
pub(super) fn check(request: &EndpointRequest) -> Result<()> {
    request.links.iter().try_for_each(|link| parse(link).map(drop))
}

/// The links of the host configuration whose containers are still there.
fn of(engine: &Engine, links: &[String]) -> Vec<(Arc<Entry>, String)> {
    let found = |link: &String| {
        let (target, alias) = link.split_once(':')?;
        Some((engine.registry.find(target).ok()?, alias.to_owned()))
    };
    links.iter().filter_map(found).collect()
}

/// As inspect tells them: `/target:/self/alias`.
pub(super) fn shown(engine: &Engine, container: &Outline) -> Vec<String> {
    let links = of(engine, &container.host_config.links);
    links.iter().map(|(target, alias)| format!("/{}:/{}/{alias}", target.view().name, container.name)).collect()
}

/// Every container that another one links to, by id, and the names it has there: `other/alias`.
pub(super) fn names(engine: &Engine) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for container in engine.registry.all().iter().map(|entry| entry.view()) {
        for link in &container.host_config.links {
            if let Some((target, alias)) = link.split_once(':') {
                names.entry(target.to_owned()).or_default().push(format!("{}/{alias}", container.name));
            }
        }
    }
    names
}

/// What the links of a start mean now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Linked {
    /// For /etc/hosts: address, names.
    pub hosts: Vec<(IpAddr, String)>,
    /// `DB_PORT=tcp://172.17.0.2:5432` and the like.
    pub variables: Vec<String>,
}

/// # Errors
/// `Conflict` for a container that does not run, `InvalidArgument` for one that is not on the default network.
pub(super) fn linked(engine: &Engine, container: &Container) -> Result<Linked> {
    let mut all = Linked::default();
    for (entry, alias) in of(engine, &container.host_config.links) {
        let target = entry.view();
        if !target.state.status.is_running() {
            let message = format!("Cannot link to a non running container: /{} AS /{}/{alias}", target.name, container.name);
            return Err(Error::conflict(message));
        }
        all.add(container, &engine.record_now(&entry)?, &alias)?;
    }
    Ok(all)
}

/// As [`linked`], of those that can be reached now.
pub(crate) fn reachable(engine: &Engine, container: &Container) -> Linked {
    let mut all = Linked::default();
    for (target, alias) in of(engine, &container.host_config.links) {
        match engine.record_now(&target) {
            // One that has ended, or left the network, has no address to tell.
            Ok(target) => drop(all.add(container, &target, &alias)),
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => tracing::warn!(container = container.id, "read what it is linked to as {alias}: {err}"),
        }
    }
    all
}

impl Linked {
    fn add(&mut self, container: &Container, target: &Container, alias: &str) -> Result<()> {
        let endpoint = target.state.networks.get(BRIDGE);
        let Some(address) = endpoint.and_then(|endpoint| endpoint.ipv4_address.parse::<IpAddr>().ok()) else {
            return Err(Error::invalid(format!("Cannot link to /{}, as it does not belong to the default network", target.name)));
        };
        let mut called = vec![alias];
        for name in [target.hostname.as_str(), target.name.as_str()] {
            if !called.contains(&name) {
                called.push(name);
            }
        }
        self.hosts.push((address, called.join(" ")));
        self.variables.extend(variables(container, target, alias, address));
        Ok(())
    }
}

/// Docker's variables of a link: one set for each exposed port, the lowest one's also without its number, and the other's environment.
fn variables(container: &Container, target: &Container, alias: &str, address: IpAddr) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut ports: Vec<(u16, String)> = target
        .config
        .exposed_ports
        .iter()
        .filter_map(|port| super::resolve::parse_port(port).ok())
        .map(|(number, protocol)| (number, protocol.as_str().to_owned()))
        .collect();
    ports.extend(target.state.ports.iter().map(|port| (port.container_port, port.protocol.clone())));
    // TCP first, as Docker orders them.
    ports.sort_by_key(|(number, protocol)| (protocol != "tcp", *number));
    ports.dedup();
    let mut lines = vec![format!("{prefix}_NAME=/{}/{alias}", container.name)];
    if let Some((number, protocol)) = ports.first() {
        lines.push(format!("{prefix}_PORT={protocol}://{address}:{number}"));
    }
    for (number, protocol) in &ports {
        let port = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        lines.push(format!("{port}={protocol}://{address}:{number}"));
        lines.push(format!("{port}_ADDR={address}"));
        lines.push(format!("{port}_PORT={number}"));
        lines.push(format!("{port}_PROTO={protocol}"));
    }
    let own = target.config.env.iter().filter(|entry| entry.contains('=') && !entry.starts_with("HOME=") && !entry.starts_with("PATH="));
    lines.extend(own.map(|entry| format!("{prefix}_ENV_{entry}")));
    lines
}

/// What a container's endpoint calls others: alias → name on that network.
pub(super) fn aliases(engine: &Engine, request: &EndpointRequest) -> BTreeMap<String, String> {
    let named = |link: &String| {
        let (name, alias) = parse(link).ok()?;
        let name = engine.registry.find(name).map_or_else(|_| name.to_owned(), |entry| entry.view().name.clone());
        Some((alias.to_owned(), name))
    };
    request.links.iter().filter_map(named).collect()
}

/// After a start: who links to the container learns its address.
pub(super) async fn tell(engine: &Arc<Engine>, started: &str) {
    let prefix = format!("{started}:");
    for entry in engine.registry.all() {
        let Some(live) = entry.live() else { continue };
        if !entry.view().host_config.links.iter().any(|link| link.starts_with(&prefix)) {
            continue;
        }
        let (worker, owner) = (Arc::clone(engine), Arc::clone(&entry));
        let written =
            blocking(move || start::write_files(&worker, &worker.record_now(&owner)?, &live.connections.attachments).map(drop)).await;
        if let Err(err) = written {
            tracing::warn!(container = entry.id, "tell it the address of {}: {err}", id::short(started));
        }
    }
}

/// Takes the link `container/alias` away; a running container forgets the name.
///
/// # Errors
/// `NotFound`; `Conflict` for a name without a link in it.
pub(super) async fn remove(engine: &Arc<Engine>, name: &str) -> Result<()> {
    let Some((owner, alias)) = name.trim_start_matches('/').split_once('/') else {
        engine.registry.find(name)?;
        return Err(Error::conflict("Conflict, cannot remove the default link name of the container"));
    };
    let entry = engine.registry.find(owner)?;
    let _operation = entry.operation.lock().await;
    let container = entry.view();
    let kept: Vec<String> =
        container.host_config.links.iter().filter(|link| link.split_once(':').is_none_or(|(_, own)| own != alias)).cloned().collect();
    if kept.len() == container.host_config.links.len() {
        return Err(Error::not_found(format!("Cannot get link {alias} of container /{}", container.name)));
    }
    engine.update(&entry, Vec::new(), move |container| container.host_config.links = kept).await?;
    if container.state.status == Status::Running
        && let Some(live) = entry.live()
    {
        let (worker, owner) = (Arc::clone(engine), Arc::clone(&entry));
        blocking(move || start::write_files(&worker, &worker.record_now(&owner)?, &live.connections.attachments).map(drop)).await?;
    }
    Ok(())
}

/// The links of a container's endpoints by network id, for its resolver.
pub(super) fn by_network(engine: &Engine, container: &Container) -> BTreeMap<String, BTreeMap<String, String>> {
    let own = |(name, request): (&String, &EndpointRequest)| match engine.networks.find(name) {
        Ok(Found::User(record)) if !request.links.is_empty() => Some((record.id, aliases(engine, request))),
        _ => None,
    };
    container.endpoints.iter().filter_map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_written_in_three_ways() {
        assert_eq!(parse("db").expect("a link"), ("db", "db"));
        assert_eq!(parse("db:store").expect("a link"), ("db", "store"));
        assert_eq!(parse("/db:/web/store").expect("a link"), ("db", "store"));
        for bad in ["", ":", "a:", ":b", "a:b:c"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
