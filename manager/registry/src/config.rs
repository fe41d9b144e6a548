//! What the client is told by its owner, and the files that say more about single hosts.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of the whole client.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Registries (`host[:port]`) that may be spoken to without a verified certificate, or over plain http.
    pub insecure_registries: Vec<String>,
    /// Mirrors of docker.io as URLs, tried in order before the registry itself.
    pub mirrors: Vec<String>,
    /// Directories with one directory per `host[:port]`: `ca.crt`, `*.cert` + `*.key`, `hosts.toml`.
    pub host_dirs: Vec<PathBuf>,
    pub limits: Limits,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            insecure_registries: Vec::new(),
            mirrors: Vec::new(),
            host_dirs: ["/etc/rcontainerd/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec(),
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
        }
    }
}

impl Limits {
    /// The pause after the given number of failures in a row (the first is 1).
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        self.first_pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest_pause)
    }
}
