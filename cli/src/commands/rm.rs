//! `rm`.

use super::common::for_each;
use crate::cli::Cli;
use crate::client::{ApiError, Client, path_segment};
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, PROGRAM, leaf, switch};
use crate::failure::Failure;

static FLAGS: &[Flag] = &[
    switch("force", "f", "Remove a running container too (uses SIGKILL)"),
    switch("link", "l", "Remove the specified link"),
    switch("volumes", "v", "Remove the container's anonymous volumes too"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove one or more containers",
    names: &["container rm", "container remove", "rm"],
    flags: &[FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let force = matches.bool("force");
    for_each(&matches.args, async |arg| {
        let name = arg.trim_matches('/');
        if name.is_empty() {
            return Err(Failure::message("Container name cannot be empty"));
        }
        let call = client.delete(format!("/containers/{}", path_segment(name)));
        let call = call.flag("v", matches.bool("volumes")).flag("link", matches.bool("link")).flag("force", force);
        match call.done().await {
            Ok(()) => Ok(Some(arg.to_owned())),
            Err(error) if error.is_not_found() => {
                let failure = explain(client, name, &error).await;
                if !force {
                    return Err(failure);
                }
                // Gone is what was asked for.
                eprintln!("{}", failure.text().unwrap_or_default());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Says so if the name is an image's.
async fn explain(client: &Client, name: &str, error: &ApiError) -> Failure {
    let text = error.to_string();
    let is_image = !text.contains("image") && client.get(format!("/images/{}/json", path_segment(name))).done().await.is_ok();
    if is_image {
        return Failure::message(format!("{text}\n{name:?} is an image, not a container: '{PROGRAM} rmi {name}' removes it"));
    }
    Failure::message(text)
}
