//! The list's filters, checked and looked up once, then held against each container.

use jiff::Timestamp;
use rcontainerd_types::{Error, Result};

use super::list::ports;
use super::model::{PublishedPort, Status};
use super::network;
use super::outline::Outline;
use crate::engine::Engine;
use crate::filters::{Filters, Patterns};

const KNOWN: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATUSES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTHS: &[&str] = &["none", "starting", "healthy", "unhealthy"];

/// What a container has to be, ready to be asked of each.
pub(super) struct Wanted<'a> {
    filters: &'a Filters,
    names: Patterns,
    exited: Vec<i64>,
    /// What is asked of tasks of a swarm, which no container here is.
    nothing: bool,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    /// Ids of the images meant by `ancestor`; `None` where it is not asked for.
    ancestors: Option<Vec<String>>,
    published: Vec<PortRange>,
    exposed: Vec<PortRange>,
}

impl<'a> Wanted<'a> {
    /// # Errors
    /// `InvalidArgument` for an unknown key or a value that its key cannot have, `NotFound` for a container that is not there.
    pub async fn read(engine: &Engine, filters: &'a Filters) -> Result<Self> {
        filters.accept(KNOWN)?;
        filters.one_of("status", STATUSES)?;
        filters.one_of("health", HEALTHS)?;
        let created = |key: &str| filters.get(key).first().map(|name| Ok(engine.registry.find(name)?.view().created)).transpose();
        Ok(Self {
            names: filters.patterns("name"),
            exited: filters.get("exited").iter().map(|text| exit_code(text)).collect::<Result<_>>()?,
            nothing: filters.flag("is-task")? == Some(true),
            before: created("before")?,
            since: created("since")?,
            ancestors: ancestors(engine, filters).await,
            published: port_ranges(filters, "publish")?,
            exposed: port_ranges(filters, "expose")?,
            filters,
        })
    }

    /// Asking for a status asks for stopped ones too.
    pub fn includes_stopped(&self) -> bool {
        self.filters.has("status")
    }

    pub fn holds(&self, engine: &Engine, container: &Outline) -> bool {
        let state = &container.state;
        let filters = self.filters;
        !self.nothing
            && self.before.is_none_or(|limit| container.created < limit)
            && self.since.is_none_or(|limit| container.created > limit)
            && self.ancestors.as_ref().is_none_or(|ids| ids.contains(&container.image_id))
            && (self.names.hold(&container.name) || self.names.hold(&format!("/{}", container.name)))
            && (self.exited.is_empty() || state.status == Status::Exited && self.exited.contains(&state.exit_code))
            && filters.any("id", |id| container.id.starts_with(id))
            && filters.any("status", |status| status == state.status.as_str())
            && filters.any("health", |wanted| wanted == state.health.as_ref().map_or("none", |health| health.status.as_str()))
            && filters.any("isolation", |wanted| wanted == "default")
            && filters.any("volume", |wanted| has_mount(container, wanted))
            && filters.labels(&container.config.labels)
            && self.reaches(container)
            && self.is_on(engine, container)
    }

    /// Published and exposed ports are alternatives.
    fn reaches(&self, container: &Outline) -> bool {
        let asked = !self.published.is_empty() || !self.exposed.is_empty();
        let within = |ranges: &[PortRange], number, port: &PublishedPort| ranges.iter().any(|range| range.holds(number, &port.protocol));
        !asked
            || ports(container)
                .iter()
                .any(|port| within(&self.published, port.host_port, port) || within(&self.exposed, port.container_port, port))
    }

    fn is_on(&self, engine: &Engine, container: &Outline) -> bool {
        if !self.filters.has("network") {
            return true;
        }
        let networks = network::networks_of(engine, container);
        self.filters.any("network", |wanted| networks.iter().any(|(name, id)| name == wanted || id.starts_with(wanted)))
    }
}

fn exit_code(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::invalid(format!("invalid filter 'exited={text}'")))
}

async fn ancestors(engine: &Engine, filters: &Filters) -> Option<Vec<String>> {
    if !filters.has("ancestor") {
        return None;
    }
    let mut ids = Vec::new();
    for name in filters.get("ancestor") {
        // A name that no image has matches nothing, as in Docker.
        if let Ok(id) = engine.images.resolve(name).await {
            ids.push(id.to_string());
        }
    }
    Some(ids)
}

fn has_mount(container: &Outline, wanted: &str) -> bool {
    let source = |mount: &super::model::MountPoint| if mount.name.is_empty() { mount.source == wanted } else { mount.name == wanted };
    container.mounts.iter().any(|mount| source(mount) || mount.destination == wanted)
}

/// `80`, `80/udp`, `8000-8010/tcp`.
#[derive(Debug, PartialEq, Eq)]
struct PortRange {
    first: u16,
    last: u16,
    protocol: String,
}

fn port_ranges(filters: &Filters, key: &str) -> Result<Vec<PortRange>> {
    let parse = |text: &String| PortRange::parse(text).ok_or_else(|| Error::invalid(format!("invalid filter '{key}={text}'")));
    filters.get(key).iter().map(parse).collect()
}

impl PortRange {
    fn parse(text: &str) -> Option<Self> {
        let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        let known = ["tcp", "udp", "sctp"].contains(&protocol.to_ascii_lowercase().as_str());
        (first <= last && known).then(|| Self { first, last, protocol: protocol.to_ascii_lowercase() })
    }

    /// Zero is a port that is not there.
    fn holds(&self, number: u16, protocol: &str) -> bool {
        number != 0 && (self.first..=self.last).contains(&number) && self.protocol == protocol
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_ranges_and_protocols() {
        let range = |text| PortRange::parse(text).expect(text);
        assert!(range("80").holds(80, "tcp") && !range("80").holds(80, "udp") && !range("80").holds(81, "tcp"));
        assert!(range("8000-8010/udp").holds(8005, "udp"));
        assert!(!range("0-10").holds(0, "tcp"), "not published");
        for bad in ["", "x", "80/x", "9-8", "1:2", "80/"] {
            assert_eq!(PortRange::parse(bad), None, "{bad}");
        }
    }
}
