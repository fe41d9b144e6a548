//! `logs`.

use futures_util::TryStreamExt;
use http_body_util::BodyExt;
use proto_docker::inspect::ContainerInspect;
use tokio_util::io::StreamReader;

use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, Running, leaf, string, switch};
use crate::failure::Failure;
use crate::output::units;
use crate::session::demux;

static FLAGS: &[Flag] = &[
    switch("details", "", "Show what else is known about each line"),
    switch("follow", "f", "Go on with new output"),
    string("since", "", "Show only what came since a time (e.g. \"2013-01-02T13:23:37Z\") or for how long (e.g. \"42m\")"),
    string("tail", "n", "Number of lines to show from the end").default("\"all\""),
    switch("timestamps", "t", "Show timestamps"),
    string("until", "", "Show only what came before a time (e.g. \"2013-01-02T13:23:37Z\") or until how long ago (e.g. \"42m\")"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Fetch the logs of a container",
    names: &["container logs", "logs"],
    flags: &[FLAGS],
    args: Args::Exactly(1),
    ..leaf(run)
};

fn run<'a>(cli: &'a Cli, matches: &'a Matches) -> Running<'a> {
    Box::pin(go(cli, matches))
}

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let name = path_segment(matches.arg(0));
    let container: ContainerInspect = client.get(format!("/containers/{name}/json")).fetch().await?;
    let time = |flag: &str| {
        units::timestamp(matches.str(flag).unwrap_or_default())
            .map_err(|why| Failure::message(format!("invalid value for {flag:?}: {why}")))
    };
    let response = client
        .get(format!("/containers/{}/logs", container.id))
        .query("stdout", "1")
        .query("stderr", "1")
        .query_set("since", time("since")?)
        .query_set("until", time("until")?)
        .flag("timestamps", matches.bool("timestamps"))
        .flag("follow", matches.bool("follow"))
        .flag("details", matches.bool("details"))
        .query("tail", matches.str("tail").unwrap_or("all"))
        .send()
        .await?;
    let mut reader = StreamReader::new(response.into_body().into_data_stream().map_err(std::io::Error::other));
    demux::copy(&mut reader, !container.config.tty, true, true).await
}
