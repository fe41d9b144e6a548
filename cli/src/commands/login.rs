//! `login` and `logout`.

use std::io::{BufRead, Read, Write};

use proto_docker::auth::{AuthConfig, AuthResponse};

use crate::cli::Cli;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, PROGRAM, leaf, string, switch};
use crate::config::{ConfigFile, credentials};
use crate::failure::Failure;
use crate::{output, terminal};

static FLAGS: &[Flag] = &[
    string("password", "p", "Password or access token"),
    switch("password-stdin", "", "Take the password or access token from stdin"),
    string("username", "u", "Username"),
];

pub static LOGIN: Command = Command {
    usage: "[OPTIONS] [SERVER]",
    about: "Authenticate to a registry",
    details: "Authenticate to a registry.\nDocker's public registry is meant if no server is named.",
    flags: &[FLAGS],
    args: Args::AtMost(1),
    ..leaf(|cli, matches| Box::pin(login(cli, matches)))
};

pub static LOGOUT: Command = Command {
    usage: "[SERVER]",
    about: "Log out from a registry",
    details: "Log out from a registry.\nDocker's public registry is meant if no server is named.",
    args: Args::AtMost(1),
    ..leaf(|cli, matches| Box::pin(async move { logout(cli, matches) }))
};

/// The key of a server as the user names it: without scheme and path.
fn server_of(matches: &Matches) -> String {
    let Some(text) = matches.args.first() else { return credentials::INDEX.to_owned() };
    let bare = text.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    credentials::server_key(host).to_owned()
}

async fn login(cli: &Cli, matches: &Matches) -> Outcome {
    let server = server_of(matches);
    let mut config = cli.config_for_writing();
    let mut auth = ask(matches, &config, &server)?;
    auth.serveraddress.clone_from(&server);
    let answer: AuthResponse = cli.client()?.post("/auth").json(&auth).fetch().await?;
    if !answer.identity_token.is_empty() {
        auth.password.clear();
        auth.identitytoken.clone_from(&answer.identity_token);
    }
    if let Some(warning) = credentials::store(&mut config, &auth)? {
        eprintln!("{warning}\n");
    }
    if answer.status.is_empty() { Ok(()) } else { output::line(&answer.status) }
}

fn ask(matches: &Matches, config: &ConfigFile, server: &str) -> Result<AuthConfig, Failure> {
    let mut username = matches.string("username");
    let mut password = matches.string("password");
    if matches.changed("password") {
        eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if matches.bool("password-stdin") {
            return Err(Failure::message("conflicting options: cannot specify both --password and --password-stdin"));
        }
    }
    if matches.bool("password-stdin") {
        if username.is_empty() {
            return Err(Failure::message("the --password-stdin option requires --username to be set"));
        }
        std::io::stdin().read_to_string(&mut password)?;
        password.truncate(password.trim_end_matches(['\r', '\n']).len());
    }
    if username.is_empty() && password.is_empty() {
        let stored = credentials::lookup(config, server);
        if !stored.identitytoken.is_empty() || (!stored.username.is_empty() && !stored.password.is_empty()) {
            let user = if stored.username.is_empty() { "<token>" } else { &stored.username };
            eprintln!("Authenticating with existing credentials... [Username: {user}]\n");
            eprintln!(" Info -> To login with a different account, run '{PROGRAM} logout' followed by '{PROGRAM} login'\n");
            return Ok(stored);
        }
    }
    if (username.is_empty() || password.is_empty()) && !terminal::stdin_is_terminal() {
        return Err(Failure::message("Error: Cannot perform an interactive login from a non TTY device"));
    }
    if username.is_empty() {
        username = prompt("Username: ", true)?;
        if username.is_empty() {
            return Err(Failure::message("Error: Non-null Username Required"));
        }
    }
    if password.is_empty() {
        password = prompt("Password: ", false)?;
        output::line("")?;
        if password.is_empty() {
            return Err(Failure::message("Error: Password Required"));
        }
    }
    Ok(AuthConfig { username, password, ..AuthConfig::default() })
}

fn prompt(text: &str, echo: bool) -> Result<String, Failure> {
    output::print(text)?;
    std::io::stdout().flush()?;
    let quiet = if echo { None } else { Some(terminal::Raw::without_echo()?) };
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    drop(quiet);
    Ok(line.trim().to_owned())
}

fn logout(cli: &Cli, matches: &Matches) -> Outcome {
    let server = server_of(matches);
    let mut config = cli.config_for_writing();
    output::line(&format!("Removing login credentials for {server}"))?;
    credentials::erase(&mut config, &server)
}
