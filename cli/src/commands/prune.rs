//! `container|image|volume|network|builder|system prune`.

use proto_docker::container::PruneResponse as Containers;
use proto_docker::image::PruneResponse as Images;
use proto_docker::network::NetworkPruneResponse;
use proto_docker::volume::VolumePruneResponse;
use serde_json::Value;

use super::common::{confirm, filters};
use crate::cli::Cli;
use crate::client::{ApiError, Version};
use crate::cmdline::{Command, Flag, Kind, Matches, Outcome, filter, leaf, switch, unsupported};
use crate::failure::Failure;
use crate::output::{self, units};

const FORCE: Flag = switch("force", "f", "Do not ask");
const FILTER: Flag = filter("", "Prune only what fits the conditions (e.g. \"until=<timestamp>\")");

static FLAGS: &[Flag] = &[FILTER, FORCE];
static IMAGE_FLAGS: &[Flag] = &[switch("all", "a", "Remove all unused images, not just dangling ones")];
static BUILDER_FLAGS: &[Flag] = &[unsupported("keep-storage", "", Kind::One("bytes"))];
static VOLUME_FLAGS: &[Flag] = &[switch("all", "a", "Remove all unused volumes, not just anonymous ones")];
static SYSTEM_FLAGS: &[Flag] =
    &[switch("all", "a", "Remove all unused images, not just dangling ones"), switch("volumes", "", "Prune anonymous volumes too")];

pub static CONTAINER: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    flags: &[FLAGS],
    ..leaf(|cli, matches| Box::pin(alone(cli, matches, What::Containers)))
};

pub static IMAGE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove unused images",
    flags: &[FLAGS, IMAGE_FLAGS],
    ..leaf(|cli, matches| Box::pin(alone(cli, matches, What::Images)))
};

pub static VOLUME: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove unused local volumes",
    flags: &[FLAGS, VOLUME_FLAGS],
    ..leaf(|cli, matches| Box::pin(alone(cli, matches, What::Volumes)))
};

pub static NETWORK: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove all unused networks",
    flags: &[FLAGS],
    ..leaf(|cli, matches| Box::pin(alone(cli, matches, What::Networks)))
};

pub static BUILDER: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove build cache",
    flags: &[FLAGS, IMAGE_FLAGS, BUILDER_FLAGS],
    ..leaf(|cli, matches| Box::pin(alone(cli, matches, What::BuildCache)))
};

pub static SYSTEM: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove unused data",
    flags: &[FLAGS, SYSTEM_FLAGS],
    ..leaf(|cli, matches| Box::pin(everything(cli, matches)))
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Containers,
    Networks,
    Volumes,
    Images,
    BuildCache,
}

impl What {
    /// What goes, in words.
    fn describe(self, all: bool) -> &'static str {
        match self {
            Self::Containers => "all stopped containers",
            Self::Networks => "all networks not used by at least one container",
            Self::Volumes if all => "all local volumes not used by at least one container",
            Self::Volumes => "anonymous local volumes not used by at least one container",
            Self::Images if all => "all images without at least one container associated to them",
            Self::Images => "all dangling images",
            Self::BuildCache if all => "all build cache",
            Self::BuildCache => "all dangling build cache",
        }
    }
}

/// What a prune did: bytes and a text, empty if nothing went.
type Pruned = (u64, String);

async fn alone(cli: &Cli, matches: &Matches, what: What) -> Outcome {
    let client = cli.client()?;
    // Engines of before API 1.42 know no anonymous volumes.
    let all = matches.bool("all") || (what == What::Volumes && client.version().await? < Version::new(1, 42));
    let unused = if what == What::Networks { "custom networks not used by at least one container" } else { what.describe(all) };
    let unused = unused.trim_start_matches("all ");
    let all_word = if what == What::Volumes && !all { "" } else { "all " };
    if !matches.bool("force") && !confirm(&format!("WARNING! This will remove {all_word}{unused}.\nAre you sure you want to continue?"))? {
        return Ok(());
    }
    let (bytes, text) = prune(cli, matches, what, all).await?;
    if !text.is_empty() {
        output::line(&text)?;
    }
    if what == What::Networks {
        return Ok(());
    }
    let label = if what == What::BuildCache { "Total:\t" } else { "Total reclaimed space: " };
    output::line(&format!("{label}{}", human(bytes)))
}

