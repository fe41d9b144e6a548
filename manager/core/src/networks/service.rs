//! The network service.

use std::collections::BTreeMap;
use std::sync::Arc;

use rcontainerd_types::{Error, ErrorKind, Result, id};

use super::catalog::{BUILT_IN, Found, NETWORKS, Record};
use super::{ConnectNetwork, CreateNetwork, DisconnectNetwork, IpamPool, Network, NetworkMember, create, id_of};
use crate::containers::membership;
use crate::engine::{Engine, blocking, owned};
use crate::events::{EventKind, NewEvent};
use crate::filters::Filters;

const FILTERS: &[&str] = &["name", "id", "driver", "type", "scope", "label", "label!", "dangling"];
const PRUNE_FILTERS: &[&str] = &["until", "label", "label!"];

/// Cheap to clone.
#[derive(Clone)]
pub struct Networks {
    engine: Arc<Engine>,
}

impl Networks {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// By name; filters `name`, `id`, `driver`, `type`, `scope`, `label`, `dangling`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn list(&self, filters: Filters) -> Result<Vec<Network>> {
        filters.accept(FILTERS)?;
        filters.one_of("type", &["builtin", "custom"])?;
        let dangling = filters.flag("dangling")?;
        let names = filters.patterns("name");
        let used = self.used();
        let kind = |network: &Network| if is_built_in(&network.name) { "builtin" } else { "custom" };
        let wanted = |network: &Network| {
            names.hold(&network.name)
                && filters.any("id", |id| network.id.starts_with(id))
                && filters.any("driver", |driver| network.driver == driver)
                && filters.any("scope", |scope| scope == "local")
                && filters.any("type", |wanted| wanted == kind(network))
                && filters.labels(&network.labels)
                && dangling.is_none_or(|dangling| dangling != (is_built_in(&network.name) || used.contains_key(&network.id)))
        };
        Ok(self.all().into_iter().filter(wanted).collect())
    }

    /// By name, id or id prefix.
    ///
    /// # Errors
    /// `NotFound` (`network x not found`).
    pub async fn inspect(&self, name: &str) -> Result<Network> {
        let found = self.engine.networks.find(name)?;
        Ok(self.shown(&found))
    }

    /// Makes a network and its bridge; returns its id.
    ///
    /// # Errors
    /// `AlreadyExists` for a name in use, `PermissionDenied` for one of Docker's own or a subnet in use, `InvalidArgument`,
    /// `Unsupported`.
    pub async fn create(&self, command: CreateNetwork) -> Result<String> {
        let engine = Arc::clone(&self.engine);
        owned(async move {
            let _order = engine.networks.changing().await;
            let worker = Arc::clone(&engine);
            blocking(move || make(&worker, command)).await
        })
        .await
    }

    /// # Errors
    /// `NotFound`; `PermissionDenied` for one of Docker's own and while containers run on it.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let (engine, name) = (Arc::clone(&self.engine), name.to_owned());
        owned(async move {
            let _order = engine.networks.changing().await;
            let record = user_defined(&engine, &name)?;
            if let Some(users) = running(&engine).get(&record.id) {
                let users: Vec<String> = users.iter().map(|(name, id)| format!("name:{name:?} id:{:?}", id::short(id))).collect();
                let (name, id) = (&record.name, &record.id);
                let message = format!("error while removing network: network {name} has active endpoints ({}) id {id}", users.join(", "));
                return Err(Error::new(ErrorKind::PermissionDenied, message));
            }
            let worker = Arc::clone(&engine);
            blocking(move || destroy(&worker, &record)).await
        })
        .await
    }

    /// Removes the networks that no container refers to; returns their names.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn prune(&self, filters: Filters) -> Result<Vec<String>> {
        filters.accept(PRUNE_FILTERS)?;
        let before = filters.until()?;
        let mut removed = Vec::new();
        for record in self.engine.networks.all() {
            let old = before.is_none_or(|before| record.created < before);
            if old && filters.labels(&record.labels) && !self.used().contains_key(&record.id) {
                match self.remove(&record.id).await {
                    Ok(()) => removed.push(record.name),
                    // Somebody was quicker, to use it or to remove it.
                    Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
                    Err(err) => return Err(err),
                }
            }
        }
        Ok(removed)
    }

    /// Connects a container, at once if it runs.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied` when it is connected already or shares another's network.
    pub async fn connect(&self, command: ConnectNetwork) -> Result<()> {
        let engine = Arc::clone(&self.engine);
        owned(async move { membership::connect(&engine, command).await }).await
    }

    /// # Errors
    /// `NotFound`; `PermissionDenied` when it is not connected.
    pub async fn disconnect(&self, command: DisconnectNetwork) -> Result<()> {
        let engine = Arc::clone(&self.engine);
        owned(async move { membership::disconnect(&engine, command).await }).await
    }

    fn all(&self) -> Vec<Network> {
        let built_in = [Found::Default, Found::Host, Found::None];
        let users = self.engine.networks.all().into_iter().map(|record| Found::User(Box::new(record)));
        let mut all: Vec<Network> = built_in.into_iter().chain(users).map(|found| self.shown(&found)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn shown(&self, found: &Found) -> Network {
        let containers = self.members(found);
        match found {
            Found::User(record) => shown_record(record, containers),
            _ => self.shown_built_in(found.name(), containers),
        }
    }

    fn shown_built_in(&self, name: &str, containers: BTreeMap<String, NetworkMember>) -> Network {
        let bridge = self.engine.network.existing_bridge(name);
        let pool = |bridge: &rcontainerd_network::BridgeInfo| IpamPool {
            subnet: bridge.subnet.to_string(),
            gateway: bridge.gateway.to_string(),
            ..IpamPool::default()
        };
        let options = bridge.iter().map(|bridge| ("com.docker.network.bridge.name".to_owned(), bridge.name.clone())).collect();
        let driver = BUILT_IN.iter().find(|(known, _)| *known == name).map_or("", |(_, driver)| driver);
        Network {
            name: name.to_owned(),
            id: id_of(name),
            created: self.engine.opened,
            driver: driver.to_owned(),
            enable_ipv4: true,
            enable_ipv6: false,
            internal: false,
            attachable: false,
            ipam: bridge.iter().map(pool).collect(),
            options,
            labels: BTreeMap::new(),
            containers,
        }
    }

    fn members(&self, found: &Found) -> BTreeMap<String, NetworkMember> {
        let on_it =
            self.engine.registry.all().into_iter().map(|entry| entry.view()).filter(|container| container.state.status.is_running());
        let member = |container: Arc<crate::containers::Outline>| {
            let endpoint = match container.state.networks.get(found.name()) {
                Some(endpoint) => endpoint.clone(),
                // Without an address of its own.
                None if container.host_config.network_mode == found.name() && found.bridge().is_none() => Default::default(),
                None => return None,
            };
            let address = |ip: &str, length: u8| if ip.is_empty() { String::new() } else { format!("{ip}/{length}") };
            let member = NetworkMember {
                ipv4_address: address(&endpoint.ipv4_address, endpoint.ipv4_prefix_len),
                ipv6_address: address(&endpoint.ipv6_address, endpoint.ipv6_prefix_len),
                endpoint_id: endpoint.endpoint_id,
                mac_address: endpoint.mac_address,
                name: container.name.clone(),
            };
            Some((container.id.clone(), member))
        };
        on_it.filter_map(member).collect()
    }

    /// Network id → containers that refer to it, running or not.
    fn used(&self) -> BTreeMap<String, Vec<String>> {
        let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for container in self.engine.registry.all().into_iter().map(|entry| entry.view()) {
            let mode = Some(&container.host_config.network_mode).filter(|_| !container.left_mode);
            for name in container.endpoints.keys().chain(mode) {
                if let Ok(found) = self.engine.networks.find(name) {
                    used.entry(found.id()).or_default().push(container.id.clone());
                }
            }
        }
        used
    }
}

fn is_built_in(name: &str) -> bool {
    BUILT_IN.iter().any(|(known, _)| *known == name)
}

fn shown_record(record: &Record, containers: BTreeMap<String, NetworkMember>) -> Network {
    let bridge = &record.bridge;
    let text = |value: Option<String>| value.unwrap_or_default();
    let pool = IpamPool {
        subnet: text(bridge.subnet.map(|net| net.to_string())),
        ip_range: text(bridge.ip_range.map(|net| net.to_string())),
        gateway: text(bridge.gateway.map(|address| address.to_string())),
        auxiliary: record.auxiliary.iter().map(|(name, address)| (name.clone(), address.to_string())).collect(),
    };
    Network {
        name: record.name.clone(),
        id: record.id.clone(),
        created: record.created,
        driver: "bridge".to_owned(),
        enable_ipv4: true,
        enable_ipv6: false,
        internal: bridge.internal,
        attachable: record.attachable,
        ipam: vec![pool],
        options: record.options.clone(),
        labels: record.labels.clone(),
        containers,
    }
}

/// The bridge first: a crash in between leaves a bridge that nobody knows, which the next network of the same name cannot collide with.
fn make(engine: &Engine, command: CreateNetwork) -> Result<String> {
    if engine.networks.all().iter().any(|record| record.name == command.name) {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("network with name {} already exists", command.name)));
    }
    let mut record = create::record(command, id::generate()?)?;
    let info = engine.network.create(&record.bridge).map_err(|err| match err.kind() {
        ErrorKind::Conflict => err.with_kind(ErrorKind::PermissionDenied).context("invalid pool request"),
        _ => err,
    })?;
    record.bridge.subnet = Some(info.subnet);
    record.bridge.gateway = Some(info.gateway);
    let written = engine.store.metadata().write(|tx| {
        tx.put(NETWORKS, &record.id, &record)?;
        engine.record_all(tx, vec![told("create", &record)])
    });
    match written {
        Ok(events) => {
            engine.networks.insert(record.clone());
            events.into_iter().for_each(|event| engine.events.publish(event));
            Ok(record.id)
        }
        Err(err) => {
            if let Err(undo) = engine.network.remove(&record.id) {
                tracing::warn!(network = record.name, "undo its creation: {undo}");
            }
            Err(err)
        }
    }
}

