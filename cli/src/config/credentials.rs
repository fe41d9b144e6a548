//! Registry credentials: in `config.json` or in a helper program (`docker-credential-NAME`).

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use docker_credential::DockerCredential;
use proto_docker::auth::AuthConfig;
use serde_json::{Value, json};

use super::ConfigFile;
use crate::failure::Failure;

/// Docker's public registry, under the name that configuration files know it by.
pub const INDEX: &str = "https://index.docker.io/v1/";

/// The key of a registry in configuration files.
pub fn server_key(domain: &str) -> &str {
    if matches!(domain, "docker.io" | "index.docker.io" | "registry-1.docker.io") { INDEX } else { domain }
}

/// The helper in charge of a registry, if any.
fn helper<'a>(config: &'a ConfigFile, server: &str) -> Option<&'a str> {
    let own = config.object("credHelpers").and_then(|helpers| helpers.get(server)).and_then(Value::as_str);
    own.or_else(|| config.string("credsStore"))
}

/// Credentials for a registry, empty if none are stored.
pub fn lookup(config: &ConfigFile, server: &str) -> AuthConfig {
    if helper(config, server).is_none() {
        let Some(entry) = config.object("auths").and_then(|auths| auths.get(server)) else { return AuthConfig::default() };
        return from_entry(entry, server);
    }
    let found = std::fs::File::open(config.path()).ok().and_then(|file| docker_credential::get_credential_from_reader(file, server).ok());
    match found {
        Some(DockerCredential::UsernamePassword(username, password)) => {
            AuthConfig { username, password, serveraddress: server.to_owned(), ..AuthConfig::default() }
        }
        Some(DockerCredential::IdentityToken(token)) => {
            AuthConfig { identitytoken: token, serveraddress: server.to_owned(), ..AuthConfig::default() }
        }
        None => AuthConfig::default(),
    }
}

fn from_entry(entry: &Value, server: &str) -> AuthConfig {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut auth = AuthConfig {
        identitytoken: text("identitytoken"),
        registrytoken: text("registrytoken"),
        serveraddress: server.to_owned(),
        ..AuthConfig::default()
    };
    let decoded = STANDARD.decode(text("auth")).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some((user, password)) = decoded.as_deref().and_then(|pair| pair.split_once(':')) {
        auth.username = user.to_owned();
        auth.password = password.trim_end_matches('\0').to_owned();
    }
    auth
}

/// The value of the `X-Registry-Auth` header.
pub fn header(auth: &AuthConfig) -> String {
    let bytes = serde_json::to_vec(auth).expect("a struct of strings can always be written as JSON");
    URL_SAFE.encode(bytes)
}

/// Keeps credentials after a login. Returns a warning for the user, if one is due.
///
/// # Errors
/// When the helper refuses or the file cannot be written.
pub fn store(config: &mut ConfigFile, auth: &AuthConfig) -> Result<Option<String>, Failure> {
    let server = auth.serveraddress.clone();
    if let Some(helper) = helper(config, &server).map(str::to_owned) {
        let (user, secret) =
            if auth.identitytoken.is_empty() { (auth.username.as_str(), &auth.password) } else { ("<token>", &auth.identitytoken) };
        let body = json!({"ServerURL": server, "Username": user, "Secret": secret}).to_string();
        call_helper(&helper, "store", &body)?;
        config.object_mut("auths").insert(server, json!({}));
        config.save()?;
        return Ok(None);
    }
    let entry = if auth.identitytoken.is_empty() {
        json!({"auth": STANDARD.encode(format!("{}:{}", auth.username, auth.password))})
    } else {
        json!({"auth": STANDARD.encode(format!("{}:", auth.username)), "identitytoken": auth.identitytoken})
    };
    config.object_mut("auths").insert(server, entry);
    config.save()?;
    let path = config.path().display();
    Ok(Some(format!(
        "\nWARNING! Your credentials are stored unencrypted in '{path}'.\nConfigure a credential helper to remove this warning."
    )))
}

/// Forgets a registry's credentials.
///
/// # Errors
/// When the helper refuses or the file cannot be written.
pub fn erase(config: &mut ConfigFile, server: &str) -> Result<(), Failure> {
    if let Some(helper) = helper(config, server).map(str::to_owned) {
        call_helper(&helper, "erase", server)?;
    }
    if config.object("auths").is_some_and(|auths| auths.contains_key(server)) {
        config.object_mut("auths").remove(server);
        config.save()?;
    }
    Ok(())
}

fn call_helper(helper: &str, action: &str, input: &str) -> Result<(), Failure> {
    let program = format!("docker-credential-{helper}");
    let problem = |why: String| Failure::message(format!("error {action} credentials - {program}: {why}"));
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| problem(err.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|err| problem(err.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|err| problem(err.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Err(problem(String::from_utf8_lossy(&said).trim().to_owned()))
}
