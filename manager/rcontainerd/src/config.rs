//! Configuration: built-in values, then the TOML file, then flags. An unknown key is an error, so that a typing slip is not silence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::args::{Args, LogFormat};

const DEFAULT_FILE: &str = "/etc/rcontainerd/config.toml";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What must survive a reboot: images, containers' files, volumes, the database.
    pub root: PathBuf,
    /// Sockets, bundles, network namespaces.
    pub state: PathBuf,
    /// Group of the sockets; absent: `rcontainerd` or `docker`, whichever exists, else root's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub log_level: String,
    pub log_format: LogFormat,
    /// `overlay`, `native`, or `auto`: overlay where the host can.
    pub snapshotter: String,
    /// Cgroup under which containers get theirs, unless they name one.
    pub cgroup_parent: String,
    pub network: Network,
    pub registry: Registry,
    /// Runtimes by name, besides the built-in `rrun`.
    pub runtimes: BTreeMap<String, Runtime>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Interface name of the default bridge.
    pub bridge: String,
    /// Its subnet (CIDR); absent: the first of Docker's pools that is free on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Registries (`host` or `host:port`) that may be spoken to by plain http, or by https without a trusted certificate.
    pub insecure: Vec<String>,
    /// Pull-through mirrors of docker.io (URLs), tried in order before the registry itself.
    pub mirrors: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// The OCI runtime's binary.
    pub path: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/rcontainerd".into(),
            state: "/run/rcontainerd".into(),
            group: None,
            log_level: "info".into(),
            log_format: LogFormat::Text,
            snapshotter: "auto".into(),
            cgroup_parent: "/rcontainerd".into(),
            network: Network::default(),
            registry: Registry::default(),
            runtimes: BTreeMap::new(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self { bridge: "rcontainerd0".into(), subnet: None }
    }
}

impl Config {
    pub fn load(args: &Args) -> Result<Self> {
        let mut config = match &args.config {
            Some(path) => Self::read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => Self::read(Path::new(DEFAULT_FILE))?,
            None => Self::default(),
        };
        config.override_by(args);
        for (name, dir) in [("root", &config.root), ("state", &config.state)] {
            anyhow::ensure!(dir.is_absolute(), "{name} directory {} is not an absolute path", dir.display());
        }
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read configuration {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("configuration {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|err| {
            let line = err.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            anyhow::anyhow!("line {line}: {}", err.message().lines().collect::<Vec<_>>().join(" "))
        })
    }

    fn override_by(&mut self, args: &Args) {
        let set = |slot: &mut PathBuf, value: &Option<PathBuf>| {
            if let Some(value) = value {
                slot.clone_from(value);
            }
        };
        set(&mut self.root, &args.root);
        set(&mut self.state, &args.state);
        self.group = args.group.clone().or_else(|| self.group.take());
        self.log_level = args.log_level.clone().unwrap_or_else(|| self.log_level.clone());
        self.log_format = args.log_format.unwrap_or(self.log_format);
    }

    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).context("write the configuration as TOML")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let err = Config::parse("log_level = \"debug\"\n\n[network]\nbrigde = \"x\"\n").expect_err("a typing slip");
        let text = err.to_string();
        assert!(text.starts_with("line 4: ") && text.contains("brigde") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn the_default_survives_a_round_trip() {
        let text = Config::default().to_toml().expect("TOML");
        assert_eq!(Config::parse(&text).expect("parse").to_toml().expect("TOML"), text);
    }
}