fn human(bytes: u64) -> String {
    units::human_size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

async fn everything(cli: &Cli, matches: &Matches) -> Outcome {
    let all = matches.bool("all");
    let volumes = matches.bool("volumes");
    if volumes && matches.list("filter").iter().any(|filter| filter.starts_with("until=")) {
        return Err(Failure::message("ERROR: The \"until\" filter is not supported with \"--volumes\""));
    }
    let order = [What::Containers, What::Networks, What::Volumes, What::Images, What::BuildCache];
    let chosen: Vec<What> = order.into_iter().filter(|what| *what != What::Volumes || volumes).collect();
    if !matches.bool("force") && !confirm(&warning(&chosen, all, matches.list("filter")))? {
        return Ok(());
    }
    let mut total = 0;
    for what in chosen {
        let (bytes, text) = match prune(cli, matches, what, all && what != What::Volumes).await {
            // What an engine does not have needs no pruning.
            Err(Problem::NotImplemented(_)) => continue,
            other => other?,
        };
        total += bytes;
        if !text.is_empty() {
            output::line(&text)?;
        }
    }
    output::line(&format!("Total reclaimed space: {}", human(total)))
}

fn warning(chosen: &[What], all: bool, filters: &[String]) -> String {
    let mut text = String::from("WARNING! This will remove:\n");
    for what in chosen {
        let all = all && *what != What::Volumes;
        let line = match what {
            What::BuildCache if !all => "unused build cache",
            What::Volumes => "all anonymous volumes not used by at least one container",
            other => other.describe(all),
        };
        text.push_str(&format!("  - {line}\n"));
    }
    if !filters.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        for filter in filters {
            text.push_str(&format!("  - {filter}\n"));
        }
    }
    text.push_str("\nAre you sure you want to continue?");
    text
}

/// Why a prune did nothing.
enum Problem {
    NotImplemented(Failure),
    Failed(Failure),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Daemon { status: 501, .. } => Self::NotImplemented(error.into()),
            other => Self::Failed(other.into()),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::NotImplemented(failure) | Problem::Failed(failure) => failure,
        }
    }
}

async fn prune(cli: &Cli, matches: &Matches, what: What, all: bool) -> Result<Pruned, Problem> {
    let client = cli.client()?;
    let mut wanted = matches.list_owned("filter");
    if what == What::Images {
        wanted.push(format!("dangling={}", !all));
    }
    if what == What::Volumes && all && client.version().await? >= Version::new(1, 42) {
        wanted.push("all=1".to_owned());
    }
    let call = |path: &str| client.post(path).query_set("filters", filters(&wanted));
    match what {
        What::Containers => {
            let done: Containers = call("/containers/prune").fetch().await?;
            Ok((done.space_reclaimed, listing("Deleted Containers:", done.containers_deleted)))
        }
        What::Networks => {
            let done: NetworkPruneResponse = call("/networks/prune").fetch().await?;
            Ok((0, listing("Deleted Networks:", done.networks_deleted)))
        }
        What::Volumes => {
            let done: VolumePruneResponse = call("/volumes/prune").fetch().await?;
            Ok((done.space_reclaimed, listing("Deleted Volumes:", done.volumes_deleted)))
        }
        What::Images => {
            let done: Images = call("/images/prune").fetch().await?;
            let lines = done.images_deleted.unwrap_or_default().into_iter();
            let lines = lines.map(|item| {
                if item.untagged.is_empty() { format!("deleted: {}", item.deleted) } else { format!("untagged: {}", item.untagged) }
            });
            Ok((done.space_reclaimed, listing("Deleted Images:", Some(lines.collect()))))
        }
        What::BuildCache => build_cache(call("/build/prune").flag("all", all).fetch().await),
    }
}

/// An engine that does not build has no cache to prune.
fn build_cache(answer: Result<Value, ApiError>) -> Result<Pruned, Problem> {
    match answer {
        Ok(done) => {
            let caches = done["CachesDeleted"].as_array().map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect());
            Ok((done["SpaceReclaimed"].as_u64().unwrap_or(0), listing("Deleted build cache objects:", caches)))
        }
        Err(ApiError::Daemon { status: 404 | 501, .. }) => Ok((0, String::new())),
        Err(error) => Err(error.into()),
    }
}

fn listing(title: &str, names: Option<Vec<String>>) -> String {
    match names.unwrap_or_default() {
        names if names.is_empty() => String::new(),
        names => format!("{title}\n{}\n", names.join("\n")),
    }
}
