//! `kill`.

use super::common::in_parallel;
use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, leaf, string};

static FLAGS: &[Flag] = &[string("signal", "s", "Signal to send to the container")];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Kill one or more running containers",
    names: &["container kill", "kill"],
    flags: &[FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    client.version().await?;
    in_parallel(&matches.args, async |name| {
        client.post(format!("/containers/{}/kill", path_segment(name))).query_set("signal", matches.string("signal")).done().await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
