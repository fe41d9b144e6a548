//! containerd's hosts.toml: `server`, and `[host."URL"]` tables in order of preference (containerd's docs/hosts.md).

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcontainerd_types::{Error, Result, reference::DEFAULT_DOMAIN};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::endpoint::{self, Capabilities, DOCKER_HUB, Endpoint};
use crate::tls::{ClientCertificate, TlsFiles};

/// The endpoints that the file in `dir` gives to `domain`.
///
/// # Errors
/// `InvalidArgument` for what is malformed, `Unsupported` for a setting that is not known here: half of a trust policy is none.
pub(crate) fn parse(text: &str, domain: &str, dir: &Path) -> Result<Vec<Endpoint>> {
    let file: toml::Table = text.parse().map_err(|err: toml::de::Error| Error::invalid(err.message().to_owned()))?;
    let mut server = None;
    let mut endpoints = Vec::new();
    let mut own = toml::Table::new();
    for (key, value) in &file {
        match (key.as_str(), value) {
            ("server", toml::Value::String(url)) => server = Some(url.clone()).filter(|url| !url.is_empty()),
            ("host", toml::Value::Table(hosts)) => {
                for (url, settings) in hosts {
                    let settings = settings.as_table().ok_or_else(|| Error::invalid(format!("host {url:?} is not a table")))?;
                    endpoints.push(host(url, settings, dir)?);
                }
            }
            _ => {
                own.insert(key.clone(), value.clone());
            }
        }
    }
    let default = if domain == DEFAULT_DOMAIN { DOCKER_HUB.to_owned() } else { format!("https://{domain}") };
    let says_how = server.is_some() || !own.is_empty();
    let named = endpoint::authority(&endpoint::parse_url(&format!("https://{domain}"))?);
    let registry = host(&server.unwrap_or(default), &own, dir)?;
    let authorities = [named, endpoint::authority(&registry.base)];
    for mirror in &mut endpoints {
        mirror.is_registry = authorities.contains(&endpoint::authority(&mirror.base));
        mirror.namespace = (!mirror.is_registry).then(|| domain.to_owned());
    }
    // Whoever lists the registry itself says how it is to be reached; without that (or beside a server of its own) it comes last.
    if says_how || !endpoints.iter().any(|listed| listed.is_registry) {
        endpoints.push(registry);
    }
    Ok(endpoints)
}

fn host(url: &str, settings: &toml::Table, dir: &Path) -> Result<Endpoint> {
    let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let mut found = endpoint::endpoint(&url, TlsFiles::default())?;
    for (key, value) in settings {
        let malformed = |expected: &str| Error::invalid(format!("host {url:?}: {key} must be {expected}"));
        match (key.as_str(), value) {
            ("capabilities", value) => found.can = capabilities(value).map_err(|err| err.context(format!("host {url:?}")))?,
            ("skip_verify", toml::Value::Boolean(skip)) => found.tls.unverified = *skip,
            ("override_path", toml::Value::Boolean(true)) => {
                let path = format!("{}/", endpoint::parse_url(&url)?.path().trim_end_matches('/'));
                found.base.set_path(&path);
            }
            ("override_path", toml::Value::Boolean(false)) => {}
            ("ca", value) => found.tls.authorities = paths(value, dir).ok_or_else(|| malformed("a path or a list of paths"))?,
            ("client", value) => {
                let expected = "\"CERTIFICATE-AND-KEY\", [\"CERTIFICATE\", \"KEY\"] or [[\"CERTIFICATE\", \"KEY\"]]";
                found.tls.client = Some(client(value, dir).ok_or_else(|| malformed(expected))?);
            }
            ("header", toml::Value::Table(table)) => found.headers = headers(table).map_err(|err| err.context(format!("host {url:?}")))?,
            ("dial_timeout", toml::Value::String(text)) => {
                found.connect_timeout = Some(seconds(text).ok_or_else(|| malformed("a duration such as \"5s\""))?);
            }
            ("skip_verify" | "override_path", _) => return Err(malformed("true or false")),
            ("header", _) => return Err(malformed("a table")),
            ("dial_timeout", _) => return Err(malformed("a duration such as \"5s\"")),
            _ => return Err(Error::unsupported(format!("host {url:?}: setting {key:?} is not supported"))),
        }
    }
    Ok(found)
}

