//! What a registry says without a pull: whether it takes a login, what a name stands for there.

use std::sync::Arc;

use rcontainerd_registry::{Chunk, Credentials, Document, Fetched, Match, Repository};
use rcontainerd_types::{Descriptor, Error, Platform, Reference, Result};

use super::config::CONFIG_MAX;
use super::document;
use super::model::{RemoteImage, RemoteManifest};
use super::state::State;

pub(super) async fn login(state: &Arc<State>, server: &str, credentials: &Credentials) -> Result<Option<String>> {
    // Any repository will do: none is asked for.
    let reference: Reference = format!("{}/login", domain(server)).parse()?;
    state.registry.login(&reference, credentials).await
}

/// `term` may begin with a registry's host; without one Docker Hub is meant.
pub(super) async fn search(state: &Arc<State>, term: &str, limit: u32, credentials: &Credentials) -> Result<Vec<Match>> {
    let (domain, term) = match term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", term),
    };
    // A user's repositories and the official ones are found by their bare names.
    let term = if domain == "docker.io" { term.trim_start_matches("library/") } else { term };
    state.registry.search(&format!("{domain}/search").parse()?, term, limit, credentials).await
}

pub(super) async fn manifest(state: &Arc<State>, reference: &Reference, credentials: &Credentials) -> Result<RemoteManifest> {
    let repository = state.registry.repository(reference, credentials)?;
    let fetched = fetch(&repository, reference).await?;
    let mut entries = Vec::new();
    if let Document::Index(index) = &fetched.document {
        for entry in &index.manifests {
            let found = repository.manifest_by_digest(&entry.digest, Some(entry)).await?;
            entries.push(RemoteManifest { descriptor: entry.clone(), bytes: found.bytes, entries: Vec::new() });
        }
    }
    Ok(RemoteManifest { descriptor: fetched.descriptor, bytes: fetched.bytes, entries })
}

async fn fetch(repository: &Repository, reference: &Reference) -> Result<Fetched> {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => repository.manifest_by_digest(digest, None).await,
        (None, tag) => repository.manifest_by_tag(tag.unwrap_or("latest")).await,
    }
}

/// `https://index.docker.io/v1/` and its like are docker.io; else the host, with its port.
fn domain(server: &str) -> &str {
    let host = server.trim_start_matches("https://").trim_start_matches("http://").split('/').next().unwrap_or_default();
    if host.is_empty() || host.ends_with("docker.io") { "docker.io" } else { host }
}

pub(super) async fn inspect(state: &Arc<State>, reference: &Reference, credentials: &Credentials) -> Result<RemoteImage> {
    let repository = state.registry.repository(reference, credentials)?;
    let fetched = fetch(&repository, reference).await?;
    let platforms = match &fetched.document {
        Document::Index(index) => index.manifests.iter().filter_map(|entry| entry.platform.clone()).collect(),
        Document::Artifact(_) => Vec::new(),
        Document::Manifest(manifest) => vec![platform(&repository, &manifest.config).await?],
    };
    Ok(RemoteImage { descriptor: fetched.descriptor, platforms })
}

/// A single image's platform stands in its config.
async fn platform(repository: &Repository, config: &Descriptor) -> Result<Platform> {
    if config.size > CONFIG_MAX {
        return Err(Error::invalid(format!("image config of {} bytes: more than {CONFIG_MAX}", config.size)));
    }
    let mut stream = repository.blob(config, 0);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await? {
        if let Chunk::Data(data) = chunk {
            bytes.extend_from_slice(&data);
        }
    }
    let mut hasher = config.digest.algorithm().hasher();
    hasher.update(&bytes);
    if hasher.finish() != config.digest {
        return Err(Error::new(rcontainerd_types::ErrorKind::DataLoss, "the registry's image config is not what its manifest says"));
    }
    document::parse_config(&bytes).map(|file| file.platform())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_as_clients_write_them() {
        for (server, expected) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("https://r.example/v2/", "r.example"),
            ("http://localhost:5000", "localhost:5000"),
        ] {
            assert_eq!(domain(server), expected, "{server}");
        }
    }
}