fn destroy(engine: &Engine, record: &Record) -> Result<()> {
    engine.network.remove(&record.id)?;
    let events = engine.store.metadata().write(|tx| {
        tx.delete(NETWORKS, &record.id)?;
        engine.record_all(tx, vec![told("destroy", record)])
    })?;
    engine.networks.remove(&record.id);
    events.into_iter().for_each(|event| engine.events.publish(event));
    Ok(())
}

fn told(action: &str, record: &Record) -> NewEvent {
    let attributes = BTreeMap::from([("name".into(), record.name.clone()), ("type".into(), "bridge".into())]);
    NewEvent { kind: EventKind::Network, action: action.into(), actor: record.id.clone(), attributes }
}

fn user_defined(engine: &Engine, name: &str) -> Result<Record> {
    match engine.networks.find(name)? {
        Found::User(record) => Ok(*record),
        built_in => {
            Err(Error::new(ErrorKind::PermissionDenied, format!("{} is a pre-defined network and cannot be removed", built_in.name())))
        }
    }
}

/// Network id → name and id of the running containers on it.
fn running(engine: &Engine) -> BTreeMap<String, Vec<(String, String)>> {
    let mut running: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for container in engine.registry.all().into_iter().map(|entry| entry.view()) {
        for endpoint in container.state.networks.values() {
            running.entry(endpoint.network_id.clone()).or_default().push((container.name.clone(), container.id.clone()));
        }
    }
    running
}
