//! `rmi`, `image rm`.

use proto_docker::image::DeleteItem;

use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Flag, Kind, Matches, Outcome, leaf, switch, unsupported};
use crate::failure::Failure;
use crate::output;

static FLAGS: &[Flag] = &[
    switch("force", "f", "Remove the image even if it is used"),
    switch("no-prune", "", "Do not delete untagged parents"),
    unsupported("platform", "", Kind::Many("strings")),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    names: &["image rm", "image remove", "rmi"],
    flags: &[FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let force = matches.bool("force");
    let mut problems = Vec::new();
    let mut fatal = false;
    for name in &matches.args {
        let call = client.delete(format!("/images/{}", path_segment(name)));
        match call.flag("force", force).flag("noprune", matches.bool("no-prune")).fetch::<Option<Vec<DeleteItem>>>().await {
            Ok(items) => {
                for item in items.unwrap_or_default() {
                    let line =
                        if item.deleted.is_empty() { format!("Untagged: {}", item.untagged) } else { format!("Deleted: {}", item.deleted) };
                    output::line(&line)?;
                }
            }
            Err(error) => {
                fatal |= !error.is_not_found();
                problems.push(error.to_string());
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    if force && !fatal {
        // Gone is what was asked for.
        eprintln!("{}", problems.join("\n"));
        return Ok(());
    }
    Err(Failure::message(problems.join("\n")))
}
