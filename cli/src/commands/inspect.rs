//! `inspect`, and the inspecting commands of the groups.

use serde_json::Value;

use super::common::json_format_flag;
use crate::cli::Cli;
use crate::client::{ApiError, path_segment};
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, Running, leaf, string, switch};
use crate::failure::Failure;
use crate::output::template::{Answers, Subject};
use crate::output::{self, json};

static FLAGS: &[Flag] = &[
    json_format_flag("f"),
    switch("size", "s", "Display total file sizes if the type is container"),
    string("type", "", "Only inspect objects of the given type"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Return low-level information on Docker objects",
    flags: &[FLAGS],
    args: Args::AtLeast(1),
    ..leaf(run)
};

fn run<'a>(cli: &'a Cli, matches: &'a Matches) -> Running<'a> {
    Box::pin(go(cli, matches))
}

/// Kinds of things in the order in which a name is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

const KINDS: [(&str, Kind); 4] =
    [("container", Kind::Container), ("image", Kind::Image), ("network", Kind::Network), ("volume", Kind::Volume)];

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let wanted = matches.string("type");
    let kinds: Vec<Kind> = KINDS.iter().filter(|(name, _)| wanted.is_empty() || wanted == *name).map(|(_, kind)| *kind).collect();
    if matches.changed("type") && wanted.is_empty() {
        return Err(Failure::message("type is empty: must be one of \"container\", \"image\", \"network\", \"volume\""));
    }
    if kinds.is_empty() {
        return Err(Failure::message(format!(
            "unknown type: {wanted:?}: must be one of \"container\", \"image\", \"network\", \"volume\""
        )));
    }
    if matches.bool("size") && !kinds.contains(&Kind::Container) {
        eprintln!("WARNING: --size ignored for {wanted}s");
    }
    show(matches, async |name| {
        for kind in &kinds {
            match fetch(cli, *kind, name, matches).await {
                Err(Lookup::Refused(error)) if kinds.len() > 1 && (error.is_not_found() || is_no_name(*kind, &error)) => {}
                other => return other.map(|text| (kind.subject(), text)).map_err(Lookup::into_failure),
            }
        }
        Err(Failure::message(format!("Error: No such object: {name}")))
    })
    .await
}

impl Kind {
    fn subject(self) -> Subject {
        match self {
            Self::Container => Subject::Container,
            Self::Image => Subject::Image,
            Self::Network => Subject::Network,
            Self::Volume => Subject::Volume,
        }
    }
}

/// A text that cannot be an image's name may be another thing's. A container's 400 is an ambiguous prefix, which is told.
fn is_no_name(kind: Kind, error: &ApiError) -> bool {
    kind != Kind::Container && matches!(error, ApiError::Daemon { status: 400, .. })
}

/// An `inspect` for one kind of thing.
///
/// # Errors
/// What the engine refuses.
pub async fn one_kind(cli: &Cli, matches: &Matches, kind: Kind) -> Outcome {
    let subject = if kind == Kind::Volume { Subject::VolumeAlone } else { kind.subject() };
    show(matches, async |name| fetch(cli, kind, name, matches).await.map(|text| (subject, text)).map_err(Lookup::into_failure)).await
}

enum Lookup {
    Refused(ApiError),
    Failed(Failure),
}

impl Lookup {
    fn into_failure(self) -> Failure {
        match self {
            Self::Refused(error) => error.into(),
            Self::Failed(failure) => failure,
        }
    }
}

/// The JSON text as the engine wrote it.
async fn fetch(cli: &Cli, kind: Kind, name: &str, matches: &Matches) -> Result<String, Lookup> {
    let client = cli.client().map_err(Lookup::Failed)?;
    let name = path_segment(name);
    let call = match kind {
        Kind::Container => client.get(format!("/containers/{name}/json")).flag("size", matches.bool("size")),
        Kind::Image => {
            let platform = super::common::platform(matches.str("platform")).map_err(Lookup::Failed)?;
            client.get(format!("/images/{name}/json")).query_set("platform", platform)
        }
        Kind::Network => client.get(format!("/networks/{name}")).flag("verbose", matches.bool("verbose")),
        Kind::Volume => client.get(format!("/volumes/{name}")),
    };
    let bytes = call.text().await.map_err(Lookup::Refused)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Looks up every name, prints what was found, then what was not.
///
/// # Errors
/// If any was not found or the template fails.
pub async fn show(matches: &Matches, look_up: impl AsyncFn(&str) -> Result<(Subject, String), Failure>) -> Outcome {
    let template = match matches.str("format") {
        None | Some("" | "json") => None,
        // What can be parsed is the same for all of them.
        Some(source) => Some(Answers::parse(source, Subject::Container)?),
    };
    let mut found = Vec::new();
    let mut problems: Vec<Failure> = Vec::new();
    for name in &matches.args {
        match look_up(name).await {
            Ok(answer) => found.push(answer),
            Err(failure) => problems.push(failure),
        }
    }
    match template {
        Some(template) => print_by(&template, &found, &mut problems)?,
        None => print_array(matches.str("format") == Some("json"), &found)?,
    }
    if problems.is_empty() {
        return Ok(());
    }
    let code = problems.first().map_or(1, Failure::code);
    let texts: Vec<&str> = problems.iter().filter_map(Failure::text).collect();
    Err(Failure::exit_with(code, texts.join("\n")))
}

fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|err| Failure::message(format!("the daemon's answer is no JSON: {err}")))
}

fn print_array(compact: bool, found: &[(Subject, String)]) -> Outcome {
    let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
    let array = format!("[{}]", texts.join(","));
    output::line(&if compact { json::compact(&parse(&array)?, true) } else { json::reindent(&array, "    ") })
}

/// What a template fails on is left out; nothing at all is an empty line, as docker has it.
fn print_by(template: &Answers, found: &[(Subject, String)], problems: &mut Vec<Failure>) -> Outcome {
    let mut out = String::new();
    for (subject, text) in found {
        let mut one = String::new();
        match template.execute(*subject, &parse(text)?, &mut one) {
            Ok(()) => out.push_str(&format!("{one}\n")),
            Err(failure) => problems.push(failure),
        }
    }
    output::print(if out.is_empty() { "\n" } else { &out })
}
