//! List and inspect: views of the records.

use std::collections::BTreeMap;
use std::sync::Arc;

use rcontainerd_types::{Error, Result};

use super::commands::{ContainerDetails, ContainerSummary, InspectContainer, ListContainers, PruneReport};
use super::model::{Container, PublishedPort, Status};
use super::registry::Entry;
use super::{logs, remove, resolve};
use crate::engine::{Engine, NAMESPACE, blocking};
use crate::filters::Filters;
use crate::human;

const LIST_FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "since",
    "exited",
    "expose",
    "publish",
    "health",
    "id",
    "label",
    "label!",
    "name",
    "network",
    "status",
    "volume",
    "is-task",
    "isolation",
];
const PRUNE_FILTERS: &[&str] = &["until", "label", "label!"];

pub(super) async fn list(engine: &Arc<Engine>, command: ListContainers) -> Result<Vec<ContainerSummary>> {
    let filters = &command.filters;
    filters.accept(LIST_FILTERS)?;
    check_values(filters)?;
    let bounds = bounds(engine, filters)?;
    let ancestors = ancestors(engine, filters).await;
    let mut all: Vec<Container> = engine.registry.all().iter().map(|entry| entry.record()).collect();
    all.sort_by_key(|container| std::cmp::Reverse(container.created));
    // Asking for a status or an exit code asks for stopped ones too.
    let everything = command.all || command.limit.is_some() || ["status", "exited", "before", "since"].iter().any(|key| filters.has(key));
    let shown = |container: &Container| {
        (everything || container.state.status.is_running())
            && matches(filters, container)
            && bounds.hold(container)
            && ancestors.hold(container)
    };
    let limit = command.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let chosen: Vec<Container> = all.into_iter().filter(shown).take(limit).collect();
    let mut summaries = Vec::with_capacity(chosen.len());
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for container in chosen {
        let image = image_name(engine, &container, &mut names).await;
        let sizes = if command.size { Some(sizes(engine, &container).await?) } else { None };
        summaries.push(ContainerSummary {
            image,
            ports: ports(&container),
            status: status(&container),
            size_rw: sizes.map(|(own, _)| own),
            size_root_fs: sizes.map(|(_, all)| all),
            container,
        });
    }
    Ok(summaries)
}

fn check_values(filters: &Filters) -> Result<()> {
    let statuses = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
    if let Some(bad) = filters.get("status").iter().find(|status| !statuses.contains(&status.as_str())) {
        return Err(Error::invalid(format!("invalid filter 'status={bad}'")));
    }
    if let Some(bad) = filters.get("exited").iter().find(|code| code.parse::<i64>().is_err()) {
        return Err(Error::invalid(format!("invalid filter 'exited={bad}'")));
    }
    Ok(())
}

/// `before` and `since` name containers.
struct Bounds {
    before: Option<jiff::Timestamp>,
    since: Option<jiff::Timestamp>,
}

fn bounds(engine: &Engine, filters: &Filters) -> Result<Bounds> {
    let created =
        |key: &str| filters.get(key).first().map(|name| engine.registry.find(name).map(|entry| entry.record().created)).transpose();
    Ok(Bounds { before: created("before")?, since: created("since")? })
}

impl Bounds {
    fn hold(&self, container: &Container) -> bool {
        self.before.is_none_or(|limit| container.created < limit) && self.since.is_none_or(|limit| container.created > limit)
    }
}

/// Image ids that `ancestor` means; `None` where it is not asked for.
struct Ancestors(Option<Vec<String>>);

async fn ancestors(engine: &Engine, filters: &Filters) -> Ancestors {
    if !filters.has("ancestor") {
        return Ancestors(None);
    }
    let mut ids = Vec::new();
    for name in filters.get("ancestor") {
        // A name that no image has matches nothing, as in Docker.
        if let Ok(id) = engine.images.resolve(name).await {
            ids.push(id.to_string());
        }
    }
    Ancestors(Some(ids))
}

impl Ancestors {
    fn hold(&self, container: &Container) -> bool {
        self.0.as_ref().is_none_or(|ids| ids.contains(&container.image_id))
    }
}

