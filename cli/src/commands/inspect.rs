//! `inspect`, and the inspecting commands of the groups.

use serde_json::Value;

use super::common::json_format_flag;
use crate::cli::Cli;
use crate::client::{ApiError, path_segment};
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, Running, leaf, string, switch};
use crate::failure::Failure;
use crate::output::{self, json, template};

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
                other => return other.map_err(Lookup::into_failure),
            }
        }
        Err(Failure::message(format!("Error: No such object: {name}")))
    })
    .await
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
    show(matches, async |name| fetch(cli, kind, name, matches).await.map_err(Lookup::into_failure)).await
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
        Kind::Image => client.get(format!("/images/{name}/json")),
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
pub async fn show(matches: &Matches, look_up: impl AsyncFn(&str) -> Result<String, Failure>) -> Outcome {
    let mut found = Vec::new();
    let mut problems: Vec<Failure> = Vec::new();
    for name in &matches.args {
        match look_up(name).await {
            Ok(text) => found.push(text),
            Err(failure) => problems.push(failure),
        }
    }
    print(matches.str("format"), &found, &mut problems)?;
    if problems.is_empty() {
        return Ok(());
    }
    let code = problems.first().map_or(1, Failure::code);
    let texts: Vec<&str> = problems.iter().filter_map(Failure::text).collect();
    Err(Failure::exit_with(code, texts.join("\n")))
}

/// Prints JSON texts as one array, or each by the template.
///
/// # Errors
/// When stdout fails.
pub fn print(format: Option<&str>, found: &[String], problems: &mut Vec<Failure>) -> Outcome {
    let array = format!("[{}]", found.join(","));
    match format {
        None | Some("") => output::line(&json::reindent(&array, "    ")),
        Some("json") => {
            let value: Value =
                serde_json::from_str(&array).map_err(|err| Failure::message(format!("the daemon's answer is no JSON: {err}")))?;
            output::line(&json::compact(&value, true))
        }
        Some(source) => {
            for text in found {
                let value: Value =
                    serde_json::from_str(text).map_err(|err| Failure::message(format!("the daemon's answer is no JSON: {err}")))?;
                match template::execute_json(source, &value) {
                    Ok(text) => output::line(&text)?,
                    Err(failure) => {
                        output::line("")?;
                        problems.push(failure);
                    }
                }
            }
            if found.is_empty() { output::line("") } else { Ok(()) }
        }
    }
}
