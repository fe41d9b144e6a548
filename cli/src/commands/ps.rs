//! `ps`, `container ls`.

use std::collections::BTreeMap;

use proto_docker::container::{ContainerSummary, MountPoint, Port};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::common::{filters, format_flag, print_rows_of};
use super::images::or_none;
use crate::cli::Cli;
use crate::cmdline::{Command, Flag, Matches, Outcome, Running, filter, int, leaf, switch};
use crate::output::template::{self, Columns, Row, Value, Wanted};
use crate::output::units;

static FLAGS: &[Flag] = &[
    switch("all", "a", "Show all containers (default shows just running)"),
    filter("f", "Show only what fits the conditions"),
    format_flag(),
    int("last", "n", "Show the n last created containers, whatever their state").default("-1"),
    switch("latest", "l", "Show the last created container, whatever its state"),
    switch("no-trunc", "", "Don't truncate output"),
    switch("quiet", "q", "Only display container IDs"),
    switch("size", "s", "Display total file sizes"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS]",
    about: "List containers",
    names: &["container ls", "container list", "container ps", "ps"],
    flags: &[FLAGS],
    ..leaf(run)
};

/// Columns of containers, also for `system df -v`.
pub const COLUMNS: Columns = Columns { table: PLAIN, quiet: "{{.ID}}", headers: HEADERS, type_name: "formatter.ContainerContext" };

/// What columns show of a container; the rest of the answer is stepped over.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Listed {
    id: String,
    #[serde(deserialize_with = "or_none")]
    names: Vec<String>,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    command: String,
    created: i64,
    #[serde(deserialize_with = "or_none")]
    ports: Vec<Port>,
    size_rw: i64,
    size_root_fs: i64,
    labels: Option<BTreeMap<String, String>>,
    state: String,
    status: String,
    network_settings: Option<ListedNetworks>,
    #[serde(deserialize_with = "or_none")]
    mounts: Vec<MountPoint>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ListedNetworks {
    /// By name, which is all that is shown.
    networks: Option<BTreeMap<String, IgnoredAny>>,
}

impl Listed {
    fn networks(&self) -> String {
        let names = self.network_settings.iter().flat_map(|settings| &settings.networks).flat_map(BTreeMap::keys);
        names.cloned().collect::<Vec<_>>().join(",")
    }
}

impl From<&ContainerSummary> for Listed {
    fn from(container: &ContainerSummary) -> Self {
        let ContainerSummary { id, names, image, image_id, command, ports, labels, state, status, mounts, .. } = container.clone();
        let networks = container.network_settings.networks.keys().map(|name| (name.clone(), IgnoredAny)).collect();
        Self {
            id,
            names,
            image,
            image_id,
            command,
            created: container.created,
            ports,
            size_rw: container.size_rw,
            size_root_fs: container.size_root_fs,
            labels: Some(labels),
            state,
            status,
            network_settings: Some(ListedNetworks { networks: Some(networks) }),
            mounts,
        }
    }
}

const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

const PLAIN: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const WITH_SIZE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

fn run<'a>(cli: &'a Cli, matches: &'a Matches) -> Running<'a> {
    Box::pin(show(cli, matches))
}

async fn show(cli: &Cli, matches: &Matches) -> Outcome {
    // Before anything is asked for, also where there is nothing to be shown.
    if let Some(format) = matches.str("format").filter(|format| !format.is_empty()) {
        template::try_on(format, &COLUMNS, row(&Listed::default(), true, &Wanted::ALL))?;
    }
    let mut last = matches.int_or("last", -1);
    if matches.bool("latest") && last == -1 {
        last = 1;
    }
    let size = matches.bool("size");
    let counted = size || matches.str("format").is_some_and(|format| format.contains(".Size"));
    let limit = if last > 0 { last.to_string() } else { String::new() };
    let containers: Vec<Listed> = cli
        .client()?
        .get("/containers/json")
        .flag("all", matches.bool("all"))
        .query_set("limit", limit)
        .flag("size", counted)
        .query_set("filters", filters(matches.list("filter")))
        .fetch()
        .await?;
    let truncate = !matches.bool("no-trunc");
    let columns = Columns { table: if size { WITH_SIZE } else { PLAIN }, ..COLUMNS };
    print_rows_of(cli, matches, "psFormat", &columns, |wanted| containers.iter().map(move |container| row(container, truncate, &wanted)))
}

pub fn row(container: &Listed, truncate: bool, wanted: &Wanted) -> Row {
    let command = || if truncate { units::ellipsis(&container.command, 20) } else { container.command.clone() };
    let volumes = || container.mounts.iter().filter(|mount| mount.driver == "local").count();
    Row::new()
        .set_if(wanted, "ID", || if truncate { units::short_id(&container.id) } else { container.id.clone() })
        .set_if(wanted, "Names", || names(container, truncate))
        .set_if(wanted, "Image", || image(container, truncate))
        .set_if(wanted, "Command", || quote(&command()))
        .set_if(wanted, "CreatedAt", || units::local_time(container.created))
        .set_if(wanted, "RunningFor", || units::ago(container.created))
        .set_if(wanted, "Ports", || ports(&container.ports))
        .set_value("Platform", Value::no_platform())
        .set_if(wanted, "State", || container.state.as_str())
        .set_if(wanted, "Status", || container.status.as_str())
        .set_if(wanted, "Size", || size(container))
        .set_if(wanted, "Mounts", || mounts(container, truncate))
        .set_if(wanted, "LocalVolumes", || volumes().to_string())
        .set_if(wanted, "Networks", || container.networks())
        .labels_if(wanted, container.labels.as_ref().unwrap_or(&BTreeMap::new()))
}

