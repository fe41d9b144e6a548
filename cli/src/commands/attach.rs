//! `attach`.

use proto_docker::inspect::ContainerInspect;

use super::run::{Exit, attach_call};
use crate::cli::Cli;
use crate::client::{Client, path_segment};
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, Running, leaf, string, switch};
use crate::failure::Failure;
use crate::session::signals::{self, Window};
use crate::session::{self, End, Session, Wiring};
use crate::terminal;

static FLAGS: &[Flag] = &[
    string("detach-keys", "", "Keys that leave the container running"),
    switch("no-stdin", "", "Do not attach STDIN"),
    switch("sig-proxy", "", "Pass received signals on to the process").default("true"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Attach local standard input, output, and error streams to a running container",
    names: &["container attach", "attach"],
    flags: &[FLAGS],
    args: Args::Exactly(1),
    ..leaf(run)
};

fn run<'a>(cli: &'a Cli, matches: &'a Matches) -> Running<'a> {
    Box::pin(go(cli, matches))
}

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let name = matches.arg(0);
    let container: ContainerInspect = client.get(format!("/containers/{}/json", path_segment(name))).fetch().await?;
    refuse_unless_running(&container)?;
    let config = &container.config;
    let stdin = !matches.bool("no-stdin") && config.open_stdin;
    session::check_tty(!matches.bool("no-stdin"), config.tty)?;
    let detach_keys = session::detach_keys(cli, matches.str("detach-keys"))?;
    let wiring = Wiring { tty: config.tty, stdin, stdout: true, stderr: true, detach_keys };
    let proxy = matches.bool_or("sig-proxy", true) && !config.tty;
    let caught = if proxy { Some(signals::catch()?) } else { None };
    if config.tty {
        signals::restore_terminal_on_fatal_signals();
    }
    let exit = Exit::watch(client, &container.id, "not-running").await?;
    let hijacked = attach_call(client, &container.id, &wiring).hijack().await?;
    let session = Session::open(hijacked, wiring.clone())?;
    let window = (wiring.tty && terminal::stdout_is_terminal()).then(|| nudged(Window::Container(container.id.clone()), client));
    let forward = caught.map(|caught| caught.forward(client, &container.id));
    match signals::beside(session.run(), forward, window).await? {
        End::Detached => Err(Failure::message("read escape sequence")),
        End::Finished => match exit.status().await? {
            0 => Ok(()),
            code => Err(Failure::status(code)),
        },
    }
}

/// The program in the container has drawn its screen already: it is made to draw it again.
async fn nudged(window: Window, client: &Client) -> std::convert::Infallible {
    window.nudge(client).await;
    window.follow(client).await
}

fn refuse_unless_running(container: &ContainerInspect) -> Outcome {
    let state = &container.state;
    let why = match () {
        () if !state.running => "cannot attach to a stopped container, start it first",
        () if state.paused => "cannot attach to a paused container, unpause it first",
        () if state.restarting => "cannot attach to a restarting container, wait until it is running",
        () => return Ok(()),
    };
    Err(Failure::message(why))
}
