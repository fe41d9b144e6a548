//! Which URLs stand for a registry's name, in the order to try them: mirrors, then the registry itself.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use rcontainerd_types::{Error, Result, reference::DEFAULT_DOMAIN};
use reqwest::Url;
use reqwest::header::HeaderMap;

use crate::config::RegistryConfig;
use crate::hosts;
use crate::tls::TlsFiles;

/// Where docker.io's registry really answers.
pub(crate) const DOCKER_HUB: &str = "https://registry-1.docker.io";

/// One way to reach a repository.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Ends in `/v2/` (unless a hosts.toml overrides the path).
    pub base: Url,
    pub tls: TlsFiles,
    /// Sent with every request to this host, and to no other (hosts.toml, `header`).
    pub headers: HeaderMap,
    pub connect_timeout: Option<Duration>,
    /// The registry that the reference names: the only one that sees the caller's credentials.
    pub is_registry: bool,
    pub can: Capabilities,
    /// Tells a mirror that serves several registries which of them is meant: the query parameter `ns`.
    pub namespace: Option<String>,
    /// Tried when the one before it does not speak TLS.
    pub is_plain_fallback: bool,
}

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Manifests and blobs by digest.
    pub pull: bool,
    /// What a tag stands for.
    pub resolve: bool,
    pub push: bool,
}

impl Capabilities {
    pub(crate) const ALL: Self = Self { pull: true, resolve: true, push: true };
}

/// The endpoints of `domain` (`docker.io`, `localhost:5000`).
pub(crate) fn endpoints(config: &RegistryConfig, domain: &str) -> Result<Vec<Endpoint>> {
    let named: Vec<PathBuf> =
        config.host_dirs.iter().flat_map(|dir| [dir.join(domain), dir.join(domain.replace(':', "_") + "_")]).collect();
    let fallback = config.host_dirs.iter().map(|dir| dir.join("_default"));
    // What is said of this very host counts before what is said of all.
    let dirs: Vec<PathBuf> = if named.iter().any(|dir| dir.is_dir()) { named } else { fallback.collect() };
    for dir in &dirs {
        let file = dir.join("hosts.toml");
        match std::fs::read_to_string(&file) {
            Ok(text) => return hosts::parse(&text, domain, dir).map_err(|err| err.context(file.display())),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(Error::io(format!("read {}", file.display()), err)),
        }
    }
    let mut tls = TlsFiles::default();
    for dir in &dirs {
        let found = TlsFiles::from_dir(dir)?;
        tls.authorities.extend(found.authorities);
        tls.client = tls.client.or(found.client);
    }
    if domain == DEFAULT_DOMAIN {
        return docker_hub(config, tls);
    }
    let secure = endpoint(&format!("https://{domain}"), tls.clone())?;
    let insecure = is_loopback(domain) || is_listed(&config.insecure_registries, domain);
    if !insecure || !tls.authorities.is_empty() {
        return Ok(vec![secure]);
    }
    tls.unverified = true;
    let unverified = endpoint(&format!("https://{domain}"), tls.clone())?;
    let plain = Endpoint { is_plain_fallback: true, ..endpoint(&format!("http://{domain}"), tls)? };
    Ok(vec![unverified, plain])
}

fn docker_hub(config: &RegistryConfig, tls: TlsFiles) -> Result<Vec<Endpoint>> {
    let mut endpoints = Vec::new();
    for mirror in &config.mirrors {
        let unverified = is_listed(&config.insecure_registries, &authority(&parse_url(mirror)?));
        let can = Capabilities { push: false, ..Capabilities::ALL };
        endpoints.push(Endpoint { is_registry: false, can, ..endpoint(mirror, TlsFiles { unverified, ..TlsFiles::default() })? });
    }
    endpoints.push(endpoint(DOCKER_HUB, tls)?);
    Ok(endpoints)
}

pub(crate) fn endpoint(url: &str, tls: TlsFiles) -> Result<Endpoint> {
    let mut base = parse_url(url)?;
    let path = format!("{}/v2/", base.path().trim_end_matches('/'));
    base.set_path(&path);
    Ok(Endpoint {
        base,
        tls,
        headers: HeaderMap::new(),
        connect_timeout: None,
        is_registry: true,
        can: Capabilities::ALL,
        namespace: None,
        is_plain_fallback: false,
    })
}

/// # Errors
/// When it is no URL, or one of another kind, or carries a password: those of files are read by whoever reads the file.
pub(crate) fn parse_url(url: &str) -> Result<Url> {
    match Url::parse(url) {
        Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            let host = parsed.host_str().unwrap_or_default();
            Err(Error::invalid(format!("registry URL of {host}: a user name or password in it is not used: log in instead")))
        }
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(parsed),
        Ok(_) => Err(Error::invalid(format!("registry URL {url:?}: expected http:// or https:// and a host"))),
        Err(err) => Err(Error::invalid(format!("registry URL {url:?}: {err}"))),
    }
}

