//! `system df`.

use std::collections::BTreeSet;

use proto_docker::container::ContainerSummary;
use proto_docker::system::DiskUsage;

use super::common::{format_flag, print_rows};
use super::{images, ps, volume};
use crate::cli::Cli;
use crate::cmdline::{Command, Flag, Matches, Outcome, leaf, switch};
use crate::failure::Failure;
use crate::output;
use crate::output::template::{self, Columns, Format, Row, Wanted};
use crate::output::units::human_size;

static FLAGS: &[Flag] = &[format_flag(), switch("verbose", "v", "Show each image, container and volume")];

pub static COMMAND: Command =
    Command { usage: "[OPTIONS]", about: "Show disk usage", flags: &[FLAGS], ..leaf(|cli, matches| Box::pin(go(cli, matches))) };

const COLUMNS: Columns = Columns {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    quiet: "",
    headers: &[("Type", "TYPE"), ("TotalCount", "TOTAL"), ("Active", "ACTIVE"), ("Size", "SIZE"), ("Reclaimable", "RECLAIMABLE")],
    type_name: "formatter.diskUsageImagesContext",
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let usage: DiskUsage = cli.client()?.get("/system/df").fetch().await?;
    if matches.bool("verbose") {
        return verbose(matches, &usage);
    }
    let rows = vec![images_row(&usage), containers_row(&usage), volumes_row(&usage), cache_row(&usage)];
    print_rows(cli, matches, "", &COLUMNS, rows)
}

fn line(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64, percent: bool) -> Row {
    let free =
        if percent && size > 0 { format!("{} ({}%)", human_size(reclaimable), reclaimable * 100 / size) } else { human_size(reclaimable) };
    let row = Row::new().set("Type", kind).set("TotalCount", total.to_string()).set("Active", active.to_string());
    row.set("Size", human_size(size)).set("Reclaimable", free)
}

fn images_row(usage: &DiskUsage) -> Row {
    let images = usage.images.as_deref().unwrap_or_default();
    // As docker reckons: what images share counts as if it could be had back.
    let used: i64 =
        images.iter().filter(|image| image.containers != 0 && image.shared_size >= 0).map(|image| image.size - image.shared_size).sum();
    let active = images.iter().filter(|image| image.containers > 0).count();
    line("Images", images.len(), active, usage.layers_size, usage.layers_size - used, true)
}

fn is_active(container: &ContainerSummary) -> bool {
    ["running", "paused", "restarting"].contains(&container.state.as_str())
}

fn containers_row(usage: &DiskUsage) -> Row {
    let containers = usage.containers.as_deref().unwrap_or_default();
    let size = |only_idle: bool| containers.iter().filter(|c| !only_idle || !is_active(c)).map(|c| c.size_rw).sum();
    line("Containers", containers.len(), containers.iter().filter(|c| is_active(c)).count(), size(false), size(true), true)
}

fn volumes_row(usage: &DiskUsage) -> Row {
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let known = |volume: &&proto_docker::volume::Volume| volume.usage_data.as_ref().is_some_and(|usage| usage.size >= 0);
    let size = |unused: bool| {
        let usages = volumes.iter().filter(known).filter_map(|volume| volume.usage_data.as_ref());
        usages.filter(|usage| !unused || usage.ref_count == 0).map(|usage| usage.size).sum()
    };
    let active = volumes.iter().filter(|volume| volume.usage_data.as_ref().is_some_and(|usage| usage.ref_count > 0)).count();
    line("Local Volumes", volumes.len(), active, size(false), size(true), true)
}

fn cache_row(usage: &DiskUsage) -> Row {
    let records = usage.build_cache.as_deref().unwrap_or_default();
    let in_use = |record: &&serde_json::Value| record["InUse"].as_bool().unwrap_or(false);
    let size =
        |record: &serde_json::Value| if record["Shared"].as_bool().unwrap_or(false) { 0 } else { record["Size"].as_i64().unwrap_or(0) };
    let total = usage.builder_size.unwrap_or_else(|| records.iter().map(size).sum());
    let free: i64 = records.iter().filter(|record| !in_use(record)).map(size).sum();
    line("Build Cache", records.len(), records.iter().filter(in_use).count(), total, free, false)
}

fn verbose(matches: &Matches, usage: &DiskUsage) -> Outcome {
    if matches.changed("format") {
        return Err(Failure::message("unsupported flag: --format together with --verbose"));
    }
    let table = |title: &str, columns: &Columns, rows: Vec<Row>| -> Outcome {
        let text = template::render(&Format { source: None, quiet: false }, columns, rows)?;
        output::print(&format!("{title}\n\n{text}\n"))
    };
    let all_images = usage.images.as_deref().unwrap_or_default();
    let image_columns = Columns {
        table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
        ..images::COLUMNS
    };
    table(
        "Images space usage:",
        &image_columns,
        all_images.iter().flat_map(|image| images::rows(&image.into(), false, true, &Wanted::ALL)).collect(),
    )?;
    let container_columns = Columns {
        table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
        ..ps::COLUMNS
    };
    let containers = usage.containers.as_deref().unwrap_or_default();
    table(
        "Containers space usage:",
        &container_columns,
        containers.iter().map(|container| ps::row(&container.into(), true, &Wanted::ALL)).collect(),
    )?;
    let volume_columns = Columns { table: "{{.Name}}\t{{.Links}}\t{{.Size}}", ..volume::COLUMNS };
    table("Local Volumes space usage:", &volume_columns, usage.volumes.as_deref().unwrap_or_default().iter().map(volume::row).collect())?;
    let ids: BTreeSet<&str> = usage.build_cache.iter().flatten().filter_map(|record| record["ID"].as_str()).collect();
    output::line(&format!("Build cache usage: {} ({} records)", human_size(usage.builder_size.unwrap_or(0)), ids.len()))
}
