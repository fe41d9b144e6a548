//! `wait`.

use super::common::for_each;
use super::run::Exit;
use crate::cli::Cli;
use crate::cmdline::{Args, Command, Matches, Outcome, leaf};

pub static COMMAND: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Block until one or more containers stop, then print their exit codes",
    names: &["container wait", "wait"],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    for_each(&matches.args, async |name| {
        let code = Exit::watch(client, name, "").await?.status().await?;
        Ok(Some(code.to_string()))
    })
    .await
}