/// `host` or `host:port`, the port if it is not the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The host of `host[:port]`, brackets of IPv6 addresses off.
fn host_of(domain: &str) -> &str {
    match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => domain.split(':').next().unwrap_or(domain),
    }
}

/// `localhost` and loopback addresses, with or without port.
pub(crate) fn is_loopback(domain: &str) -> bool {
    let host = host_of(domain);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the list has `host[:port]` itself, or an address range (`10.0.0.0/8`) that its address lies in.
fn is_listed(list: &[String], domain: &str) -> bool {
    let address = host_of(domain).parse::<IpAddr>().ok();
    let within = |listed: &String| match (listed.parse::<ipnet::IpNet>(), address) {
        (Ok(range), Some(address)) => range.contains(&address),
        _ => listed == domain,
    };
    list.iter().any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(config: &RegistryConfig, domain: &str) -> Vec<String> {
        endpoints(config, domain).expect(domain).iter().map(|endpoint| endpoint.base.to_string()).collect()
    }

    fn no_files() -> RegistryConfig {
        RegistryConfig { host_dirs: Vec::new(), ..RegistryConfig::default() }
    }

    #[test]
    fn plain_http_only_on_loopback_and_where_chosen() {
        let mut config = no_files();
        assert_eq!(urls(&config, "example.org"), ["https://example.org/v2/"]);
        for loopback in ["localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert_eq!(urls(&config, loopback), [format!("https://{loopback}/v2/"), format!("http://{loopback}/v2/")]);
        }
        assert_eq!(urls(&config, "localhost.example.org"), ["https://localhost.example.org/v2/"]);
        config.insecure_registries = vec!["example.org".into()];
        assert_eq!(urls(&config, "example.org"), ["https://example.org/v2/", "http://example.org/v2/"]);
        assert_eq!(urls(&config, "example.org:444"), ["https://example.org:444/v2/"]);
    }

    #[test]
    fn mirrors_come_first_and_are_not_the_registry() {
        let config = RegistryConfig { mirrors: vec!["http://127.0.0.1:5000/".into()], ..no_files() };
        assert_eq!(urls(&config, "docker.io"), ["http://127.0.0.1:5000/v2/", "https://registry-1.docker.io/v2/"]);
        let roles: Vec<bool> = endpoints(&config, "docker.io").expect("endpoints").iter().map(|e| e.is_registry).collect();
        assert_eq!(roles, [false, true]);
        assert_eq!(urls(&config, "quay.io"), ["https://quay.io/v2/"]);
    }

    #[test]
    fn a_private_authority_means_verified_https_even_on_loopback() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir(dir.path().join("localhost:5000")).expect("dir");
        std::fs::write(dir.path().join("localhost:5000/ca.crt"), "x").expect("write");
        let config = RegistryConfig { host_dirs: vec![dir.path().to_owned()], ..RegistryConfig::default() };
        let found = endpoints(&config, "localhost:5000").expect("endpoints");
        assert_eq!(found.len(), 1);
        assert!(!found[0].tls.unverified && found[0].base.scheme() == "https");
    }

    #[test]
    fn ranges_of_addresses_may_be_insecure_and_names_are_not_addresses() {
        let config = RegistryConfig { insecure_registries: vec!["10.1.0.0/16".into(), "fd00::/8".into()], ..no_files() };
        for inside in ["10.1.2.3:5000", "10.1.0.1", "[fd00::1]:5000"] {
            assert_eq!(urls(&config, inside).len(), 2, "{inside}");
        }
        for outside in ["10.2.0.1", "10.1.2.3.example.org", "[fe80::1]"] {
            assert_eq!(urls(&config, outside).len(), 1, "{outside}");
        }
    }

    #[test]
    fn a_mirror_is_trusted_blindly_only_where_that_was_chosen() {
        let unverified = |insecure: &str| {
            let config =
                RegistryConfig { mirrors: vec!["https://m.example:444".into()], insecure_registries: vec![insecure.into()], ..no_files() };
            endpoints(&config, "docker.io").expect("endpoints")[0].tls.unverified
        };
        assert!(unverified("m.example:444"));
        assert!(!unverified("m.example"), "another port is another registry");
        let err =
            endpoints(&RegistryConfig { mirrors: vec!["https://u:secret@m".into()], ..no_files() }, "docker.io").expect_err("refused");
        assert!(!err.message().contains("secret"), "{err}");
    }
}
