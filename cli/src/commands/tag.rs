//! `tag`.

use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Matches, Outcome, leaf};
use crate::failure::Failure;
use crate::reference::Reference;

pub static COMMAND: Command = Command {
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    names: &["image tag", "tag"],
    args: Args::Exactly(2),
    interspersed: false,
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let target = matches.arg(1);
    let malformed = |why: &str| Failure::message(format!("Error parsing reference: {target:?} is not a valid repository/tag: {why}"));
    let reference = Reference::parse(target).map_err(|failure| malformed(failure.text().unwrap_or_default()))?;
    if reference.has_digest() {
        return Err(Failure::message("refusing to create a tag with a digest reference"));
    }
    let reference = reference.or_latest();
    let call = cli.client()?.post(format!("/images/{}/tag", path_segment(matches.arg(0))));
    Ok(call.query("repo", reference.familiar_name()).query("tag", reference.tag()).done().await?)
}
