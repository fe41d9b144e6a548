//! `rename`.

use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Matches, Outcome, leaf};
use crate::failure::Failure;

pub static COMMAND: Command = Command {
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    names: &["container rename", "rename"],
    args: Args::Exactly(2),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let (old, new) = (matches.arg(0).trim(), matches.arg(1).trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::message("Error: Neither old nor new names may be empty"));
    }
    let renamed = cli.client()?.post(format!("/containers/{}/rename", path_segment(old))).query("name", new).done().await;
    renamed.map_err(|error| Failure::message(format!("{error}\nError: failed to rename container named {old}")))
}
