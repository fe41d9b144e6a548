//! Which URLs stand for a registry's name, in the order to try them: mirrors, then the registry itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcontainerd_types::{Error, Result, reference::DEFAULT_DOMAIN};
use reqwest::Url;

use crate::config::RegistryConfig;
use crate::tls::TlsFiles;

/// Where docker.io's registry really answers.
const DOCKER_HUB: &str = "https://registry-1.docker.io";

/// One way to reach a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Ends in `/v2/` (unless a hosts.toml overrides the path).
    pub base: Url,
    pub tls: TlsFiles,
    /// The registry that the reference names: the only one that sees the caller's credentials.
    pub is_registry: bool,
    pub can_resolve: bool,
    /// Tried when the one before it does not speak TLS.
    pub is_plain_fallback: bool,
}

/// The endpoints of `domain` (`docker.io`, `localhost:5000`).
pub(crate) fn endpoints(config: &RegistryConfig, domain: &str) -> Result<Vec<Endpoint>> {
    let dirs: Vec<PathBuf> = config.host_dirs.iter().flat_map(|dir| [dir.join(domain), dir.join(domain.replace(':', "_") + "_")]).collect();
    for dir in &dirs {
        let file = dir.join("hosts.toml");
        match std::fs::read_to_string(&file) {
            Ok(text) => return from_hosts_toml(&text, domain, dir).map_err(|err| err.context(file.display())),
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
    let insecure = is_loopback(domain) || config.insecure_registries.iter().any(|listed| listed == domain);
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
        let host = parse_url(mirror)?.host_str().unwrap_or_default().to_owned();
        let unverified = config.insecure_registries.iter().any(|listed| listed.split(':').next() == Some(&host));
        endpoints.push(Endpoint { is_registry: false, ..endpoint(mirror, TlsFiles { unverified, ..TlsFiles::default() })? });
    }
    endpoints.push(endpoint(DOCKER_HUB, tls)?);
    Ok(endpoints)
}

fn endpoint(url: &str, tls: TlsFiles) -> Result<Endpoint> {
    let mut base = parse_url(url)?;
    let path = format!("{}/v2/", base.path().trim_end_matches('/'));
    base.set_path(&path);
    Ok(Endpoint { base, tls, is_registry: true, can_resolve: true, is_plain_fallback: false })
}

fn parse_url(url: &str) -> Result<Url> {
    match Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(parsed),
        Ok(_) => Err(Error::invalid(format!("registry URL {url:?}: expected http:// or https:// and a host"))),
        Err(err) => Err(Error::invalid(format!("registry URL {url:?}: {err}"))),
    }
}

/// `localhost` and loopback addresses, with or without port.
fn is_loopback(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => domain.split(':').next().unwrap_or(domain),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// containerd's hosts.toml: `server`, and `[host."URL"]` tables in order of preference.
fn from_hosts_toml(text: &str, domain: &str, dir: &Path) -> Result<Vec<Endpoint>> {
    let file: toml::Table = text.parse().map_err(|err: toml::de::Error| Error::invalid(err.message().to_owned()))?;
    let mut server = None;
    let mut endpoints = Vec::new();
    let mut own = toml::Table::new();
    for (key, value) in &file {
        match (key.as_str(), value) {
            ("server", toml::Value::String(url)) => server = Some(url.clone()),
            ("host", toml::Value::Table(hosts)) => {
                for (url, settings) in hosts {
                    let settings = settings.as_table().ok_or_else(|| Error::invalid(format!("host {url:?} is not a table")))?;
                    endpoints.push(Endpoint { is_registry: false, ..host_entry(url, settings, dir)? });
                }
            }
            _ => {
                own.insert(key.clone(), value.clone());
            }
        }
    }
    let hub = if domain == DEFAULT_DOMAIN { DOCKER_HUB.to_owned() } else { format!("https://{domain}") };
    endpoints.push(host_entry(&server.unwrap_or(hub), &own, dir)?);
    Ok(endpoints)
}

fn host_entry(url: &str, settings: &toml::Table, dir: &Path) -> Result<Endpoint> {
    let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let mut found = endpoint(&url, TlsFiles::default())?;
    for (key, value) in settings {
        match (key.as_str(), value) {
            ("capabilities", toml::Value::Array(list)) => {
                found.can_resolve = list.iter().any(|item| item.as_str() == Some("resolve"));
            }
            ("skip_verify", toml::Value::Boolean(skip)) => found.tls.unverified = *skip,
            ("override_path", toml::Value::Boolean(true)) => {
                let path = format!("{}/", parse_url(&url)?.path().trim_end_matches('/'));
                found.base.set_path(&path);
            }
            ("override_path", toml::Value::Boolean(false)) => {}
            ("ca", value) => found.tls.authorities = strings(value).iter().map(|path| dir.join(path)).collect(),
            ("client", value) => {
                found.tls.client = match &strings(value)[..] {
                    [certificate, key] => Some((dir.join(certificate), dir.join(key))),
                    _ => return Err(Error::invalid(format!("host {url:?}: client must be [\"CERTIFICATE\", \"KEY\"]"))),
                };
            }
            _ => return Err(Error::unsupported(format!("host {url:?}: setting {key:?} is not supported"))),
        }
    }
    Ok(found)
}

/// A string, a list of strings, or containerd's list with one list in it.
fn strings(value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::String(one) => vec![one.clone()],
        toml::Value::Array(list) => list.iter().flat_map(strings).collect(),
        _ => Vec::new(),
    }
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
    fn hosts_toml_keeps_its_order_and_refuses_what_it_does_not_know() {
        let dir = tempfile::tempdir().expect("dir");
        let host = dir.path().join("example.org");
        std::fs::create_dir(&host).expect("dir");
        let config = RegistryConfig { host_dirs: vec![dir.path().to_owned()], ..RegistryConfig::default() };
        let text = "server = \"https://real.example.org\"\n[host.\"https://z.example\"]\ncapabilities = [\"pull\"]\nca = \"own.pem\"\n[host.\"http://a.example/x\"]\noverride_path = true\n";
        std::fs::write(host.join("hosts.toml"), text).expect("write");
        let found = endpoints(&config, "example.org").expect("endpoints");
        let urls: Vec<&str> = found.iter().map(|endpoint| endpoint.base.as_str()).collect();
        assert_eq!(urls, ["https://z.example/v2/", "http://a.example/x/", "https://real.example.org/v2/"]);
        assert_eq!(found.iter().map(|e| (e.is_registry, e.can_resolve)).collect::<Vec<_>>(), [(false, false), (false, true), (true, true)]);
        assert_eq!(found[0].tls.authorities, [host.join("own.pem")]);
        std::fs::write(host.join("hosts.toml"), "[host.\"https://z\"]\nfrobnicate = 1\n").expect("write");
        assert!(endpoints(&config, "example.org").expect_err("refused").message().contains("frobnicate"));
    }
}
