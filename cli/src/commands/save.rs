//! `save` and `export`: a tar archive to a file or to stdout.

use std::io::Write;
use std::path::{Path, PathBuf};

use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, leaf, string};
use crate::failure::Failure;
use crate::{output, terminal};

static OUTPUT: &[Flag] = &[string("output", "o", "Write to a file, instead of STDOUT")];
static SAVE_FLAGS: &[Flag] = &[string("platform", "", "Save that platform of the image alone (os/arch[/variant])")];

pub static SAVE: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    names: &["image save", "save"],
    flags: &[OUTPUT, SAVE_FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(save(cli, matches)))
};

pub static EXPORT: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Export a container's filesystem as a tar archive",
    names: &["container export", "export"],
    flags: &[OUTPUT],
    args: Args::Exactly(1),
    ..leaf(|cli, matches| Box::pin(export(cli, matches)))
};

async fn save(cli: &Cli, matches: &Matches) -> Outcome {
    let target = Target::choose("save image", matches.str("output"))?;
    let mut call = cli.client()?.get("/images/get").query_set("platform", super::common::platform(matches.str("platform"))?);
    for name in &matches.args {
        call = call.query("names", name);
    }
    target.fill(call.send().await?.into_body()).await
}

async fn export(cli: &Cli, matches: &Matches) -> Outcome {
    let target = Target::choose("export container", matches.str("output"))?;
    let call = cli.client()?.get(format!("/containers/{}/export", path_segment(matches.arg(0))));
    target.fill(call.send().await?.into_body()).await
}

enum Target {
    Stdout,
    File(PathBuf),
}

impl Target {
    fn choose(verb: &str, output: Option<&str>) -> Result<Self, Failure> {
        match output.filter(|path| !path.is_empty()) {
            None if terminal::stdout_is_terminal() => {
                Err(Failure::message("cowardly refusing to save to a terminal. Use the -o flag or redirect"))
            }
            None => Ok(Self::Stdout),
            Some(path) => {
                let path = PathBuf::from(path);
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let problem = |why: String| Failure::message(format!("failed to {verb}: invalid output path: {why}"));
                if !parent.is_dir() {
                    return Err(problem(format!("stat {}: no such file or directory", parent.display())));
                }
                if path.is_dir() {
                    return Err(problem(format!("{:?} must be a file, not a directory", path.display().to_string())));
                }
                Ok(Self::File(path))
            }
        }
    }

    /// A file appears under its name when it is complete.
    async fn fill(self, body: Incoming) -> Outcome {
        let path = match self {
            Self::Stdout => return copy(body, output::bytes).await,
            // A device or pipe is written as it is.
            Self::File(path) if path.exists() && !path.is_file() => {
                let mut file = std::fs::OpenOptions::new().write(true).open(&path)?;
                return copy(body, |data| Ok(file.write_all(data)?)).await;
            }
            Self::File(path) => path,
        };
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".tmp{}", std::process::id()));
        let temporary = path.with_file_name(name);
        let told = |err: std::io::Error| Failure::message(format!("open {}: {err}", temporary.display()));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(told)?;
        let written = copy(body, |data| Ok(file.write_all(data)?)).await;
        let done = written.and_then(|()| Ok(std::fs::rename(&temporary, &path)?));
        if done.is_err() {
            std::fs::remove_file(&temporary).ok();
        }
        done
    }
}

/// Hands each chunk of a body on.
pub async fn copy(mut body: Incoming, mut each: impl FnMut(&[u8]) -> Outcome) -> Outcome {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|err| Failure::message(format!("the daemon's answer broke off: {err}")))?;
        if let Ok(data) = frame.into_data() {
            each(&data)?;
        }
    }
    Ok(())
}

/// As [`copy`], for a receiver that makes the sender wait; false ends it.
pub async fn copy_async(mut body: Incoming, mut each: impl AsyncFnMut(&[u8]) -> bool) -> Outcome {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|err| Failure::message(format!("the daemon's answer broke off: {err}")))?;
        if let Ok(data) = frame.into_data()
            && !each(&data).await
        {
            break;
        }
    }
    Ok(())
}
