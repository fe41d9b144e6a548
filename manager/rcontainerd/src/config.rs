//! Configuration: built-in values, then the TOML file, then flags. An unknown key is an error, so that a typing slip is not silence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use rcontainerd_core::images::{Amount, Caps, Collect, RegistryConfig};

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
    pub storage: Storage,
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
    /// Our table in the firewall.
    #[serde(skip, default = "default_table")]
    pub nft_table: String,
}

fn default_table() -> String {
    "rcontainerd".to_owned()
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Registries (`host` or `host:port`) that may be spoken to by plain http, or by https without a trusted certificate.
    pub insecure: Vec<String>,
    /// Pull-through mirrors of docker.io (URLs), tried in order before the registry itself.
    pub mirrors: Vec<String>,
    /// Directories with one directory per registry, and `_default`: `ca.crt`, `X.cert` + `X.key`, `hosts.toml`.
    pub certs_dirs: Vec<PathBuf>,
    /// Proxies (URLs). If none of the three is given, the variables of the environment count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_proxy: Option<String>,
    /// Hosts that are reached without a proxy, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
    /// Whether a pull also brings what refers to the image: signatures, lists of parts.
    pub referrers: bool,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            certs_dirs: RegistryConfig::default().host_dirs,
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
            referrers: false,
        }
    }
}

/// What images may take. Sizes are bytes, `"20GB"`, `"20GiB"` or a share of the disk, `"80%"`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_used_space: Option<String>,
    /// What is to stay free on the root's file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_free_space: Option<String>,
    /// What images may always take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_space: Option<String>,
    pub collect: CollectChoice,
}

/// What goes when a cap is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectChoice {
    Garbage,
    #[default]
    Dangling,
    Unused,
}

impl Storage {
    /// # Errors
    /// For a size that is none, naming its key.
    pub fn caps(&self) -> Result<Caps> {
        let amount = |key: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(parse_amount).transpose();
            parsed.with_context(|| format!("storage.{key} {text:?} is no size such as \"20GB\", \"20GiB\" or \"80%\""))
        };
        Ok(Caps {
            max_used: amount("max_used_space", &self.max_used_space)?,
            min_free: amount("min_free_space", &self.min_free_space)?,
            reserved: amount("reserved_space", &self.reserved_space)?,
            collect: match self.collect {
                CollectChoice::Garbage => Collect::Garbage,
                CollectChoice::Dangling => Collect::Dangling,
                CollectChoice::Unused => Collect::Unused,
            },
        })
    }
}

fn parse_amount(text: &str) -> Result<Amount> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u8 = percent.trim().parse()?;
        anyhow::ensure!(percent <= 100, "more than all of it");
        return Ok(Amount::Percent(percent));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => anyhow::bail!("unknown unit"),
    };
    number.parse::<u64>()?.checked_mul(scale).map(Amount::Bytes).context("too large")
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// The OCI runtime's binary; absent: ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The shim's binary; absent: ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shim: Option<PathBuf>,
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
            storage: Storage::default(),
            runtimes: BTreeMap::new(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self { bridge: "rcontainerd0".into(), subnet: None, nft_table: default_table() }
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
        config.own_names();
        for (name, dir) in [("root", &config.root), ("state", &config.state)] {
            anyhow::ensure!(dir.is_absolute(), "{name} directory {} is not an absolute path", dir.display());
        }
        Ok(config)
    }

    /// A manager with directories of its own has names of its own in the kernel too: two side by side do not meet in one bridge, firewall
    /// table or cgroup. What the configuration names stays.
    fn own_names(&mut self) {
        let default = Self::default();
        if self.root == default.root && self.state == default.state {
            return;
        }
        let digest = rcontainerd_types::Digest::sha256(format!("{}\0{}", self.root.display(), self.state.display()).as_bytes());
        let tag = &digest.hex()[..8];
        if self.cgroup_parent == default.cgroup_parent {
            self.cgroup_parent = format!("/rcontainerd-{tag}");
        }
        if self.network.bridge == default.network.bridge {
            self.network.bridge = format!("rc-{tag}");
        }
        self.network.nft_table = format!("rcontainerd_{tag}");
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
    fn managers_side_by_side_have_names_of_their_own() {
        let named = |root: &str, state: &str, bridge: &str| {
            let mut config = Config { root: root.into(), state: state.into(), ..Config::default() };
            config.network.bridge = bridge.into();
            config.own_names();
            [config.cgroup_parent, config.network.bridge, config.network.nft_table]
        };
        let usual = named("/var/lib/rcontainerd", "/run/rcontainerd", "rcontainerd0");
        assert_eq!(usual, ["/rcontainerd", "rcontainerd0", "rcontainerd"]);
        let (one, two) = (named("/a", "/b", "rcontainerd0"), named("/a", "/c", "rcontainerd0"));
        assert!(one.iter().zip(&two).all(|(a, b)| a != b) && one.iter().zip(&usual).all(|(a, b)| a != b), "{one:?} {two:?}");
        assert!(one[1].len() <= 15);
        assert_eq!(one, named("/a", "/b", "rcontainerd0"), "the same after a restart");
        assert_eq!(named("/a", "/b", "mine")[1], "mine");
    }

    #[test]
    fn the_default_survives_a_round_trip() {
        let text = Config::default().to_toml().expect("TOML");
        assert_eq!(Config::parse(&text).expect("parse").to_toml().expect("TOML"), text);
    }

    #[test]
    fn sizes_of_caps_are_read_and_slips_are_told() {
        for (text, amount) in [
            ("0", Amount::Bytes(0)),
            ("20GB", Amount::Bytes(20_000_000_000)),
            ("1 GiB", Amount::Bytes(1 << 30)),
            ("512m", Amount::Bytes(512_000_000)),
            ("80%", Amount::Percent(80)),
        ] {
            assert_eq!(parse_amount(text).expect(text), amount);
        }
        for text in ["", "GB", "-1", "1.5GB", "101%", "20 apples", "99999999999TB"] {
            let storage = Storage { max_used_space: Some(text.into()), ..Storage::default() };
            let err = storage.caps().expect_err(text);
            assert!(err.to_string().starts_with("storage.max_used_space"), "{err}");
        }
    }

    #[test]
    fn every_key_is_documented() {
        let page = include_str!("../../../docs/configuration.md");
        let mut config = Config { group: Some("g".into()), ..Config::default() };
        config.network.subnet = Some("10.0.0.0/8".into());
        for proxy in [&mut config.registry.http_proxy, &mut config.registry.https_proxy, &mut config.registry.no_proxy] {
            *proxy = Some("x".into());
        }
        for size in [&mut config.storage.max_used_space, &mut config.storage.min_free_space, &mut config.storage.reserved_space] {
            *size = Some("1GB".into());
        }
        config.runtimes.insert("r".into(), Runtime { path: Some("/p".into()), shim: Some("/s".into()) });
        let table: toml::Table = config.to_toml().expect("TOML").parse().expect("a table");
        let nested = ["network", "registry", "storage"].map(|section| table[section].as_table().expect("a section"));
        let keys = table.iter().filter(|(_, value)| !value.is_table()).map(|(key, _)| key);
        let runtime = table["runtimes"]["r"].as_table().expect("a runtime");
        for key in keys.chain(nested.into_iter().flat_map(toml::Table::keys)).chain(runtime.keys()) {
            assert!(page.contains(&format!("| `{key}` |")), "{key} is not in docs/configuration.md");
        }
    }
}
