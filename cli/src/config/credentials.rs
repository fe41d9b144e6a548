//! Registry credentials: given by the environment, kept by a helper program (`docker-credential-NAME`), in the kernel's keyring, or in
//! `config.json` if all else fails.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use proto_docker::auth::AuthConfig;
use serde_json::{Value, json};

use super::helper::{self, Helper};
use super::{ConfigFile, keyring};
use crate::failure::Failure;

/// Docker's public registry, under the name that configuration files know it by.
pub const INDEX: &str = "https://index.docker.io/v1/";
/// A `config.json` in a variable, before all files (docker 28.3).
const VARIABLE: &str = "DOCKER_AUTH_CONFIG";

/// The key of a registry in configuration files.
pub fn server_key(domain: &str) -> &str {
    if matches!(domain, "docker.io" | "index.docker.io" | "registry-1.docker.io") { INDEX } else { domain }
}

/// The helper in charge of a registry, if any.
fn helper(config: &ConfigFile, server: &str) -> Option<Helper> {
    let own = config.object("credHelpers").and_then(|helpers| helpers.get(server)).and_then(Value::as_str);
    own.or_else(|| config.string("credsStore")).map(Helper::new)
}

/// Credentials for a registry, empty if none are stored. What keeps them from being read is told on stderr.
pub fn lookup(config: &ConfigFile, server: &str) -> AuthConfig {
    find(config, server).unwrap_or_else(|failure| {
        eprintln!("WARNING: {}", failure.text().unwrap_or_default());
        AuthConfig::default()
    })
}

fn find(config: &ConfigFile, server: &str) -> Result<AuthConfig, Failure> {
    if let Some(auth) = from_environment(server)? {
        return Ok(auth);
    }
    if let Some(helper) = helper(config, server) {
        return Ok(helper.get(server)?.map_or_else(AuthConfig::default, |found| from_secret(found, server)));
    }
    let Some(entry) = config.object("auths").and_then(|auths| entry(auths, server)) else { return Ok(AuthConfig::default()) };
    let auth = from_entry(entry, server)?;
    let is_kept_elsewhere = auth.username.is_empty() && auth.identitytoken.is_empty() && auth.registrytoken.is_empty();
    if !is_kept_elsewhere {
        return Ok(auth);
    }
    match keyring::get(config.path(), server)? {
        Some(found) => Ok(from_secret(found, server)),
        None => Err(Failure::message(format!(
            "the credentials for {server} are not in the kernel's keyring any more (it is empty after a boot): log in again"
        ))),
    }
}

fn from_environment(server: &str) -> Result<Option<AuthConfig>, Failure> {
    let Some(text) = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let told = |why: &dyn std::fmt::Display| Failure::message(format!("{VARIABLE}: expected the text of a config.json: {why}"));
    let file: Value = serde_json::from_str(&text).map_err(|err| told(&err))?;
    let auths = file.get("auths").and_then(Value::as_object).ok_or_else(|| told(&"it has no \"auths\""))?;
    entry(auths, server).map(|entry| from_entry(entry, server)).transpose()
}

/// By the registry's key, or by a URL of the same host, as old programs wrote it.
fn entry<'a>(auths: &'a serde_json::Map<String, Value>, server: &str) -> Option<&'a Value> {
    auths.get(server).or_else(|| auths.iter().find(|(key, _)| host_of(key) == host_of(server)).map(|(_, entry)| entry))
}

fn host_of(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    bare.split('/').next().unwrap_or_default()
}

fn from_entry(entry: &Value, server: &str) -> Result<AuthConfig, Failure> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut auth = AuthConfig {
        username: text("username"),
        password: text("password"),
        identitytoken: text("identitytoken"),
        registrytoken: text("registrytoken"),
        serveraddress: server.to_owned(),
        ..AuthConfig::default()
    };
    let packed = text("auth");
    if packed.is_empty() {
        return Ok(auth);
    }
    let bytes = STANDARD_NO_PAD.decode(packed.trim_end_matches('=')).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some((user, password)) = bytes.as_deref().and_then(|pair| pair.split_once(':')) else {
        return Err(Failure::message(format!(
            "the stored credentials for {server} are damaged (\"auth\" is no base64 of USER:PASSWORD): log in again"
        )));
    };
    auth.username = user.to_owned();
    auth.password = password.trim_end_matches('\0').to_owned();
    Ok(auth)
}

