//! What the client is told by its owner, and the files that say more about single hosts.

use std::path::PathBuf;
use std::time::Duration;

use rcontainerd_types::{Error, Result};

use crate::{endpoint, proxy};

/// Settings of the whole client.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Registries (`host[:port]`) that may be spoken to without a verified certificate, or over plain http.
    pub insecure_registries: Vec<String>,
    /// Mirrors of docker.io as URLs, tried in order before the registry itself.
    pub mirrors: Vec<String>,
    /// Directories with one directory per `host[:port]`: `ca.crt`, `*.cert` + `*.key`, `hosts.toml`.
    pub host_dirs: Vec<PathBuf>,
    /// Absent: the variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` of the process decide.
    pub proxies: Option<Proxies>,
    /// Whether a pull also brings what refers to the image: signatures, lists of parts, attestations.
    pub referrers: bool,
    pub limits: Limits,
}

/// Proxies for all registries but those on loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// URL of the proxy for plain http.
    pub http: Option<String>,
    /// URL of the proxy for https, spoken to by CONNECT.
    pub https: Option<String>,
    /// Hosts reached directly, as in `NO_PROXY`: names with all below them, addresses, ranges, separated by commas.
    pub none_for: Option<String>,
}

impl RegistryConfig {
    /// Finds out what would only fail with the first pull.
    ///
    /// # Errors
    /// `InvalidArgument` for a mirror or proxy that is no URL, an insecure registry that is no `host[:port]` or range.
    pub fn check(&self) -> Result<()> {
        for mirror in &self.mirrors {
            endpoint::parse_url(mirror).map_err(|err| err.context("mirrors"))?;
        }
        for registry in &self.insecure_registries {
            if registry.parse::<ipnet::IpNet>().is_err() && (registry.contains('/') || registry.is_empty()) {
                return Err(Error::invalid(format!("insecure registry {registry:?}: expected HOST, HOST:PORT or an address range")));
            }
        }
        proxy::of(self.proxies.as_ref()).map(drop)
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            insecure_registries: Vec::new(),
            mirrors: Vec::new(),
            host_dirs: ["/etc/rcontainerd/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec(),
            proxies: None,
            referrers: false,
            limits: Limits::default(),
        }
    }
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connect_timeout: Duration,
    /// From the request to the head of its answer.
    pub answer_timeout: Duration,
    /// Without a byte of a body for that long, the line counts as broken.
    pub stall_timeout: Duration,
    /// Attempts in a row that bring nothing.
    pub attempts: u32,
    /// Pause before the second attempt; doubles each time.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// A blob whose rest would take longer than that at the rate so far comes in several ranges at once.
    pub patience: Duration,
    /// Ranges of one blob under way at once; 1 or less: never.
    pub ranges: usize,
    /// Bytes of one range, which are in memory until it is their turn.
    pub range_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(10),
            patience: Duration::from_secs(2),
            ranges: 4,
            range_size: 4 << 20,
        }
    }
}

impl Limits {
    /// The pause after the given number of failures in a row (the first is 1).
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        self.first_pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest_pause)
    }
}