fn matches(filters: &Filters, container: &Container) -> bool {
    let state = &container.state;
    let exposes = |wanted: &str| {
        let exposed = container.config.exposed_ports.iter().filter_map(|text| resolve::parse_port(text).ok());
        exposed.into_iter().any(|(number, protocol)| port_matches(wanted, number, protocol.as_str()))
    };
    let publishes =
        |wanted: &str| state.ports.iter().any(|own| own.host_port != 0 && port_matches(wanted, own.container_port, &own.protocol));
    filters.any("id", |id| container.id.starts_with(id))
        && filters.any("name", |name| container.name.contains(name.trim_matches(['^', '$', '/'])) && anchored(name, &container.name))
        && filters.any("status", |status| status == state.status.as_str())
        && filters.any("exited", |code| state.status == Status::Exited && code.parse() == Ok(state.exit_code))
        && filters.labels(&container.config.labels)
        && filters.any("volume", |wanted| {
            container.mounts.iter().any(|mount| mount.name == wanted || mount.source == wanted || mount.destination == wanted)
        })
        && filters.any("network", |wanted| {
            container.host_config.network_mode == wanted || crate::networks::id_of(&container.host_config.network_mode).starts_with(wanted)
        })
        && filters.any("health", |wanted| wanted == "none")
        && filters.any("is-task", |wanted| matches!(wanted, "false" | "0"))
        && filters.any("isolation", |wanted| wanted == "default")
        && filters.any("expose", exposes)
        && filters.any("publish", publishes)
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn port_matches(wanted: &str, number: u16, protocol: &str) -> bool {
    let (numbers, wanted_protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let within = first.parse::<u16>().is_ok_and(|first| first <= number) && last.parse::<u16>().is_ok_and(|last| number <= last);
    within && wanted_protocol == protocol
}

/// The part of Docker's name patterns that scripts use: `^/name$`.
fn anchored(pattern: &str, name: &str) -> bool {
    let bare = pattern.trim_start_matches('^').trim_start_matches('/').trim_end_matches('$');
    (!pattern.starts_with('^') || name.starts_with(bare)) && (!pattern.ends_with('$') || name.ends_with(bare))
}

/// The name that the container was made by, unless it means another image by now.
async fn image_name(engine: &Engine, container: &Container, known: &mut BTreeMap<String, String>) -> String {
    let name = &container.config.image;
    if !known.contains_key(name) {
        let id = engine.images.resolve(name).await.map(|id| id.to_string()).unwrap_or_default();
        known.insert(name.clone(), id);
    }
    if known.get(name) == Some(&container.image_id) { name.clone() } else { container.image_id.clone() }
}

/// Bound ports and those only exposed.
fn ports(container: &Container) -> Vec<PublishedPort> {
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
    ports
}

fn status(container: &Container) -> String {
    let state = &container.state;
    match state.status {
        Status::Running => format!("Up {}", human::since(state.started_at)),
        Status::Paused => format!("Up {} (Paused)", human::since(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, human::since(state.finished_at)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, human::since(state.finished_at)),
        Status::Created => "Created".to_owned(),
    }
}

/// Bytes of the writable layer, and of everything.
async fn sizes(engine: &Arc<Engine>, container: &Container) -> Result<(u64, u64)> {
    let (owner, snapshotter, key) = (Arc::clone(engine), container.snapshotter.clone(), container.snapshot_key.clone());
    blocking(move || {
        let snapshots = owner.store.snapshotter(NAMESPACE, &snapshotter)?;
        let own = snapshots.usage(&key)?.size;
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
    let container = entry.record();
    let dir = engine.container_dir(&entry.id);
    let keeps_log = resolve::LogPlan::parse(&container.host_config.log_config)?.keeps();
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let sizes = if command.size { Some(sizes(engine, &container).await?) } else { None };
    Ok(ContainerDetails {
        log_path: if keeps_log { text(logs::path(engine, &entry.id)) } else { String::new() },
        resolv_conf_path: text(dir.join("resolv.conf")),
        hostname_path: text(dir.join("hostname")),
        hosts_path: text(dir.join("hosts")),
        exec_ids: engine.execs.of_container(&entry.id),
        sandbox_key: entry.live().and_then(|live| live.netns).map(text).unwrap_or_default(),
        graph_driver: graph_driver(engine, &container).await,
        ports: ports(&container),
        size_rw: sizes.map(|(own, _)| own),
        size_root_fs: sizes.map(|(_, all)| all),
        container,
    })
}

/// Docker's `GraphDriver.Data`; empty when the snapshot is gone or has no layers.
async fn graph_driver(engine: &Arc<Engine>, container: &Container) -> BTreeMap<String, String> {
    let (owner, snapshotter, key) = (Arc::clone(engine), container.snapshotter.clone(), container.snapshot_key.clone());
    let dirs = blocking(move || owner.store.snapshotter(NAMESPACE, &snapshotter)?.layer_dirs(&key)).await;
    let Ok(dirs) = dirs else { return BTreeMap::new() };
    let lower: Vec<String> = dirs.lowers.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let merged = engine.tasks.bundle_path(&engine.task_key(&container.id)).join("rootfs");
    BTreeMap::from([
        ("LowerDir".to_owned(), lower.join(":")),
        ("UpperDir".to_owned(), dirs.upper.to_string_lossy().into_owned()),
        ("MergedDir".to_owned(), merged.to_string_lossy().into_owned()),
    ])
}

pub(super) async fn prune(engine: &Arc<Engine>, filters: Filters) -> Result<PruneReport> {
    filters.accept(PRUNE_FILTERS)?;
    let until = filters.get("until").first().map(|text| until(text)).transpose()?;
    let mut report = PruneReport::default();
    for entry in engine.registry.all() {
        let Ok(_operation) = entry.operation.try_lock() else { continue };
        let container = entry.record();
        let stopped = matches!(container.state.status, Status::Created | Status::Exited | Status::Dead) && entry.live().is_none();
        if !stopped || !filters.labels(&container.config.labels) || until.is_some_and(|limit| container.created > limit) {
            continue;
        }
        let size = sizes(engine, &container).await.map_or(0, |(own, _)| own);
        remove::discard(engine, &entry, false).await?;
        report.space_reclaimed += size;
        report.deleted.push(container.id);
    }
    Ok(report)
}

/// A date, seconds since the epoch, or a duration back from now (`24h`, `10m30s`).
fn until(text: &str) -> Result<jiff::Timestamp> {
    let invalid = || Error::invalid(format!("invalid filter 'until={text}'"));
    if let Ok(seconds) = text.parse::<i64>() {
        return jiff::Timestamp::from_second(seconds).map_err(|_| invalid());
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    let span: jiff::SignedDuration = text.parse().map_err(|_| invalid())?;
    jiff::Timestamp::now().checked_sub(span).map_err(|_| invalid())
}
