//! List and inspect: views of the records.

use std::collections::BTreeMap;
use std::sync::Arc;

use rcontainerd_store::tree;
use rcontainerd_types::{Digest, ErrorKind, Result};

use super::commands::{ContainerDetails, ContainerSummary, InspectContainer, ListContainers, PruneReport};
use super::list_filters::Wanted;
use super::model::{Health, HealthStatus, PublishedPort, Status};
use super::outline::Outline;
use super::registry::Entry;
use super::{links, logs, network, remove, resolve};
use crate::engine::{Engine, NAMESPACE, blocking};
use crate::files::MOUNT_PLACES;
use crate::filters::Filters;
use crate::human;

const PRUNE_FILTERS: &[&str] = &["until", "label", "label!"];

pub(super) async fn list(engine: &Arc<Engine>, command: ListContainers) -> Result<Vec<ContainerSummary>> {
    let wanted = Wanted::read(engine, &command.filters).await?;
    let mut all: Vec<Arc<Outline>> = engine.registry.all().iter().map(|entry| entry.view()).collect();
    all.sort_by_key(|container| std::cmp::Reverse(container.created));
    let everything = command.all || command.limit.is_some() || wanted.includes_stopped();
    let shown = |container: &Arc<Outline>| (everything || container.state.status.is_running()) && wanted.holds(engine, container);
    let limit = command.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let chosen: Vec<Arc<Outline>> = all.into_iter().filter(shown).take(limit).collect();
    let mut summaries = Vec::with_capacity(chosen.len());
    let images = engine.images.resolve_all(chosen.iter().map(|container| container.config.image.clone()).collect()).await;
    let mut link_names = links::names(engine);
    for container in chosen {
        let sizes = if command.size { measured(engine, &container).await? } else { None };
        summaries.push(ContainerSummary {
            image: image_name(&container, &images),
            link_names: link_names.remove(&container.id).unwrap_or_default(),
            networks: network::networks_of(engine, &container),
            ports: ports(&container),
            status: status(&container),
            size_rw: sizes.map(|(own, _)| own),
            size_root_fs: sizes.map(|(_, all)| all),
            container,
        });
    }
    Ok(summaries)
}

/// The name that the container was made by, unless it means another image by now.
fn image_name(container: &Outline, meant: &BTreeMap<String, Digest>) -> String {
    let name = &container.config.image;
    let means_it = meant.get(name).map_or(container.image_id.is_empty(), |id| id.to_string() == container.image_id);
    if means_it { name.clone() } else { container.image_id.clone() }
}

/// Bound ports and those only exposed.
pub(super) fn ports(container: &Outline) -> Vec<PublishedPort> {
    let mut ports = container.state.ports.clone();
    if !container.state.status.is_running() {
        return ports;
    }
    for text in &container.config.exposed_ports {
        let Ok((number, protocol)) = resolve::parse_port(text) else { continue };
        if !ports.iter().any(|port| port.container_port == number && port.protocol == protocol.as_str()) {
            let protocol = protocol.as_str().to_owned();
            ports.push(PublishedPort { container_port: number, protocol, host_ip: String::new(), host_port: 0 });
        }
    }
    ports.sort_by(|a, b| (a.container_port, &a.protocol).cmp(&(b.container_port, &b.protocol)));
    ports
}

