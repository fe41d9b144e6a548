//! `version`.

use proto_docker::system::{ComponentVersion, Version};
use serde_json::{Value, json};

use super::common::json_format_flag;
use crate::cli::Cli;
use crate::client::API_VERSION;
use crate::cmdline::{Command, Flag, Matches, Outcome, Running, leaf};
use crate::output::template::{Answers, Subject};
use crate::output::{self, table};

/// What this program was built from, as far as the build knew.
pub const BUILD: &str = match option_env!("RCONTAINERD_GIT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

static FLAGS: &[Flag] = &[json_format_flag("f")];

pub static COMMAND: Command = Command { usage: "[OPTIONS]", about: "Show the version of client and engine", flags: &[FLAGS], ..leaf(run) };

fn run<'a>(cli: &'a Cli, matches: &'a Matches) -> Running<'a> {
    Box::pin(show(cli, matches))
}

async fn show(cli: &Cli, matches: &Matches) -> Outcome {
    let template =
        matches.str("format").filter(|format| !format.is_empty()).map(|format| Answers::parse(format, Subject::Version)).transpose()?;
    let server = fetch(cli).await;
    let used = match cli.client() {
        Ok(client) if server.is_ok() => client.version().await?.to_string(),
        _ => API_VERSION.to_string(),
    };
    if let Some(template) = template {
        let (value, failure) = match server {
            Ok(version) => (document(cli, &used, Some(&version)), None),
            Err(failure) => (document(cli, &used, None), Some(failure)),
        };
        let mut text = String::new();
        let done = template.execute(Subject::Version, &value, &mut text);
        output::line(&text)?;
        done?;
        return failure.map_or(Ok(()), Err);
    }
    let mut text = client_part(cli, &used);
    match server {
        Ok(version) => {
            text.push('\n');
            text.push_str(&server_part(&version));
            output::print(&table::align_with(&text, 20, 1))
        }
        Err(failure) => {
            output::print(&table::align_with(&text, 20, 1))?;
            Err(failure)
        }
    }
}

async fn fetch(cli: &Cli) -> Result<Version, crate::failure::Failure> {
    Ok(cli.client()?.get("/version").fetch().await?)
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn client_part(cli: &Cli, used: &str) -> String {
    let api = if *used == API_VERSION.to_string() { used.to_owned() } else { format!("{used} (downgraded from {API_VERSION})") };
    format!(
        "Client:\n Version:\t{}\n API version:\t{api}\n Rust version:\t{}\n Git commit:\t{BUILD}\n OS/Arch:\tlinux/{}\n Context:\t{}\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_RUST_VERSION"),
        arch(),
        cli.context_name(),
    )
}

fn server_part(version: &Version) -> String {
    let title = if version.platform.name.is_empty() { "Server:".to_owned() } else { format!("Server: {}", version.platform.name) };
    let mut out = format!("{title}\n");
    if version.components.is_empty() {
        out.push_str(&component(&engine(version)));
    }
    for part in &version.components {
        out.push_str(&component(part));
    }
    out
}

/// Servers of before API 1.35 have no list of components.
fn engine(version: &Version) -> ComponentVersion {
    let details = [
        ("ApiVersion", &version.api_version),
        ("MinAPIVersion", &version.min_api_version),
        ("GitCommit", &version.git_commit),
        ("GoVersion", &version.go_version),
        ("Os", &version.os),
        ("Arch", &version.arch),
        ("BuildTime", &version.build_time),
    ];
    ComponentVersion {
        name: "Engine".to_owned(),
        version: version.version.clone(),
        details: details.iter().map(|(key, value)| ((*key).to_owned(), (*value).clone())).collect(),
    }
}

fn component(part: &ComponentVersion) -> String {
    let mut out = format!(" {}:\n  Version:\t{}\n", part.name, part.version);
    if part.name != "Engine" {
        for (key, value) in &part.details {
            out.push_str(&format!("  {key}:\t{value}\n"));
        }
        return out;
    }
    let detail = |key: &str| part.details.get(key).cloned().unwrap_or_default();
    let built = build_time(&detail("BuildTime"));
    let experimental = detail("Experimental");
    let rows = [
        ("API version", format!("{} (minimum version {})", detail("ApiVersion"), detail("MinAPIVersion"))),
        ("Go version", detail("GoVersion")),
        ("Git commit", detail("GitCommit")),
        ("Built", built),
        ("OS/Arch", format!("{}/{}", detail("Os"), detail("Arch"))),
        ("Experimental", if experimental.is_empty() { "false".to_owned() } else { experimental }),
    ];
    for (name, value) in rows {
        out.push_str(&format!("  {name}:\t{value}\n"));
    }
    out
}

/// RFC 3339 as people read it.
fn build_time(text: &str) -> String {
    text.parse::<jiff::Timestamp>().map_or(text.to_owned(), |time| time.strftime("%a %b %e %H:%M:%S %Y").to_string())
}

fn document(cli: &Cli, used: &str, server: Option<&Version>) -> Value {
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": used,
        "DefaultAPIVersion": API_VERSION.to_string(),
        "GitCommit": BUILD,
        "GoVersion": concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
        "Os": "linux",
        "Arch": arch(),
        "BuildTime": "",
        "Context": cli.context_name(),
    });
    json!({"Client": client, "Server": server.map_or(Value::Null, server_document)})
}

fn server_document(version: &Version) -> Value {
    let mut components = version.components.clone();
    for details in components.iter_mut().map(|component| &mut component.details) {
        if let Some(time) = details.get_mut("BuildTime") {
            *time = build_time(time);
        }
    }
    json!({
        "Platform": {"Name": version.platform.name},
        "Components": components,
        "Version": version.version,
        "ApiVersion": version.api_version,
        "MinAPIVersion": version.min_api_version,
        "GitCommit": version.git_commit,
        "GoVersion": version.go_version,
        "Os": version.os,
        "Arch": version.arch,
        "KernelVersion": version.kernel_version,
        "BuildTime": version.build_time,
    })
}
