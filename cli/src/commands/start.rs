//! `start`.

use proto_docker::inspect::ContainerInspect;

use super::run::{Exit, attach_call};
use crate::cli::Cli;
use crate::client::{Client, path_segment};
use crate::cmdline::{Args, Command, Flag, Kind, Matches, Outcome, leaf, string, switch, unsupported};
use crate::failure::Failure;
use crate::session::signals::{self, Window};
use crate::session::{self, End, Session, Wiring};
use crate::{output, terminal};

static FLAGS: &[Flag] = &[
    switch("attach", "a", "Attach STDOUT/STDERR and pass signals on"),
    string("detach-keys", "", "Keys that leave the container running"),
    switch("interactive", "i", "Attach the container's STDIN"),
    unsupported("checkpoint", "", Kind::One("string")),
    unsupported("checkpoint-dir", "", Kind::One("string")),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    names: &["container start", "start"],
    flags: &[FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let keys = session::detach_keys(cli, matches.str("detach-keys"))?;
    if !matches.bool("attach") && !matches.bool("interactive") {
        return start_all(client, &matches.args).await;
    }
    if matches.args.len() > 1 {
        return Err(Failure::message("you cannot start and attach multiple containers at once"));
    }
    attached(client, matches, keys).await
}

async fn start_all(client: &Client, names: &[String]) -> Outcome {
    let mut failed = Vec::new();
    for name in names {
        match client.post(format!("/containers/{}/start", path_segment(name))).done().await {
            Ok(()) => output::line(name)?,
            Err(error) => {
                eprintln!("{error}");
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::message(format!("Error: failed to start containers: {}", failed.join(", "))))
}

async fn attached(client: &Client, matches: &Matches, detach_keys: Vec<u8>) -> Outcome {
    let container: ContainerInspect = client.get(format!("/containers/{}/json", path_segment(matches.arg(0)))).fetch().await?;
    let (id, config) = (container.id.as_str(), &container.config);
    let stdin = matches.bool("interactive") && config.open_stdin;
    let wiring = Wiring { tty: config.tty, stdin, stdout: true, stderr: true, detach_keys };
    let caught = if config.tty { None } else { Some(signals::catch()?) };
    if config.tty {
        signals::restore_terminal_on_fatal_signals();
    }
    let hijacked = attach_call(client, id, &wiring).hijack().await?;
    let remove = container.host_config.auto_remove;
    let exit = Exit::watch(client, id, if remove { "removed" } else { "next-exit" }).await?;
    if let Err(error) = client.post(format!("/containers/{id}/start")).done().await {
        drop(hijacked);
        if remove {
            exit.status().await.ok();
        }
        return Err(error.into());
    }
    let session = Session::open(hijacked, wiring)?;
    let window = (config.tty && terminal::stdout_is_terminal()).then(|| Window::Container(id.to_owned()).follow(client));
    let forward = caught.map(|caught| caught.forward(client, id));
    if signals::beside(session.run(), forward, window).await? == End::Detached {
        return Ok(());
    }
    match exit.status().await? {
        0 => Ok(()),
        code => Err(Failure::status(code)),
    }
}
