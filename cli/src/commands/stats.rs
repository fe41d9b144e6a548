//! `stats`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::BodyExt;
use proto_docker::container::ContainerSummary;
use proto_docker::stats::Stats;

use super::common::format_flag;
use crate::cli::Cli;
use crate::client::{Client, path_segment};
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, leaf, switch};
use crate::failure::Failure;
use crate::output::template::{self, Columns, Format, Row};
use crate::output::{self, progress, units};

static FLAGS: &[Flag] = &[
    switch("all", "a", "Show all containers (default shows just running)"),
    format_flag(),
    switch("no-stream", "", "Show one result and end"),
    switch("no-trunc", "", "Don't truncate output"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Display a live stream of container(s) resource usage statistics",
    names: &["container stats", "stats"],
    flags: &[FLAGS],
    args: Args::Any,
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    quiet: "{{.ID}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    type_name: "container.statsContext",
};

const REDRAW: Duration = Duration::from_millis(500);

/// Latest sample by container, `None` until there is one.
type Samples = RefCell<BTreeMap<usize, (String, Option<Stats>)>>;

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    client.version().await?;
    let names = match matches.args.as_slice() {
        [] => running(client, matches.bool("all")).await?,
        given => given.to_vec(),
    };
    let samples = RefCell::new(names.iter().cloned().map(|name| (name, None)).enumerate().collect::<BTreeMap<_, _>>());
    let once = matches.bool("no-stream");
    let mut feeds: FuturesUnordered<_> = names.iter().enumerate().map(|(index, name)| feed(client, index, name, once, &samples)).collect();
    if once {
        let mut problems = Vec::new();
        while let Some(result) = feeds.next().await {
            problems.extend(result.err());
        }
        output::print(&render(cli, matches, &samples)?)?;
        return problems.into_iter().next().map_or(Ok(()), Err);
    }
    live(cli, matches, &samples, &mut feeds).await
}

async fn running(client: &Client, all: bool) -> Result<Vec<String>, Failure> {
    let list: Vec<ContainerSummary> = client.get("/containers/json").flag("all", all).fetch().await?;
    Ok(list.iter().map(|container| units::short_id(&container.id)).collect())
}

async fn live<F>(cli: &Cli, matches: &Matches, samples: &Samples, feeds: &mut FuturesUnordered<F>) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let mut tick = tokio::time::interval(REDRAW);
    let terminal = crate::terminal::stdout_is_terminal();
    loop {
        tokio::select! {
            Some(result) = feeds.next() => result?,
            _ = tick.tick() => {
                let text = render(cli, matches, samples)?;
                output::print(&if terminal { format!("\x1b[H\x1b[J{text}") } else { text })?;
                if feeds.is_empty() && !matches.args.is_empty() {
                    return Ok(());
                }
            }
        }
    }
}

/// Keeps one container's sample fresh.
async fn feed(client: &Client, index: usize, name: &str, once: bool, samples: &Samples) -> Outcome {
    let call = client.get(format!("/containers/{}/stats", path_segment(name))).query("stream", if once { "0" } else { "1" });
    let mut body = call.send().await?.into_body();
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|err| Failure::message(format!("the daemon's answer broke off: {err}")))?;
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        let used = progress::take_values(&buffer, &mut |stats: Stats| {
            if let Some(slot) = samples.borrow_mut().get_mut(&index) {
                slot.1 = Some(stats);
            }
            Ok(())
        })?;
        buffer.drain(..used);
    }
    if !once {
        samples.borrow_mut().remove(&index);
    }
    Ok(())
}

fn render(cli: &Cli, matches: &Matches, samples: &Samples) -> Result<String, Failure> {
    let truncate = !matches.bool("no-trunc");
    let rows: Vec<_> = samples.borrow().values().map(|(name, stats)| row(name, stats.as_ref(), truncate)).collect();
    let format = matches.str("format").filter(|format| !format.is_empty()).or_else(|| cli.config().string("statsFormat"));
    template::render(&Format { source: format, quiet: false }, &COLUMNS, rows)
}

fn row(container: &str, stats: Option<&Stats>, truncate: bool) -> Row {
    let Some(stats) = stats else {
        let blank =
            ["ID", "CPUPerc", "MemPerc", "PIDs"].iter().fold(Row::new().set("Container", container), |row, name| row.set(name, "--"));
        let blank = blank.set("Name", "--").set("MemUsage", "-- / --").set("NetIO", "--").set("BlockIO", "--");
        return if container.len() == 12 {
            blank.set("ID", if truncate { units::short_id(container) } else { container.to_owned() })
        } else {
            blank
        };
    };
    let (used, limit) = (memory_used(stats), stats.memory_stats.limit);
    let percent = if limit == 0 { 0.0 } else { used as f64 / limit as f64 * 100.0 };
    let (rx, tx) = stats.networks.values().fold((0, 0), |(rx, tx), net| (rx + net.rx_bytes, tx + net.tx_bytes));
    let (read, written) = block_io(stats);
    Row::new()
        .set("Container", container)
        .set("ID", if truncate { units::short_id(&stats.id) } else { stats.id.clone() })
        .set("Name", stats.name.strip_prefix('/').unwrap_or(&stats.name))
        .set("CPUPerc", format!("{:.2}%", cpu_percent(stats)))
        .set("MemUsage", format!("{} / {}", units::bytes_size(used as f64), units::bytes_size(limit as f64)))
        .set("MemPerc", format!("{percent:.2}%"))
        .set("NetIO", pair(rx, tx))
        .set("BlockIO", pair(read, written))
        .set("PIDs", stats.pids_stats.current.to_string())
}

fn pair(one: u64, other: u64) -> String {
    let size = |n: u64| units::human_size_with(i64::try_from(n).unwrap_or(i64::MAX), 3);
    format!("{} / {}", size(one), size(other))
}

/// Without the page cache that the kernel can take back at once.
fn memory_used(stats: &Stats) -> u64 {
    let memory = &stats.memory_stats;
    let cache = memory.stats.get("total_inactive_file").or_else(|| memory.stats.get("inactive_file"));
    cache.filter(|cache| **cache < memory.usage).map_or(memory.usage, |cache| memory.usage - cache)
}

fn cpu_percent(stats: &Stats) -> f64 {
    let (now, before) = (&stats.cpu_stats, &stats.precpu_stats);
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let passed = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let per_cpu = now.cpu_usage.percpu_usage.as_ref().map_or(0, Vec::len);
    let cpus = if now.online_cpus == 0 { per_cpu as f64 } else { f64::from(now.online_cpus) };
    if used > 0.0 && passed > 0.0 { used / passed * cpus * 100.0 } else { 0.0 }
}

fn block_io(stats: &Stats) -> (u64, u64) {
    let entries = stats.blkio_stats.io_service_bytes_recursive.iter().flatten();
    entries.fold((0, 0), |(read, written), entry| match entry.op.chars().next() {
        Some('r' | 'R') => (read + entry.value, written),
        Some('w' | 'W') => (read, written + entry.value),
        _ => (read, written),
    })
}
