//! `load` and `import`.

use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use crate::cli::Cli;
use crate::client::Body;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, leaf, list, string, switch};
use crate::failure::Failure;
use crate::output::progress::{self, Display};
use crate::reference::Reference;
use crate::{output, session, terminal};

static FLAGS: &[Flag] = &[
    string("input", "i", "Read from a tar archive, instead of STDIN"),
    switch("quiet", "q", "Do not show progress"),
    string("platform", "", "Name that platform of the images (os/arch[/variant])"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS]",
    about: "Load an image from a tar archive or STDIN",
    names: &["image load", "load"],
    flags: &[FLAGS],
    ..leaf(|cli, matches| Box::pin(load(cli, matches)))
};

async fn load(cli: &Cli, matches: &Matches) -> Outcome {
    let body = match matches.str("input") {
        Some(path) => file_body(path).await?,
        None if terminal::stdin_is_terminal() => {
            return Err(Failure::message("requested load from stdin, but stdin is empty"));
        }
        None => stdin_body(),
    };
    let quiet = matches.bool("quiet") || !terminal::stdout_is_terminal();
    let call = cli.client()?.post("/images/load").query("quiet", if quiet { "1" } else { "0" });
    let call = call.query_set("platform", super::common::platform(matches.str("platform"))?);
    let response = call.body(body, "application/x-tar").send().await?;
    let json = response.headers().get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if json {
        let mut stdout = std::io::stdout();
        let mut display = Display::new(&mut stdout, terminal::stdout_is_terminal().then(terminal::width));
        return progress::messages(response.into_body(), |message| display.show(&message)).await;
    }
    let collected =
        response.into_body().collect().await.map_err(|err| Failure::message(format!("the daemon's answer broke off: {err}")))?;
    output::bytes(&collected.to_bytes())
}

/// A file's bytes as a request body.
async fn file_body(path: &str) -> Result<Body, Failure> {
    let path = PathBuf::from(path);
    let told = |err: std::io::Error| {
        let why = if err.kind() == std::io::ErrorKind::NotFound { "no such file or directory".to_owned() } else { err.to_string() };
        Failure::message(format!("open {}: {why}", path.display()))
    };
    let file = tokio::fs::File::open(&path).await.map_err(told)?;
    if file.metadata().await?.is_dir() {
        return Err(Failure::message(format!("read {}: is a directory", path.display())));
    }
    let stream = ReaderStream::with_capacity(file, 256 * 1024);
    Ok(StreamBody::new(futures_util::StreamExt::map(stream, |chunk| chunk.map(Frame::data))).boxed())
}

/// Stdin as a request body.
pub fn stdin_body() -> Body {
    channel_body(session::stdin::reader())
}

/// Chunks from elsewhere as a request body.
pub fn channel_body(receiver: mpsc::Receiver<Vec<u8>>) -> Body {
    let chunks = chunks_of(receiver);
    StreamBody::new(chunks).boxed()
}

fn chunks_of(mut receiver: mpsc::Receiver<Vec<u8>>) -> impl futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> + Send + Sync {
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(Bytes::from(chunk))))))
}

static IMPORT_FLAGS: &[Flag] = &[
    list("change", "c", "Apply a Dockerfile instruction to the image"),
    string("message", "m", "Commit message of the image"),
    string("platform", "", "Platform of the image (os[/arch[/variant]])"),
];

pub static IMPORT: Command = Command {
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "Import the contents from a tarball to create a filesystem image",
    names: &["image import", "import"],
    flags: &[IMPORT_FLAGS],
    // Docker looks at no more than two, and refuses none.
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(import(cli, matches)))
};

async fn import(cli: &Cli, matches: &Matches) -> Outcome {
    let source = matches.arg(0);
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    let reference = matches.args.get(1).map(|name| Reference::parse(name)).transpose()?.map(Reference::or_latest);
    let mut call = cli
        .client()?
        .post("/images/create")
        .query("fromSrc", if is_url { source } else { "-" })
        .query_set("message", matches.string("message"))
        .query_set("platform", matches.string("platform"));
    if let Some(reference) = &reference {
        call = call.query("repo", reference.familiar_name()).query("tag", reference.tag());
    }
    for change in matches.list("change") {
        call = call.query("changes", change);
    }
    if !is_url {
        call = call.body(if source == "-" { stdin_body() } else { file_body(source).await? }, "application/x-tar");
    }
    let response = call.send().await?;
    let mut stdout = std::io::stdout();
    let mut display = Display::new(&mut stdout, terminal::stdout_is_terminal().then(terminal::width));
    progress::messages(response.into_body(), |message| display.show(&message)).await
}
