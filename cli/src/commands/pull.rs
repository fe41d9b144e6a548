//! `pull`, and pulling on behalf of `run` and `create`.

use std::io::Write;

use crate::cli::Cli;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, Running, check, leaf, string, switch};
use crate::config::credentials;
use crate::failure::Failure;
use crate::output::progress::{self, Display};
use crate::reference::Reference;
use crate::{output, terminal};

static FLAGS: &[Flag] = &[
    switch("all-tags", "a", "Download all tags of the repository"),
    switch("disable-content-trust", "", "Skip the check of image signatures").default("true").check(check::untrusted),
    string("platform", "", "Platform of the image (os[/arch[/variant]])"),
    switch("quiet", "q", "Show the image's name only"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Download an image from a registry",
    names: &["image pull", "pull"],
    flags: &[FLAGS],
    args: Args::Exactly(1),
    ..leaf(run)
};

fn run<'a>(cli: &'a Cli, matches: &'a Matches) -> Running<'a> {
    Box::pin(go(cli, matches))
}

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let reference = Reference::parse(matches.arg(0))?;
    let all = matches.bool("all-tags");
    if all && reference.is_pinned() {
        return Err(Failure::message("tag can't be used with --all-tags/-a"));
    }
    let quiet = matches.bool("quiet");
    if !all && !reference.is_pinned() && !quiet {
        output::line("Using default tag: latest")?;
    }
    let reference = if all { reference } else { reference.or_latest() };
    pull(cli, &reference, matches.str("platform"), if quiet { Show::Nothing } else { Show::Stdout }).await?;
    output::line(&reference.full())
}

/// Where progress is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Show {
    Stdout,
    Stderr,
    Nothing,
}

/// Pulls an image; a repository without tag pulls all its tags.
///
/// # Errors
/// What the engine says went wrong.
pub async fn pull(cli: &Cli, reference: &Reference, platform: Option<&str>, show: Show) -> Outcome {
    let auth = credentials::lookup(cli.config(), credentials::server_key(&reference.domain));
    let platform = platform.map(str::to_owned).or_else(default_platform).unwrap_or_default();
    let response = cli
        .client()?
        .post("/images/create")
        .query("fromImage", reference.familiar_name())
        .query_set("tag", reference.tag_or_digest())
        .query_set("platform", platform)
        .header("x-registry-auth", credentials::header(&auth))
        .send()
        .await?;
    let (mut sink, mut stdout, mut stderr) = (std::io::sink(), std::io::stdout(), std::io::stderr());
    let (out, tty): (&mut dyn Write, bool) = match show {
        Show::Stdout => (&mut stdout, terminal::stdout_is_terminal()),
        Show::Stderr => (&mut stderr, std::io::IsTerminal::is_terminal(&std::io::stderr())),
        Show::Nothing => (&mut sink, false),
    };
    let mut display = Display::new(out, tty.then(terminal::width));
    progress::messages(response.into_body(), |message| display.show(&message)).await
}

/// `DOCKER_DEFAULT_PLATFORM`.
pub fn default_platform() -> Option<String> {
    std::env::var("DOCKER_DEFAULT_PLATFORM").ok().filter(|platform| !platform.is_empty())
}
