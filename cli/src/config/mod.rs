//! `~/.docker/config.json` and what lies beside it.

pub mod context;
pub mod credentials;
mod helper;
mod keyring;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::failure::Failure;

/// The user's configuration. Keys this program does not know are kept when it is written again.
#[derive(Debug, Default)]
pub struct ConfigFile {
    path: PathBuf,
    root: Map<String, Value>,
}

/// Where the configuration lies: `--config`, `DOCKER_CONFIG` or `~/.docker`.
pub fn directory(flag: Option<&str>) -> PathBuf {
    if let Some(dir) = flag {
        return PathBuf::from(dir);
    }
    if let Some(dir) = std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
        return PathBuf::from(dir);
    }
    home().join(".docker")
}

pub fn home() -> PathBuf {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

impl ConfigFile {
    /// Reads the file; one that is not there is an empty one, a broken one is told on stderr and not used.
    pub fn load(directory: &Path) -> Self {
        let path = directory.join("config.json");
        let root = match std::fs::read(&path) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|err| {
                eprintln!("WARNING: Error parsing config file ({}): {err}", path.display());
                Map::new()
            }),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(err) => {
                eprintln!("WARNING: Error loading config file: open {}: {err}", path.display());
                Map::new()
            }
        };
        Self { path, root }
    }

    pub fn string(&self, key: &str) -> Option<&str> {
        self.root.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    pub fn object(&self, key: &str) -> Option<&Map<String, Value>> {
        self.root.get(key).and_then(Value::as_object)
    }

    /// `proxies`: variables for containers, those of this engine or else the default ones.
    pub fn proxies(&self, host: &str) -> Vec<(&'static str, &str)> {
        const KEYS: [(&str, &str); 5] = [
            ("HTTP_PROXY", "httpProxy"),
            ("HTTPS_PROXY", "httpsProxy"),
            ("NO_PROXY", "noProxy"),
            ("FTP_PROXY", "ftpProxy"),
            ("ALL_PROXY", "allProxy"),
        ];
        let all = self.object("proxies");
        let Some(own) = all.and_then(|all| all.get(host).or_else(|| all.get("default"))) else { return Vec::new() };
        let value = |key| own.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        KEYS.into_iter().filter_map(|(name, key)| Some((name, value(key)?))).collect()
    }

    pub fn object_mut(&mut self, key: &str) -> &mut Map<String, Value> {
        let slot = self.root.entry(key).or_insert_with(|| Value::Object(Map::new()));
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        slot.as_object_mut().expect("made an object just above")
    }

    pub fn set_string(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => {
                self.root.insert(key.to_owned(), Value::from(value));
            }
            None => {
                self.root.remove(key);
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file anew, readable by its owner alone, replacing the old one in one step.
    ///
    /// # Errors
    /// When the directory or the file cannot be written.
    pub fn save(&self) -> Result<(), Failure> {
        let text = crate::output::json::indented(&Value::Object(self.root.clone()), "\t");
        write_private(&self.path, text.as_bytes())
    }
}

/// Writes a file of mode 0600 by way of a temporary one beside it.
///
/// # Errors
/// With the path that could not be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let problem = |err: std::io::Error| Failure::message(format!("cannot write {}: {err}", path.display()));
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(problem)?;
    // A link to the real file, as dotfile managers make it, stays a link.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = target.with_extension(format!("tmp{}", std::process::id()));
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &target)
    };
    write().map_err(|err| {
        drop(std::fs::remove_file(&temporary));
        problem(err)
    })
}
