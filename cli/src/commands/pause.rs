//! `pause` and `unpause`.

use super::common::in_parallel;
use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Matches, Outcome, leaf};

pub static PAUSE: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Pause all processes within one or more containers",
    names: &["container pause", "pause"],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches, "pause")))
};

pub static UNPAUSE: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Unpause all processes within one or more containers",
    names: &["container unpause", "unpause"],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches, "unpause")))
};

async fn go(cli: &Cli, matches: &Matches, action: &str) -> Outcome {
    let client = cli.client()?;
    client.version().await?;
    in_parallel(&matches.args, async |name| {
        client.post(format!("/containers/{}/{action}", path_segment(name))).done().await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
