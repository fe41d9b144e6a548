//! `stop` and `restart`.

use super::common::in_parallel;
use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, int, leaf, string};

static FLAGS: &[Flag] = &[
    string("signal", "s", "Signal to send to the container"),
    int("timeout", "t", "Seconds to wait before the container is killed"),
    int("time", "", "Seconds to wait before the container is killed").hidden(),
];

pub static STOP: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop one or more running containers",
    names: &["container stop", "stop"],
    flags: &[FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches, "stop")))
};

pub static RESTART: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Restart one or more containers",
    names: &["container restart", "restart"],
    flags: &[FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches, "restart")))
};

async fn go(cli: &Cli, matches: &Matches, action: &str) -> Outcome {
    let client = cli.client()?;
    client.version().await?;
    let seconds = matches.int("timeout").or(matches.int("time")).map(|n| n.to_string()).unwrap_or_default();
    in_parallel(&matches.args, async |name| {
        let call = client.post(format!("/containers/{}/{action}", path_segment(name)));
        call.query_set("t", &seconds).query_set("signal", matches.string("signal")).done().await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