fn status(container: &Outline) -> String {
    let state = &container.state;
    match state.status {
        Status::Running => match &state.health {
            None => format!("Up {}", human::since(state.started_at)),
            Some(Health { status: HealthStatus::Starting, .. }) => format!("Up {} (health: starting)", human::since(state.started_at)),
            Some(health) => format!("Up {} ({})", human::since(state.started_at), health.status.as_str()),
        },
        Status::Paused => format!("Up {} (Paused)", human::since(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, human::since(state.finished_at)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, human::since(state.finished_at)),
        Status::Created => "Created".to_owned(),
    }
}

/// `None` for a container that is being removed at this moment.
async fn measured(engine: &Arc<Engine>, container: &Outline) -> Result<Option<(u64, u64)>> {
    match sizes(engine, container).await {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Bytes of the container's own files, and of everything.
async fn sizes(engine: &Arc<Engine>, container: &Outline) -> Result<(u64, u64)> {
    let (owner, snapshotter, key) = (Arc::clone(engine), container.snapshotter.clone(), container.snapshot_key.clone());
    blocking(move || {
        let snapshots = owner.store.snapshotter(NAMESPACE, &snapshotter)?;
        let own = tree::changed_bytes(&*snapshots, &key, MOUNT_PLACES)?;
        let (mut all, mut parent) = (own, snapshots.stat(&key)?.parent);
        while let Some(name) = parent {
            all += snapshots.usage(&name)?.size;
            parent = snapshots.stat(&name)?.parent;
        }
        Ok((own, all))
    })
    .await
}

pub(super) async fn inspect(engine: &Arc<Engine>, entry: &Arc<Entry>, command: &InspectContainer) -> Result<ContainerDetails> {
    let (mut container, outline) = (engine.record(entry).await?, entry.view());
    container.host_config.links = links::shown(engine, &outline);
    let dir = engine.container_dir(&entry.id);
    let shows_log = resolve::LogPlan::parse(&container.host_config.log_config)?.shows_its_path();
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let sizes = if command.size { Some(sizes(engine, &outline).await?) } else { None };
    Ok(ContainerDetails {
        log_path: if shows_log { text(logs::path(engine, &entry.id)) } else { String::new() },
        resolv_conf_path: text(dir.join("resolv.conf")),
        hostname_path: text(dir.join("hostname")),
        hosts_path: text(dir.join("hosts")),
        exec_ids: if container.state.status.is_running() { engine.execs.of_container(&entry.id) } else { Vec::new() },
        networks: network::networks_of(engine, &outline),
        sandbox_key: entry.live().and_then(|live| live.connections.netns).map(text).unwrap_or_default(),
        storage_driver: crate::system::docker_driver_name(&container.snapshotter).to_owned(),
        graph_driver: graph_driver(engine, &outline).await,
        ports: ports(&outline),
        size_rw: sizes.map(|(own, _)| own),
        size_root_fs: sizes.map(|(_, all)| all),
        container,
    })
}

/// Docker's `GraphDriver.Data`; empty when the snapshot is gone or has no layers.
async fn graph_driver(engine: &Arc<Engine>, container: &Outline) -> BTreeMap<String, String> {
    let (owner, snapshotter, key) = (Arc::clone(engine), container.snapshotter.clone(), container.snapshot_key.clone());
    let dirs = blocking(move || owner.store.snapshotter(NAMESPACE, &snapshotter)?.layer_dirs(&key)).await;
    let Ok(dirs) = dirs else { return BTreeMap::new() };
    let lower: Vec<String> = dirs.lowers.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let merged = engine.tasks.bundle_path(&engine.task_key(&container.id)).join("rootfs");
    BTreeMap::from([
        ("LowerDir".to_owned(), lower.join(":")),
        ("UpperDir".to_owned(), dirs.upper.to_string_lossy().into_owned()),
        ("WorkDir".to_owned(), dirs.upper.with_file_name("work").to_string_lossy().into_owned()),
        ("MergedDir".to_owned(), merged.to_string_lossy().into_owned()),
    ])
}

pub(super) async fn prune(engine: &Arc<Engine>, filters: Filters) -> Result<PruneReport> {
    filters.accept(PRUNE_FILTERS)?;
    let until = filters.until()?;
    let mut report = PruneReport::default();
    for entry in engine.registry.all() {
        let Ok(_operation) = entry.operation.try_lock() else { continue };
        let container = entry.view();
        let stopped = matches!(container.state.status, Status::Created | Status::Exited | Status::Dead) && entry.live().is_none();
        if !stopped || !filters.labels(&container.config.labels) || until.is_some_and(|limit| container.created > limit) {
            continue;
        }
        let size = sizes(engine, &container).await.map_or(0, |(own, _)| own);
        remove::discard(engine, &entry, false).await?;
        report.space_reclaimed += size;
        report.deleted.push(container.id.clone());
    }
    Ok(report)
}
