//! `volume create|inspect|ls|rm`.

use proto_docker::volume::{Volume, VolumeCreateRequest, VolumeList};

use super::common::{filters, for_each, format_flag, json_format_flag, print_rows};
use super::{inspect, prune};
use crate::cli::Cli;
use crate::client::{Version, path_segment};
use crate::cmdline::{
    Args, Command, Entry, Flag, Kind, Matches, Outcome, Section, check, entry, filter, group, leaf, list, many, string, switch, unsupported,
};
use crate::failure::Failure;
use crate::output;
use crate::output::template::{Columns, Row};
use crate::spec::env::key_values;

static ENTRIES: &[Entry] = &[
    entry("create", &CREATE),
    entry("inspect", &INSPECT),
    Entry { name: "ls", aliases: &["list"], command: &LS },
    entry("prune", &prune::VOLUME),
    Entry { name: "rm", aliases: &["remove"], command: &RM },
];

pub static COMMAND: Command = group("Manage volumes", &[Section { title: "Commands", entries: ENTRIES }]);

static CREATE_FLAGS: &[Flag] = &[
    string("driver", "d", "Driver of the volume").default("\"local\""),
    list("label", "", "Set metadata for the volume").check(check::label),
    string("name", "", "Name of the volume").hidden(),
    many("opt", "o", "map", "Options of the driver").check(check::key_value),
    unsupported("availability", "", Kind::One("string")),
    unsupported("group", "", Kind::One("string")),
    unsupported("limit-bytes", "", Kind::One("bytes")),
    unsupported("required-bytes", "", Kind::One("bytes")),
    unsupported("scope", "", Kind::One("string")),
    unsupported("secret", "", Kind::Many("map")),
    unsupported("sharing", "", Kind::One("string")),
    unsupported("topology-preferred", "", Kind::Many("list")),
    unsupported("topology-required", "", Kind::Many("list")),
    unsupported("type", "", Kind::One("string")),
];

static CREATE: Command = Command {
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    flags: &[CREATE_FLAGS],
    args: Args::AtMost(1),
    ..leaf(|cli, matches| Box::pin(create(cli, matches)))
};

static INSPECT_FLAGS: &[Flag] = &[json_format_flag("f")];

static INSPECT: Command = Command {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Display detailed information on one or more volumes",
    flags: &[INSPECT_FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(inspect::one_kind(cli, matches, inspect::Kind::Volume)))
};

static LS_FLAGS: &[Flag] = &[
    filter("f", "Show only what fits the conditions (e.g. \"dangling=true\")"),
    format_flag(),
    switch("quiet", "q", "Only display volume names"),
    unsupported("cluster", "", Kind::Bool),
];

static LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List volumes",
    names: &["volume ls", "volume list"],
    flags: &[LS_FLAGS],
    ..leaf(|cli, matches| Box::pin(ls(cli, matches)))
};

static RM_FLAGS: &[Flag] = &[switch("force", "f", "Do not fail if the volume does not exist")];

static RM: Command = Command {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove one or more volumes",
    details: "Remove one or more volumes. A volume that a container uses cannot be removed.",
    names: &["volume rm", "volume remove"],
    flags: &[RM_FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(rm(cli, matches)))
};

async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    if matches.changed("name") && !matches.args.is_empty() {
        return Err(Failure::message("conflicting options: cannot specify a volume-name through both --name and as a positional arg"));
    }
    let request = VolumeCreateRequest {
        name: matches.args.first().cloned().unwrap_or_else(|| matches.string("name")),
        driver: matches.str("driver").unwrap_or("local").to_owned(),
        driver_opts: Some(key_values(matches.list("opt"))),
        labels: Some(key_values(matches.list("label"))),
        cluster_volume_spec: None,
    };
    let volume: Volume = cli.client()?.post("/volumes/create").json(&request).fetch().await?;
    output::line(&volume.name)
}

/// Columns of volumes, also for `system df -v`.
pub const COLUMNS: Columns = Columns {
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "{{.Name}}",
    headers: &[
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Availability", "AVAILABILITY"),
        ("Group", "GROUP"),
        ("Status", "STATUS"),
    ],
    type_name: "formatter.volumeContext",
};

pub fn row(volume: &Volume) -> Row {
    let usage = volume.usage_data.as_ref();
    let size = usage.map_or_else(|| "N/A".to_owned(), |usage| crate::output::units::human_size(usage.size.max(0)));
    Row::new()
        .set("Name", volume.name.as_str())
        .set("Driver", volume.driver.as_str())
        .set("Scope", volume.scope.as_str())
        .set("Mountpoint", volume.mountpoint.as_str())
        .set("Links", usage.map_or_else(|| "N/A".to_owned(), |usage| usage.ref_count.to_string()))
        .set("Size", size)
        .set("Availability", "N/A")
        .set("Group", "N/A")
        .set("Status", "N/A")
        .labels(&volume.labels.clone().unwrap_or_default())
}

async fn ls(cli: &Cli, matches: &Matches) -> Outcome {
    let mut answer: VolumeList = cli.client()?.get("/volumes").query_set("filters", filters(matches.list("filter"))).fetch().await?;
    answer.volumes.sort_by(|a, b| super::common::natural(&a.name, &b.name));
    print_rows(cli, matches, "volumesFormat", &COLUMNS, answer.volumes.iter().map(row).collect())
}

async fn rm(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let force = matches.bool("force") && client.version().await? >= Version::new(1, 25);
    for_each(&matches.args, async |name| {
        client.delete(format!("/volumes/{}", path_segment(name))).flag("force", force).done().await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
