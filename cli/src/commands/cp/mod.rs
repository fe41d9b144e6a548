//! `cp`: files between a container and this host, as tar archives.

mod pack;
mod plan;
mod unpack;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proto_docker::container::PathStat;

use crate::cli::Cli;
use crate::client::{ApiError, Client, path_segment};
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, leaf, switch};
use crate::failure::Failure;
use crate::output::units;
use crate::{output, terminal};
use plan::{Place, Side};

use super::load::{channel_body, stdin_body};

static FLAGS: &[Flag] = &[
    switch("archive", "a", "Keep the owners of what is copied"),
    switch("follow-link", "L", "Follow a symbolic link in SRC_PATH"),
    switch("quiet", "q", "Do not show progress; it is not shown without a terminal either"),
];

pub static COMMAND: Command = Command {
    usage: "{} [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t{} [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files/folders between a container and the local filesystem",
    details: "Copy files/folders between a container and the local filesystem\n\nAs a source, '-' reads a tar archive from stdin and extracts it in a directory of the container.\nAs a destination, '-' writes a tar archive to stdout.",
    names: &["container cp", "cp"],
    flags: &[FLAGS],
    args: Args::Exactly(2),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let (source, target) = (matches.arg(0), matches.arg(1));
    if source.is_empty() {
        return Err(Failure::message("source can not be empty"));
    }
    if target.is_empty() {
        return Err(Failure::message("destination can not be empty"));
    }
    let client = cli.client()?;
    match (Side::parse(source), Side::parse(target)) {
        (Side::Container(name, from), Side::Local(to)) => from_container(client, matches, name, from, to).await,
        (Side::Local(from), Side::Container(name, to)) => to_container(client, matches, from, name, to).await,
        (Side::Container(..), Side::Container(..)) => Err(Failure::message("copying between containers is not supported")),
        (Side::Local(_), Side::Local(_)) => Err(Failure::message("must specify at least one container source")),
    }
}

fn quiet(matches: &Matches) -> bool {
    if matches.changed("quiet") { matches.bool("quiet") } else { !terminal::stdout_is_terminal() }
}

/// Go's bit for a directory in `os.FileMode`.
const GO_DIR: u32 = 1 << 31;
/// Go's bit for a symbolic link in `os.FileMode`.
const GO_SYMLINK: u32 = 1 << 27;

async fn stat(client: &Client, name: &str, path: &str) -> Result<PathStat, ApiError> {
    let place = format!("/containers/{}/archive", path_segment(name));
    match client.head(&place).query("path", path).send().await {
        Ok(response) => stat_of(&response),
        // A HEAD has no body to say what is wrong.
        Err(ApiError::Daemon { status: 404, .. }) => {
            Err(ApiError::Daemon { status: 404, message: format!("Could not find the file {path} in container {name}") })
        }
        Err(error @ ApiError::Daemon { .. }) => Err(client.get(place).query("path", path).send().await.err().unwrap_or(error)),
        Err(error) => Err(error),
    }
}

fn stat_of(response: &http::Response<hyper::body::Incoming>) -> Result<PathStat, ApiError> {
    let header = response.headers().get("x-docker-container-path-stat").map(http::HeaderValue::as_bytes).unwrap_or_default();
    let bytes = STANDARD.decode(header).or_else(|_| URL_SAFE.decode(header));
    let stat = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    stat.ok_or_else(|| ApiError::Broken("unable to decode container path stat header".to_owned()))
}

/// The path that a link in the container stands for.
fn followed(path: &str, stat: &PathStat) -> Option<String> {
    if stat.mode & GO_SYMLINK == 0 || stat.link_target.is_empty() {
        return None;
    }
    let parent = path.trim_end_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent);
    Some(if stat.link_target.starts_with('/') { stat.link_target.clone() } else { format!("{parent}/{}", stat.link_target) })
}

async fn from_container(client: &Client, matches: &Matches, name: &str, from: &str, to: &str) -> Outcome {
    let mut from = from.to_owned();
    if matches.bool("follow-link")
        && let Some(target) = followed(&from, &stat(client, name, &from).await?)
    {
        from = target;
    }
    let response = client.get(format!("/containers/{}/archive", path_segment(name))).query("path", &from).send().await?;
    if to == "-" {
        return super::save::copy(response.into_body(), output::bytes).await;
    }
    let is_directory = stat_of(&response)?.mode & GO_DIR != 0;
    let source = Place { path: from, exists: true, is_directory };
    let plan = plan::plan(&source, &plan::local_target(to)?)?;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(8);
    let owners = matches.bool("archive");
    let worker = tokio::task::spawn_blocking(move || unpack::unpack(receiver, &plan, owners));
    let mut size = 0;
    super::save::copy_async(response.into_body(), async |data| {
        size += data.len();
        // The worker ends early only with an error of its own, told below.
        sender.send(data.to_vec()).await.is_ok()
    })
    .await?;
    drop(sender);
    worker.await.map_err(|err| Failure::message(format!("copying ended unexpectedly: {err}")))??;
    if !quiet(matches) {
        eprintln!("Successfully copied {} to {to}", units::human_size_with(i64::try_from(size).unwrap_or(i64::MAX), 3));
    }
    Ok(())
}

async fn to_container(client: &Client, matches: &Matches, from: &str, name: &str, to: &str) -> Outcome {
    let target = container_target(client, name, to).await?;
    let (body, directory, size) = if from == "-" {
        if !target.is_directory {
            return Err(Failure::message(format!("destination \"{name}:{to}\" must be a directory")));
        }
        (stdin_body(), target.path.clone(), None)
    } else {
        let source = plan::local_source(from, matches.bool("follow-link"))?;
        let plan = plan::plan(&source, &target)?;
        let directory = plan.directory.clone();
        let (receiver, size) = pack::pack(source.path, plan);
        (channel_body(receiver), directory, Some(size))
    };
    let call = client.put(format!("/containers/{}/archive", path_segment(name))).query("path", &directory);
    let call = call.query("noOverwriteDirNonDir", "true").flag("copyUIDGID", matches.bool("archive"));
    let sent = call.body(body, "application/x-tar").done().await;
    if let Some(problem) = size.as_ref().and_then(pack::Progress::problem) {
        return Err(Failure::message(problem));
    }
    sent?;
    if let (Some(size), false) = (size, quiet(matches)) {
        eprintln!("Successfully copied {} to {name}:{to}", units::human_size_with(size.bytes(), 3));
    }
    Ok(())
}

async fn container_target(client: &Client, name: &str, to: &str) -> Result<Place, Failure> {
    let mut path = to.to_owned();
    let mut found = stat(client, name, &path).await;
    if let Ok(stat_of_link) = &found
        && let Some(target) = followed(&path, stat_of_link)
    {
        path = target;
        found = stat(client, name, &path).await;
    }
    match found {
        Ok(stat) => Ok(Place { path, exists: true, is_directory: stat.mode & GO_DIR != 0 }),
        Err(error) if error.is_not_found() => {
            // The container itself may be what is missing.
            client.get(format!("/containers/{}/json", path_segment(name))).done().await?;
            Ok(Place { path, exists: false, is_directory: false })
        }
        Err(error) => Err(error.into()),
    }
}
