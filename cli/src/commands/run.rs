//! `run`.

use http::StatusCode;
use proto_docker::container::{CreateRequest, WaitResponse};

use super::create;
use crate::cli::Cli;
use crate::client::Client;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, PROGRAM, Running, leaf, string, switch};
use crate::failure::Failure;
use crate::session::signals::{self, Caught, Window};
use crate::session::{self, End, Session, Wiring};
use crate::{output, spec, terminal};

static OWN_FLAGS: &[Flag] = &[
    switch("detach", "d", "Run in the background and print the container's ID"),
    string("detach-keys", "", "Keys that leave the container running"),
    switch("sig-proxy", "", "Pass received signals on to the process").default("true"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create and run a new container from an image",
    names: &["container run", "run"],
    flags: &[spec::FLAGS, spec::LIMITS, OWN_FLAGS],
    args: Args::AtLeast(1),
    interspersed: false,
    ..leaf(run)
};

fn run<'a>(cli: &'a Cli, matches: &'a Matches) -> Running<'a> {
    Box::pin(go(cli, matches))
}

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    create::check_pull(matches).map_err(with_help)?;
    let client = cli.client()?;
    client.version().await?;
    let mut request = create::request(cli, matches).map_err(with_help)?;
    let detach = matches.bool("detach");
    if detach {
        if matches.changed("attach") {
            return Err(Failure::message("conflicting options: cannot specify both --attach and --detach"));
        }
        let config = &mut request.config;
        (config.attach_stdin, config.attach_stdout, config.attach_stderr, config.stdin_once) = (false, false, false, false);
    } else {
        session::check_tty(request.config.attach_stdin, request.config.tty)?;
    }
    let keys = session::detach_keys(cli, matches.str("detach-keys"))?;
    let caught = matches.bool_or("sig-proxy", true);
    let id = create::create(cli, matches, &request).await.map_err(with_help)?;
    let caught = if caught { Some(signals::catch()?) } else { None };
    if detach {
        start(client, &id, &request).await?;
        return output::line(&id);
    }
    foreground(client, &id, &request, keys, caught).await
}

/// Adds the program's name and the hint, and the exit status that the text calls for.
fn with_help(failure: Failure) -> Failure {
    let Some(text) = failure.text() else { return failure };
    let contains = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let from_daemon = text.starts_with("Error response from daemon");
    let code = match () {
        () if from_daemon && contains(&["executable file not found", "no such file or directory"]) => 127,
        () if from_daemon && contains(&["permission denied", "is a directory", "Is a directory"]) => 126,
        () => 125,
    };
    Failure::exit_with(code, format!("{PROGRAM}: {text}\n\nRun '{PROGRAM} run --help' for more information"))
}

async fn start(client: &Client, id: &str, request: &CreateRequest) -> Outcome {
    let removed = if auto_remove(request) { Some(Exit::watch(client, id, "removed").await?) } else { None };
    if let Err(error) = client.post(format!("/containers/{id}/start")).done().await {
        if let Some(removed) = removed {
            // What the start left behind goes before the prompt comes back.
            drop(removed.status().await);
        }
        return Err(with_help(error.into()));
    }
    Ok(())
}

fn auto_remove(request: &CreateRequest) -> bool {
    request.host_config.as_ref().is_some_and(|host| host.auto_remove)
}

async fn foreground(client: &Client, id: &str, request: &CreateRequest, keys: Vec<u8>, caught: Option<Caught>) -> Outcome {
    let config = &request.config;
    let wiring = Wiring {
        tty: config.tty,
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        detach_keys: keys,
    };
    if !(wiring.stdin || wiring.stdout || wiring.stderr) {
        start(client, id, request).await?;
        return output::line(id);
    }
    let hijacked = attach_call(client, id, &wiring).hijack().await?;
    let exit = Exit::watch(client, id, if auto_remove(request) { "removed" } else { "next-exit" }).await?;
    if let Err(error) = client.post(format!("/containers/{id}/start")).done().await {
        drop(hijacked);
        if auto_remove(request) {
            drop(exit.status().await);
        }
        return Err(with_help(error.into()));
    }
    if caught.is_none() && wiring.tty {
        signals::restore_terminal_on_fatal_signals();
    }
    let session = Session::open(hijacked, wiring.clone())?;
    let window = (wiring.tty && terminal::stdout_is_terminal()).then(|| Window::Container(id.to_owned()).follow(client));
    let forward = caught.map(|caught| caught.forward(client, id));
    let work = finish(session, exit, wiring.stdout || wiring.stderr);
    match signals::beside(work, forward, window).await? {
        0 => Ok(()),
        code => Err(Failure::status(code)),
    }
}

/// Streams to the end and gives the exit status; 0 if the user has left.
async fn finish(session: Session, exit: Exit, wants_output: bool) -> Result<i64, Failure> {
    let status = exit.status();
    tokio::pin!(status);
    let end = tokio::select! {
        end = session.run() => end?,
        code = &mut status, if !wants_output => return code,
    };
    match end {
        End::Detached => Ok(0),
        End::Finished => status.await,
    }
}

/// An attach request with the streams of the wiring.
pub fn attach_call<'a>(client: &'a Client, id: &str, wiring: &Wiring) -> crate::client::Call<'a> {
    client
        .post(format!("/containers/{}/attach", crate::client::path_segment(id)))
        .query("stream", "1")
        .flag("stdin", wiring.stdin)
        .flag("stdout", wiring.stdout)
        .flag("stderr", wiring.stderr)
}

/// The exit of a container, awaited since before it was started.
pub struct Exit(http::Response<hyper::body::Incoming>);

impl Exit {
    /// Asks to be told; the answer's head says that the engine is watching.
    ///
    /// # Errors
    /// As any request.
    pub async fn watch(client: &Client, id: &str, condition: &str) -> Result<Self, Failure> {
        let response =
            client.post(format!("/containers/{}/wait", crate::client::path_segment(id))).query("condition", condition).send().await?;
        debug_assert_eq!(response.status(), StatusCode::OK);
        Ok(Self(response))
    }

    /// The exit status.
    ///
    /// # Errors
    /// When the engine goes away before it can tell.
    pub async fn status(self) -> Result<i64, Failure> {
        use http_body_util::BodyExt;
        let lost = |why: String| Failure::exit_with(125, format!("error waiting for container: {why}"));
        let bytes = self.0.into_body().collect().await.map_err(|err| lost(err.to_string()))?.to_bytes();
        let answer: WaitResponse = serde_json::from_slice(&bytes).map_err(|_| lost("unexpected EOF".to_owned()))?;
        match answer.error {
            Some(error) if !error.message.is_empty() => Err(lost(error.message)),
            _ => Ok(answer.status_code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_follows_the_reason() {
        let code = |text: &str| with_help(Failure::message(text)).code();
        assert_eq!(code("Error response from daemon: … exec: \"x\": executable file not found in $PATH"), 127);
        assert_eq!(code("Error response from daemon: … exec: \"/etc\": permission denied"), 126);
        assert_eq!(code("Error response from daemon: conflict"), 125);
        assert_eq!(code("open /nosuch: no such file or directory"), 125);
        let text = with_help(Failure::message("no")).text().map(str::to_owned);
        assert_eq!(text.as_deref(), Some("rdocker: no\n\nRun 'rdocker run --help' for more information"));
    }
}
