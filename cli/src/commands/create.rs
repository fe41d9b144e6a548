//! `create`, and creating on behalf of `run`.

use std::path::Path;

use proto_docker::container::{CreateRequest, CreateResponse};

use super::pull::{self, Show};
use crate::cli::Cli;
use crate::client::ApiError;
use crate::cmdline::{Args, Command, Matches, Outcome, PROGRAM, Running, leaf};
use crate::failure::Failure;
use crate::output;
use crate::reference::Reference;
use crate::spec;

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a new container",
    names: &["container create", "create"],
    flags: &[spec::FLAGS, spec::LIMITS],
    args: Args::AtLeast(1),
    interspersed: false,
    ..leaf(run)
};

fn run<'a>(cli: &'a Cli, matches: &'a Matches) -> Running<'a> {
    Box::pin(go(cli, matches))
}

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let usage = |failure: Failure| match failure.text() {
        Some(text) => Failure::exit_with(125, format!("{PROGRAM}: {text}\n\nRun '{PROGRAM} create --help' for more information")),
        None => failure,
    };
    check_pull(matches).map_err(usage)?;
    cli.client()?.version().await?;
    let request = request(cli, matches).map_err(usage)?;
    let id = create(cli, matches, &request).await?;
    output::line(&id)
}

/// The create request that the flags and the configuration ask for.
///
/// # Errors
/// As [`spec::build`].
pub fn request(cli: &Cli, matches: &Matches) -> Result<CreateRequest, Failure> {
    let mut request = spec::build(matches)?;
    let proxies = cli.config().proxies(&cli.client()?.endpoint().url);
    spec::env::add_proxies(&mut request.config.env, matches.list("env"), &proxies);
    Ok(request)
}

/// # Errors
/// A `--pull` that docker does not know.
pub fn check_pull(matches: &Matches) -> Outcome {
    match matches.str("pull") {
        None | Some("always" | "missing" | "never" | "") => Ok(()),
        Some(other) => {
            Err(Failure::message(format!("invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\"")))
        }
    }
}

/// Creates the container, pulling the image if that is asked for and needed; gives its id.
///
/// # Errors
/// What the engine refuses, a malformed image name, or an id file in the way.
pub async fn create(cli: &Cli, matches: &Matches, request: &CreateRequest) -> Result<String, Failure> {
    let id_file = IdFile::reserve(matches.str("cidfile"))?;
    let image = matches.arg(0);
    let reference = if is_image_id(image) { None } else { Some(Reference::parse(image)?.or_latest()) };
    let mode = matches.str("pull").filter(|mode| !mode.is_empty()).unwrap_or("missing");
    let platform = matches.str("platform").map(str::to_owned).or_else(pull::default_platform);
    let show = if matches.bool("quiet") { Show::Nothing } else { Show::Stderr };
    if let (Some(reference), "always") = (&reference, mode) {
        pull::pull(cli, reference, platform.as_deref(), show).await?;
    }
    let response = match (post(cli, matches, request, platform.as_deref()).await, &reference) {
        (Err(error), Some(reference)) if mode == "missing" && is_missing_image(&error) => {
            if show != Show::Nothing {
                eprintln!("Unable to find image '{}' locally", reference.familiar());
            }
            pull::pull(cli, reference, platform.as_deref(), show).await?;
            post(cli, matches, request, platform.as_deref()).await?
        }
        (other, _) => other?,
    };
    for warning in &response.warnings {
        eprintln!("WARNING: {warning}");
    }
    id_file.fill(&response.id)?;
    Ok(response.id)
}

/// `sha256:` and hex digits: an id that no registry knows.
fn is_image_id(image: &str) -> bool {
    image.strip_prefix("sha256:").is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_missing_image(error: &ApiError) -> bool {
    // A missing network or volume is a 404 too.
    error.is_not_found() && error.daemon_message().is_some_and(|message| message.to_lowercase().contains("no such image"))
}

async fn post(cli: &Cli, matches: &Matches, request: &CreateRequest, platform: Option<&str>) -> Result<CreateResponse, ApiError> {
    let client = cli.client().map_err(|failure| ApiError::Connect(failure.text().unwrap_or_default().to_owned()))?;
    client
        .post("/containers/create")
        .query_set("name", matches.str("name").unwrap_or_default())
        .query_set("platform", platform.unwrap_or_default())
        .json(request)
        .fetch()
        .await
}

/// `--cidfile`: made before, filled after, removed if nothing came of it.
struct IdFile<'a> {
    path: Option<&'a Path>,
}

impl<'a> IdFile<'a> {
    fn reserve(path: Option<&'a str>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| !path.is_empty()).map(Path::new) else { return Ok(Self { path: None }) };
        match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(_) => Ok(Self { path: Some(path) }),
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::message(format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ))),
            Err(err) => Err(Failure::message(format!("failed to create the container ID file: open {}: {err}", path.display()))),
        }
    }

    fn fill(mut self, id: &str) -> Outcome {
        let Some(path) = self.path.take() else { return Ok(()) };
        std::fs::write(path, id)
            .map_err(|err| Failure::message(format!("failed to write the container ID ({id}) to file {}: {err}", path.display())))
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path {
            // It is empty and ours; that it cannot be removed changes nothing for the caller.
            drop(std::fs::remove_file(path));
        }
    }
}