fn capabilities(value: &toml::Value) -> Result<Capabilities> {
    let list = strings(value).ok_or_else(|| Error::invalid("capabilities must be a list of \"pull\", \"resolve\", \"push\""))?;
    let mut can = Capabilities { pull: false, resolve: false, push: false };
    for name in list {
        match name {
            "pull" => can.pull = true,
            "resolve" => can.resolve = true,
            "push" => can.push = true,
            other => return Err(Error::invalid(format!("unknown capability {other:?}: expected pull, resolve or push"))),
        }
    }
    Ok(can)
}

/// One file with certificate and key, a pair, or a list of pairs of which the first counts.
fn client(value: &toml::Value, dir: &Path) -> Option<ClientCertificate> {
    let list = match value {
        toml::Value::String(_) => paths(value, dir)?,
        toml::Value::Array(list) => match list.first()? {
            inner @ toml::Value::Array(_) => paths(inner, dir)?,
            _ => paths(value, dir)?,
        },
        _ => return None,
    };
    match &list[..] {
        [both] => Some(ClientCertificate { certificate: both.clone(), key: both.clone() }),
        [certificate, key] if key == dir => Some(ClientCertificate { certificate: certificate.clone(), key: certificate.clone() }),
        [certificate, key] => Some(ClientCertificate { certificate: certificate.clone(), key: key.clone() }),
        _ => None,
    }
}

/// Relative ones lie beside the file.
fn paths(value: &toml::Value, dir: &Path) -> Option<Vec<PathBuf>> {
    Some(strings(value)?.into_iter().map(|path| dir.join(path)).collect())
}

/// A string or a list of strings.
fn strings(value: &toml::Value) -> Option<Vec<&str>> {
    match value {
        toml::Value::String(one) => Some(vec![one]),
        toml::Value::Array(list) => list.iter().map(toml::Value::as_str).collect(),
        _ => None,
    }
}

fn headers(table: &toml::Table) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in table {
        let key: HeaderName = name.parse().map_err(|_| Error::invalid(format!("{name:?} is no name of a header")))?;
        let values = strings(value).ok_or_else(|| Error::invalid(format!("header {name}: expected a string or a list of strings")))?;
        for value in values {
            // Not quoted: it may be a secret.
            let mut value =
                HeaderValue::from_str(value).map_err(|_| Error::invalid(format!("header {name}: no header can carry its value")))?;
            value.set_sensitive(true);
            headers.append(key.clone(), value);
        }
    }
    Ok(headers)
}

