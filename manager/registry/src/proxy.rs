//! Which proxy a request goes through: the configured ones, else those of the environment; never for loopback.

use rcontainerd_types::{Error, Result};
use reqwest::{ClientBuilder, NoProxy, Proxy, Url};

use crate::config::Proxies;
use crate::endpoint;

/// The configured proxies; `None`: reqwest reads the environment.
///
/// # Errors
/// For what is no URL of a proxy.
pub(crate) fn of(proxies: Option<&Proxies>) -> Result<Option<Vec<Proxy>>> {
    let Some(proxies) = proxies else { return Ok(None) };
    let direct = NoProxy::from_string(proxies.none_for.as_deref().unwrap_or_default());
    let mut made = Vec::new();
    for (name, url, make) in [
        ("http_proxy", &proxies.http, Proxy::http::<Url> as fn(Url) -> reqwest::Result<Proxy>),
        ("https_proxy", &proxies.https, Proxy::https::<Url>),
    ] {
        let Some(text) = url.as_deref().filter(|text| !text.is_empty()) else { continue };
        // The value is not told: it may hold a password.
        let bad = || Error::invalid(format!("{name}: expected the URL of a proxy, such as \"http://proxy.example:3128\""));
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let parsed = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()).ok_or_else(bad)?;
        made.push(make(parsed).map_err(|_| bad())?.no_proxy(direct.clone()));
    }
    Ok(Some(made))
}

/// Sets up the proxies for requests to `url`.
///
/// # Errors
/// As [`of`].
pub(crate) fn apply(mut builder: ClientBuilder, proxies: Option<&Proxies>, url: &Url) -> Result<ClientBuilder> {
    if endpoint::is_loopback(&endpoint::authority(url)) {
        return Ok(builder.no_proxy());
    }
    if let Some(made) = of(proxies)? {
        builder = builder.no_proxy();
        for proxy in made {
            builder = builder.proxy(proxy);
        }
    }
    Ok(builder)
}

/// The proxy (`host:port`) that a request to `url` goes through: to tell of it when it does not answer.
pub(crate) fn of_url(proxies: Option<&Proxies>, url: &Url) -> Option<String> {
    let environment = from_environment();
    let proxies = proxies.unwrap_or(&environment);
    let chosen = if url.scheme() == "https" { &proxies.https } else { &proxies.http };
    let proxy = chosen.as_deref().filter(|text| !text.is_empty())?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    let excepted = proxies.none_for.as_deref().unwrap_or_default().split(',').any(|entry| excepts(entry.trim(), host));
    if excepted || endpoint::is_loopback(&endpoint::authority(url)) {
        return None;
    }
    let proxy = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
    let proxy = Url::parse(&proxy).ok()?;
    Some(format!("{}:{}", proxy.host_str()?, proxy.port_or_known_default()?))
}

/// Whether an entry of `NO_PROXY` means that host.
fn excepts(entry: &str, host: &str) -> bool {
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        return entry == host || entry.parse::<ipnet::IpNet>().is_ok_and(|range| range.contains(&address));
    }
    let domain = entry.trim_start_matches('.');
    entry == "*" || (!domain.is_empty() && (host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))))
}

/// As reqwest reads it.
fn from_environment() -> Proxies {
    let first = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    Proxies {
        http: first(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
        https: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
        none_for: first(&["NO_PROXY", "no_proxy"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_told_for_what_goes_through_it() {
        let proxies = Proxies {
            https: Some("http://user:secret@proxy.example:3128".into()),
            none_for: Some(".inside.example, 10.0.0.0/8,exact.example".into()),
            ..Proxies::default()
        };
        let of = |url: &str| of_url(Some(&proxies), &Url::parse(url).expect("url"));
        assert_eq!(of("https://r.example/v2/").as_deref(), Some("proxy.example:3128"));
        for direct in
            ["http://r.example/", "https://a.inside.example/", "https://10.1.2.3:5000/", "https://exact.example/", "https://127.0.0.1/"]
        {
            assert_eq!(of(direct), None, "{direct}");
        }
        assert!(of("https://notexact.example/").is_some() && of("https://11.1.2.3/").is_some());
    }

    #[test]
    fn malformed_proxies_are_told_without_their_password() {
        let refused = |url: &str| of(Some(&Proxies { https: Some(url.into()), ..Proxies::default() })).expect_err(url).message().to_owned();
        for bad in ["socks9://u:secret@x", "http://", "http://u:secret@ x:1"] {
            let told = refused(bad);
            assert!(told.contains("https_proxy") && !told.contains("secret"), "{told}");
        }
        let good = Proxies { http: Some("proxy.example:3128".into()), ..Proxies::default() };
        assert_eq!(of(Some(&good)).expect("good").map(|made| made.len()), Some(1));
        assert!(of(None).expect("environment").is_none());
    }
}
