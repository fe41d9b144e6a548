//! Credential helpers: `docker-credential-NAME get|store|erase`, JSON or a server's name on standard input (docker-credential-helpers'
//! protocol).

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use proto_docker::auth::AuthConfig;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::failure::Failure;

/// The user name under which an identity token is kept.
const TOKEN: &str = "<token>";
/// What helpers say when they have nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// Helpers that docker takes on Linux without being told, with the program that each is of no use without.
const USUAL: [(&str, Option<&str>); 2] = [("pass", Some("pass")), ("secretservice", None)];

/// What a helper or a keyring keeps for a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Secret {
    pub username: String,
    pub secret: String,
}

impl Secret {
    pub fn of(auth: &AuthConfig) -> Self {
        match auth.identitytoken.as_str() {
            "" => Self { username: auth.username.clone(), secret: auth.password.clone() },
            token => Self { username: TOKEN.to_owned(), secret: token.to_owned() },
        }
    }

    pub fn is_token(&self) -> bool {
        self.username == TOKEN
    }
}

/// A helper that is installed and of use.
pub fn installed() -> Option<&'static str> {
    let is_there = |(name, needs): &&(&str, Option<&str>)| on_path(&format!("docker-credential-{name}")) && needs.is_none_or(on_path);
    USUAL.iter().find(is_there).map(|(name, _)| *name)
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_program =
        |file: std::path::PathBuf| file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path).any(|dir| is_program(dir.join(program)))
}

/// A helper by the name that configuration files know it by.
#[derive(Debug)]
pub struct Helper {
    program: String,
}

impl Helper {
    pub fn new(name: &str) -> Self {
        Self { program: format!("docker-credential-{name}") }
    }

    /// # Errors
    /// When the helper cannot be run or fails; that it has nothing is `None`.
    pub fn get(&self, server: &str) -> Result<Option<Secret>, Failure> {
        let told = |why: &str| Failure::message(format!("error getting credentials - {}: {why}", self.program));
        match self.call("get", server).map_err(|err| told(&err.to_string()))? {
            Ok(answer) => serde_json::from_slice(&answer).map(Some).map_err(|_| told("its answer is not what it should be")),
            Err(why) if why == NOT_FOUND => Ok(None),
            Err(why) => Err(told(&why)),
        }
    }

    /// # Errors
    /// When the helper cannot be run or refuses.
    pub fn store(&self, server: &str, secret: &Secret) -> Result<(), Failure> {
        let body = json!({"ServerURL": server, "Username": secret.username, "Secret": secret.secret}).to_string();
        self.done("storing", "store", &body)
    }

    /// # Errors
    /// When the helper cannot be run or refuses; that it has nothing is fine.
    pub fn erase(&self, server: &str) -> Result<(), Failure> {
        self.done("erasing", "erase", server)
    }

    fn done(&self, doing: &str, action: &str, input: &str) -> Result<(), Failure> {
        let told = |why: String| Failure::message(format!("error {doing} credentials - {}: {why}", self.program));
        match self.call(action, input).map_err(|err| told(err.to_string()))? {
            Err(why) if why != NOT_FOUND => Err(told(why)),
            _ => Ok(()),
        }
    }

    /// What it printed, or how it said no.
    fn call(&self, action: &str, input: &str) -> std::io::Result<Result<Vec<u8>, String>> {
        let mut command = Command::new(&self.program);
        let mut child = command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().expect("a pipe was asked for");
        match stdin.write_all(input.as_bytes()) {
            // One that does not read has its reasons, and says them.
            Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => return Err(err),
            _ => drop(stdin),
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(Ok(output.stdout));
        }
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Ok(Err(if said.is_empty() { output.status.to_string() } else { said }))
    }
}