/// Go's notation, as far as a timeout needs it: `300ms`, `5s`, `1m`.
fn seconds(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RegistryConfig;

    fn read(text: &str) -> Result<Vec<Endpoint>> {
        parse(text, "example.org:5000", Path::new("/certs"))
    }

    fn urls(text: &str) -> Vec<String> {
        read(text).expect(text).iter().map(|endpoint| endpoint.base.to_string()).collect()
    }

    #[test]
    fn order_is_kept_and_mirrors_are_not_the_registry() {
        let text = "server = \"https://real.example.org\"\n[host.\"https://z.example\"]\ncapabilities = [\"pull\"]\nca = \"own.pem\"\n[host.\"http://a.example/x\"]\noverride_path = true\n";
        assert_eq!(urls(text), ["https://z.example/v2/", "http://a.example/x/", "https://real.example.org/v2/"]);
        let found = read(text).expect("endpoints");
        let roles: Vec<_> = found.iter().map(|e| (e.is_registry, e.can.resolve, e.can.push, e.namespace.as_deref())).collect();
        let mirrored = Some("example.org:5000");
        assert_eq!(roles, [(false, false, false, mirrored), (false, true, true, mirrored), (true, true, true, None)]);
        assert_eq!(found[0].tls.authorities, [Path::new("/certs/own.pem")]);
    }

    #[test]
    fn the_registry_may_be_listed_as_a_host_and_keeps_its_credentials() {
        let text = "[host.\"http://example.org:5000\"]\nskip_verify = true\n";
        assert_eq!(urls(text), ["http://example.org:5000/v2/"]);
        assert!(read(text).expect("endpoints")[0].is_registry);
        let text = "server = \"https://up.example\"\n[host.\"https://up.example\"]\n";
        assert!(read(text).expect("endpoints").iter().all(|endpoint| endpoint.is_registry));
    }

    #[test]
    fn client_certificates_in_every_notation() {
        let pair = |text: &str| {
            let found = read(&format!("[host.\"https://z\"]\nclient = {text}\n")).expect(text);
            let client = found[0].tls.client.clone().expect("a certificate");
            (client.certificate.display().to_string(), client.key.display().to_string())
        };
        let (one, two) = (|| "/certs/a.pem".to_owned(), || "/certs/b.pem".to_owned());
        assert_eq!(pair("\"a.pem\""), (one(), one()));
        assert_eq!(pair("[\"a.pem\", \"b.pem\"]"), (one(), two()));
        assert_eq!(pair("[[\"a.pem\", \"/certs/b.pem\"]]"), (one(), two()));
        assert_eq!(pair("[[\"a.pem\", \"\"]]"), (one(), one()));
    }

    #[test]
    fn headers_and_timeouts() {
        let found =
            read("[host.\"https://z\"]\ndial_timeout = \"300ms\"\n[host.\"https://z\".header]\nx-one = \"1\"\nx-two = [\"2\", \"3\"]\n");
        let found = found.expect("endpoints");
        assert_eq!(found[0].connect_timeout, Some(Duration::from_millis(300)));
        assert_eq!(found[0].headers.get_all("x-two").iter().count(), 2);
        assert_eq!(found[0].headers["x-one"], "1");
    }

    #[test]
    fn what_is_not_known_or_malformed_is_refused_by_name() {
        for (text, named) in [
            ("frobnicate = 1", "frobnicate"),
            ("capabilities = [\"all\"]", "all"),
            ("capabilities = 1", "capabilities"),
            ("skip_verify = \"yes\"", "skip_verify"),
            ("client = []", "client"),
            ("ca = 7", "ca must be"),
            ("dial_timeout = \"soon\"", "dial_timeout"),
            ("header = \"x\"", "header"),
            ("header = { \"a b\" = \"x\" }", "a b"),
        ] {
            let err = read(&format!("[host.\"https://z\"]\n{text}\n")).expect_err(text);
            assert!(err.message().contains(named), "{text}: {err}");
        }
    }

    #[test]
    fn the_default_directory_is_for_hosts_without_one() {
        let dir = tempfile::tempdir().expect("dir");
        let file = |name: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(name)).expect("dir");
            std::fs::write(dir.path().join(name).join("hosts.toml"), text).expect("write");
        };
        file("_default", "[host.\"https://cache\"]\n");
        file("own.example", "[host.\"https://other\"]\n");
        file("port.example_5000_", "[host.\"https://ported\"]\n");
        let config = RegistryConfig { host_dirs: vec![dir.path().to_owned()], ..RegistryConfig::default() };
        let first = |domain: &str| endpoint::endpoints(&config, domain).expect("endpoints")[0].base.to_string();
        assert_eq!(first("any.example"), "https://cache/v2/");
        assert_eq!(first("docker.io"), "https://cache/v2/");
        assert_eq!(first("own.example"), "https://other/v2/");
        assert_eq!(first("port.example:5000"), "https://ported/v2/");
    }
}