fn names(container: &Listed, truncate: bool) -> String {
    let bare = container.names.iter().map(|name| name.strip_prefix('/').unwrap_or(name));
    // Names with another slash are links from other containers.
    bare.filter(|name| !truncate || !name.contains('/')).collect::<Vec<_>>().join(",")
}

fn image(container: &Listed, truncate: bool) -> String {
    let name = container.image.as_str();
    if name.is_empty() {
        return "<no image>".to_owned();
    }
    if !truncate {
        return name.to_owned();
    }
    let short = units::short_id(&container.image_id);
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if hex.len() >= 12 && hex.bytes().all(|b| b.is_ascii_hexdigit()) && hex[..12] == short {
        return short;
    }
    match name.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => name.to_owned(),
    }
}

fn size(container: &Listed) -> String {
    let own = units::human_size_with(container.size_rw, 3);
    if container.size_root_fs > 0 { format!("{own} (virtual {})", units::human_size_with(container.size_root_fs, 3)) } else { own }
}

fn mounts(container: &Listed, truncate: bool) -> String {
    let name = |mount: &MountPoint| {
        let name = if mount.name.is_empty() { mount.source.clone() } else { mount.name.clone() };
        if truncate { units::ellipsis(&name, 15) } else { name }
    };
    container.mounts.iter().map(name).collect::<Vec<_>>().join(",")
}

/// Go's `%q`.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Ports with neighbours joined: `0.0.0.0:80-81->80-81/tcp, 443/tcp`.
pub fn ports(ports: &[Port]) -> String {
    let mut sorted: Vec<&Port> = ports.iter().collect();
    sorted.sort_by_key(|port| (port.private_port, &port.ip, port.public_port, &port.protocol));
    let mut done: Vec<String> = Vec::new();
    let mut mapped: Vec<String> = Vec::new();
    let mut open: Vec<((&str, &str), u16, u16)> = Vec::new();
    for port in sorted {
        if !port.ip.is_empty() && port.public_port != port.private_port {
            mapped.push(format!("{}->{}/{}", join_host(&port.ip, &port.public_port.to_string()), port.private_port, port.protocol));
            continue;
        }
        let key = (port.ip.as_str(), port.protocol.as_str());
        match open.iter_mut().find(|(known, ..)| *known == key) {
            None => open.push((key, port.private_port, port.private_port)),
            Some((_, _, last)) if port.private_port == last.saturating_add(1) => *last = port.private_port,
            Some(run) => {
                done.push(port_run(run));
                *run = (key, port.private_port, port.private_port);
            }
        }
    }
    done.extend(open.iter().map(port_run));
    done.extend(mapped);
    done.join(", ")
}

fn port_run(((ip, protocol), first, last): &((&str, &str), u16, u16)) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    if ip.is_empty() { format!("{range}/{protocol}") } else { format!("{}->{range}/{protocol}", join_host(ip, &range)) }
}

fn join_host(ip: &str, port: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, public: u16, private: u16) -> Port {
        Port { ip: ip.into(), private_port: private, public_port: public, protocol: "tcp".into() }
    }

    #[test]
    fn what_is_shown_is_a_part_of_the_answer() {
        let answer = serde_json::json!({
            "Id": "1", "Names": ["/a"], "Image": "i", "ImageID": "sha256:2", "Command": "c", "Created": 3, "Ports": null,
            "Labels": {"k": "v"}, "State": "exited", "Status": "Exited", "HostConfig": {"NetworkMode": "n"}, "SizeRw": 4,
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "10.0.0.1"}, "m": {}}},
            "Mounts": [{"Type": "volume", "Name": "x", "Source": "", "Destination": "/", "Driver": "local", "Mode": "", "RW": true}]
        });
        let listed: Listed = serde_json::from_value(answer.clone()).expect("an answer");
        let whole: ContainerSummary = serde_json::from_value(answer).expect("an answer");
        for one in [listed, Listed::from(&whole)] {
            assert_eq!((one.id.as_str(), one.names.join(","), one.image_id.as_str()), ("1", "/a".to_owned(), "sha256:2"));
            assert_eq!((one.networks(), one.size_rw, one.mounts.len(), one.ports.len()), ("m,n".to_owned(), 4, 1, 0));
            assert_eq!(one.labels.expect("labels").len(), 1);
        }
        let bare: Listed = serde_json::from_str(r#"{"Id":"1","Labels":null,"NetworkSettings":null,"Mounts":null}"#).expect("an answer");
        assert!(bare.labels.is_none() && bare.networks().is_empty() && bare.mounts.is_empty());
    }

    #[test]
    fn ports_are_joined_as_docker_does() {
        assert_eq!(ports(&[port("0.0.0.0", 8080, 80), port("::", 8080, 80)]), "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
        assert_eq!(ports(&[port("", 0, 80), port("", 0, 81), port("", 0, 443)]), "80-81/tcp, 443/tcp");
        assert_eq!(ports(&[port("0.0.0.0", 80, 80), port("0.0.0.0", 81, 81)]), "0.0.0.0:80-81->80-81/tcp");
    }
}
