//! `push` and `commit`.

use proto_docker::config::Config;
use proto_docker::container::IdResponse;

use crate::cli::Cli;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, check, leaf, list, string, switch};
use crate::config::credentials;
use crate::failure::Failure;
use crate::output::progress::{self, Display};
use crate::reference::Reference;
use crate::{output, terminal};

static PUSH_FLAGS: &[Flag] = &[
    switch("all-tags", "a", "Push all tags of the image"),
    switch("disable-content-trust", "", "Skip the signing of images").default("true").check(check::untrusted),
    switch("quiet", "q", "Show the image's name only"),
    string("platform", "", "Push that platform of the image alone (os/arch[/variant])"),
];

pub static PUSH: Command = Command {
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Upload an image to a registry",
    names: &["image push", "push"],
    flags: &[PUSH_FLAGS],
    args: Args::Exactly(1),
    ..leaf(|cli, matches| Box::pin(push(cli, matches)))
};

async fn push(cli: &Cli, matches: &Matches) -> Outcome {
    let reference = Reference::parse(matches.arg(0))?;
    let (all, quiet) = (matches.bool("all-tags"), matches.bool("quiet"));
    if all && reference.is_pinned() {
        return Err(Failure::message("tag can't be used with --all-tags/-a"));
    }
    if !all && !reference.is_pinned() && !quiet {
        output::line("Using default tag: latest")?;
    }
    let reference = if all { reference } else { reference.or_latest() };
    let auth = credentials::lookup(cli.config(), credentials::server_key(&reference.domain));
    let call = cli.client()?.post(format!("/images/{}/push", crate::client::path_segment(&reference.familiar_name())));
    let call = call.query_set("platform", super::common::platform(matches.str("platform"))?);
    let call = call.query_set("tag", reference.tag_or_digest()).header("x-registry-auth", credentials::header(&auth));
    let response = call.send().await?;
    let (mut sink, mut stdout) = (std::io::sink(), std::io::stdout());
    let out: &mut dyn std::io::Write = if quiet { &mut sink } else { &mut stdout };
    let mut display = Display::new(out, (!quiet && terminal::stdout_is_terminal()).then(terminal::width));
    progress::messages(response.into_body(), |message| display.show(&message)).await?;
    if quiet { output::line(&reference.full()) } else { Ok(()) }
}

static COMMIT_FLAGS: &[Flag] = &[
    string("author", "a", "Author of the image (e.g., \"A. Person <person@example.com>\")"),
    list("change", "c", "Apply a Dockerfile instruction to the image"),
    string("message", "m", "Commit message"),
    switch("pause", "p", "Pause the container meanwhile").default("true"),
];

pub static COMMIT: Command = Command {
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Create a new image from a container's changes",
    names: &["container commit", "commit"],
    flags: &[COMMIT_FLAGS],
    args: Args::Between(1, 2),
    interspersed: false,
    ..leaf(|cli, matches| Box::pin(commit(cli, matches)))
};

async fn commit(cli: &Cli, matches: &Matches) -> Outcome {
    let reference = matches.args.get(1).map(|name| Reference::parse(name)).transpose()?.map(Reference::or_latest);
    let mut call = cli
        .client()?
        .post("/commit")
        .query("container", matches.arg(0))
        .query_set("author", matches.string("author"))
        .query_set("comment", matches.string("message"))
        .query("pause", if matches.bool_or("pause", true) { "1" } else { "0" });
    if let Some(reference) = &reference {
        call = call.query("repo", reference.familiar_name()).query("tag", reference.tag());
    }
    for change in matches.list("change") {
        call = call.query("changes", change);
    }
    let answer: IdResponse = call.json(&Config::default()).fetch().await?;
    output::line(&answer.id)
}
