//! `exec`.

use proto_docker::config::StrSlice;
use proto_docker::container::IdResponse;
use proto_docker::exec::{ExecCreateRequest, ExecInspect, ExecStartRequest};

use crate::cli::Cli;
use crate::client::{ApiError, Client, path_segment};
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, Running, check, leaf, list, string, switch};
use crate::failure::Failure;
use crate::session::signals::{self, Window};
use crate::session::{self, End, Session, Wiring};
use crate::{spec, terminal};

static FLAGS: &[Flag] = &[
    switch("detach", "d", "Run the command in the background"),
    string("detach-keys", "", "Keys that leave the command running"),
    list("env", "e", "Set environment variables").check(check::env),
    list("env-file", "", "Read environment variables from a file"),
    switch("interactive", "i", "Keep STDIN open even if not attached"),
    switch("privileged", "", "Give the command all privileges of the host"),
    switch("tty", "t", "Allocate a pseudo-TTY"),
    string("user", "u", "Username or UID (format: \"<name|uid>[:<group|gid>]\")"),
    string("workdir", "w", "Working directory in the container"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    names: &["container exec", "exec"],
    flags: &[FLAGS],
    args: Args::AtLeast(2),
    interspersed: false,
    ..leaf(run)
};

fn run<'a>(cli: &'a Cli, matches: &'a Matches) -> Running<'a> {
    Box::pin(go(cli, matches))
}

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let keys = session::detach_keys(cli, matches.str("detach-keys"))?;
    let mut request = request(matches)?;
    let client = cli.client()?;
    let name = path_segment(matches.arg(0));
    // Whether the container exists is told before whether there is a terminal.
    client.get(format!("/containers/{name}/json")).done().await?;
    let detach = matches.bool("detach");
    if !detach {
        session::check_tty(request.attach_stdin, request.tty)?;
    }
    request.console_size = console_size(request.tty);
    let created: IdResponse = client.post(format!("/containers/{name}/exec")).json(&request).fetch().await?;
    let start = ExecStartRequest { detach, tty: request.tty, console_size: request.console_size };
    let call = client.post(format!("/exec/{}/start", created.id)).json(&start);
    if detach {
        return Ok(call.done().await?);
    }
    let hijacked = call.hijack().await.map_err(|error| start_failure(&error))?;
    let wiring = Wiring { tty: request.tty, stdin: request.attach_stdin, stdout: true, stderr: true, detach_keys: keys };
    stream(client, &created.id, hijacked, wiring).await
}

fn request(matches: &Matches) -> Result<ExecCreateRequest, Failure> {
    let attach = !matches.bool("detach");
    let env = spec::env::collect(matches.list("env-file"), matches.list("env"))?;
    Ok(ExecCreateRequest {
        user: matches.string("user"),
        privileged: matches.bool("privileged"),
        tty: matches.bool("tty"),
        console_size: None,
        attach_stdin: attach && matches.bool("interactive"),
        attach_stderr: attach,
        attach_stdout: attach,
        detach: !attach,
        detach_keys: matches.string("detach-keys"),
        env: if env.is_empty() { None } else { Some(env) },
        working_dir: matches.string("workdir"),
        cmd: Some(StrSlice(matches.args[1..].to_vec())),
    })
}

fn console_size(tty: bool) -> Option<[u32; 2]> {
    terminal::size().filter(|_| tty).map(|(rows, columns)| [rows.into(), columns.into()])
}

/// A command that cannot be started at all, as engines since 25 tell it: by a refusal of the start itself.
fn start_failure(error: &ApiError) -> Failure {
    let text = error.to_string();
    let code = match () {
        () if text.contains("executable file not found") || text.contains("no such file or directory") => 127,
        () if text.contains("permission denied") => 126,
        () => 1,
    };
    Failure::exit_with(code, text)
}

async fn stream(client: &Client, id: &str, hijacked: crate::client::Hijacked, wiring: Wiring) -> Outcome {
    if wiring.tty {
        signals::restore_terminal_on_fatal_signals();
    }
    let window = (wiring.tty && terminal::stdin_is_terminal()).then(|| Window::Exec(id.to_owned()).follow(client));
    let session = Session::open(hijacked, wiring)?;
    let no_forward: Option<std::future::Pending<std::convert::Infallible>> = None;
    if signals::beside(session.run(), no_forward, window).await? == End::Detached {
        return Err(Failure::message("read escape sequence"));
    }
    let ended: ExecInspect = client.get(format!("/exec/{id}/json")).fetch().await?;
    match ended.exit_code {
        None | Some(0) => Ok(()),
        Some(code) => Err(Failure::status(code)),
    }
}