fn from_secret(found: helper::Secret, server: &str) -> AuthConfig {
    let base = AuthConfig { serveraddress: server.to_owned(), ..AuthConfig::default() };
    match found.is_token() {
        true => AuthConfig { identitytoken: found.secret, ..base },
        false => AuthConfig { username: found.username, password: found.secret, ..base },
    }
}

/// The value of the `X-Registry-Auth` header.
pub fn header(auth: &AuthConfig) -> String {
    let bytes = serde_json::to_vec(auth).expect("a struct of strings can always be written as JSON");
    URL_SAFE.encode(bytes)
}

/// Keeps credentials after a login: with the helper that is configured, or a usual one that is installed; else in the kernel's keyring;
/// else in the file. Returns what the user is to be told, if anything.
///
/// # Errors
/// When the helper refuses or the file cannot be written.
pub fn store(config: &mut ConfigFile, auth: &AuthConfig) -> Result<Option<String>, Failure> {
    let server = auth.serveraddress.clone();
    let secret = helper::Secret::of(auth);
    if config.string("credsStore").is_none()
        && config.object("auths").is_none_or(serde_json::Map::is_empty)
        && let Some(usual) = helper::installed()
    {
        config.set_string("credsStore", Some(usual));
    }
    if let Some(helper) = helper(config, &server) {
        helper.store(&server, &secret)?;
        config.object_mut("auths").insert(server, json!({}));
        config.save()?;
        return Ok(None);
    }
    let why = match keyring::store(config.path(), &server, &secret) {
        Ok(()) => {
            config.object_mut("auths").insert(server, json!({}));
            config.save()?;
            return Ok(Some("The credentials are kept in the kernel's keyring, until the next boot.\nConfigure a credential helper to keep them longer.".to_owned()));
        }
        Err(why) => why,
    };
    let entry = if auth.identitytoken.is_empty() {
        json!({"auth": STANDARD.encode(format!("{}:{}", auth.username, auth.password))})
    } else {
        json!({"auth": STANDARD.encode(format!("{}:", auth.username)), "identitytoken": auth.identitytoken})
    };
    config.object_mut("auths").insert(server, entry);
    config.save()?;
    let path = config.path().display();
    Ok(Some(format!(
        "\nWARNING! Your credentials are stored unencrypted in '{path}' (no credential helper is configured, and the kernel's keyring cannot be used: {}).\nConfigure a credential helper to remove this warning.",
        why.text().unwrap_or_default()
    )))
}

/// Forgets a registry's credentials, wherever they are.
///
/// # Errors
/// When the helper refuses or the file cannot be written.
pub fn erase(config: &mut ConfigFile, server: &str) -> Result<(), Failure> {
    let helper = helper(config, server);
    if let Some(helper) = &helper {
        helper.erase(server)?;
    }
    let keys: Vec<String> =
        config.object("auths").into_iter().flatten().map(|(key, _)| key.clone()).filter(|key| host_of(key) == host_of(server)).collect();
    if keys.is_empty() {
        return Ok(());
    }
    if helper.is_none() {
        keyring::erase(config.path(), server)?;
    }
    let auths = config.object_mut("auths");
    for key in keys {
        auths.remove(&key);
    }
    config.save()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_every_key_that_was_ever_written() {
        let auths = json!({"https://r.example/v1/": {"auth": "dTpw"}, "q.example:5000": {"auth": "eDp5OnoA"}, "bad": {"auth": "!"}});
        let auths = auths.as_object().expect("an object");
        let user = |server: &str| {
            entry(auths, server).map(|found| from_entry(found, server).expect(server)).map(|auth| (auth.username, auth.password))
        };
        assert_eq!(user("r.example"), Some(("u".into(), "p".into())));
        assert_eq!(user("q.example:5000"), Some(("x".into(), "y:z".into())));
        assert_eq!(user("q.example"), None);
        let err = from_entry(entry(auths, "bad").expect("there"), "bad").expect_err("damaged");
        assert!(err.text().expect("told").contains("damaged"));
    }

    #[test]
    fn unpadded_and_split_entries_are_read() {
        let read = |entry: Value| from_entry(&entry, "x").expect("good");
        assert_eq!(read(json!({"auth": "dXNlcjpwdw"})).password, "pw");
        assert_eq!(read(json!({"username": "u", "password": "p"})).username, "u");
        assert_eq!(read(json!({"auth": "dTo=", "identitytoken": "t"})).identitytoken, "t");
    }
}
