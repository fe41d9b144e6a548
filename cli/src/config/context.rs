//! Named endpoints: `contexts/meta/<sha256 of the name>/meta.json` and `contexts/tls/<the same>/docker/*.pem`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::client::endpoint::TlsFiles;
use crate::failure::Failure;

pub const DEFAULT: &str = "default";
/// What a context may keep for TLS.
pub const TLS_FILES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Context {
    pub name: String,
    pub metadata: Metadata,
    pub endpoints: Endpoints,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Metadata {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(flatten)]
    pub others: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    pub docker: DockerEndpoint,
    #[serde(flatten)]
    pub others: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DockerEndpoint {
    #[serde(rename = "Host")]
    pub host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub skip_tls_verify: bool,
}

/// All contexts of one configuration directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn new(config_directory: &Path) -> Self {
        Self { root: config_directory.join("contexts") }
    }

    fn key(name: &str) -> String {
        use std::fmt::Write as _;
        Sha256::digest(name.as_bytes()).iter().fold(String::new(), |mut out, byte| {
            write!(out, "{byte:02x}").expect("writing to a String cannot fail");
            out
        })
    }

    pub fn meta_directory(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(Self::key(name))
    }

    pub fn tls_directory(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(Self::key(name))
    }

    /// # Errors
    /// When there is no such context or its file is broken.
    pub fn read(&self, name: &str) -> Result<Context, Failure> {
        let path = self.meta_directory(name).join("meta.json");
        let bytes = std::fs::read(&path).map_err(|err| {
            let why = if err.kind() == std::io::ErrorKind::NotFound { "no such file or directory".to_owned() } else { err.to_string() };
            Failure::message(format!("context {name:?}: context not found: open {}: {why}", path.display()))
        })?;
        serde_json::from_slice(&bytes).map_err(|err| Failure::message(format!("context {name:?}: {}: {err}", path.display())))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.meta_directory(name).join("meta.json").exists()
    }

    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, context: &Context) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(context).map_err(|err| Failure::message(err.to_string()))?;
        super::write_private(&self.meta_directory(&context.name).join("meta.json"), &bytes)
    }

    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        for directory in [self.meta_directory(name), self.tls_directory(name)] {
            match std::fs::remove_dir_all(&directory) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Failure::message(format!("cannot remove {}: {err}", directory.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// All contexts by name, without `default`.
    pub fn list(&self) -> Vec<Context> {
        let Ok(entries) = std::fs::read_dir(self.root.join("meta")) else { return Vec::new() };
        let mut contexts: Vec<Context> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| std::fs::read(entry.path().join("meta.json")).ok())
            .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
            .collect();
        contexts.sort_by(|a: &Context, b| a.name.cmp(&b.name));
        contexts
    }

    /// The TLS files of a context, if it has any.
    pub fn tls(&self, context: &Context) -> Option<TlsFiles> {
        let directory = self.tls_directory(&context.name).join("docker");
        let file = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
        let files = TlsFiles {
            ca: file("ca.pem"),
            cert: file("cert.pem"),
            key: file("key.pem"),
            verify: !context.endpoints.docker.skip_tls_verify,
        };
        let any = files.ca.is_some() || files.cert.is_some() || context.endpoints.docker.skip_tls_verify;
        any.then_some(files)
    }

    /// Stores a TLS file of a context.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn import_tls(&self, name: &str, file: &str, source: &Path) -> Result<(), Failure> {
        let bytes = std::fs::read(source).map_err(|err| Failure::message(format!("{}: {err}", source.display())))?;
        self.write_tls(name, file, &bytes)
    }

    /// # Errors
    /// When it cannot be written.
    pub fn write_tls(&self, name: &str, file: &str, bytes: &[u8]) -> Result<(), Failure> {
        super::write_private(&self.tls_directory(name).join("docker").join(file), bytes)
    }
}

/// Docker's rule for the names of contexts.
///
/// # Errors
/// A text that says what is wrong with the name.
pub fn check_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() {
        return Err(Failure::message("context name cannot be empty"));
    }
    if name == DEFAULT {
        return Err(Failure::message("\"default\" is a reserved context name"));
    }
    let bytes = name.as_bytes();
    if bytes.len() > 1 && bytes[0].is_ascii_alphanumeric() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(b)) {
        return Ok(());
    }
    Err(Failure::message(format!("context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\"")))
}
