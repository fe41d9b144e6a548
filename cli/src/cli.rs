//! What every command has at hand: global options, configuration, the engine.

use std::cell::OnceCell;
use std::path::PathBuf;

use crate::client::endpoint::TlsFiles;
use crate::client::{Client, Endpoint};
use crate::cmdline::Matches;
use crate::config::{self, ConfigFile, context};
use crate::failure::Failure;

pub struct Cli {
    globals: Matches,
    directory: PathBuf,
    config: OnceCell<ConfigFile>,
    client: OnceCell<Client>,
}

impl Cli {
    pub fn new(globals: Matches) -> Self {
        let directory = config::directory(globals.str("config"));
        Self { globals, directory, config: OnceCell::new(), client: OnceCell::new() }
    }

    /// The configuration file, read at first use.
    pub fn config(&self) -> &ConfigFile {
        self.config.get_or_init(|| ConfigFile::load(&self.directory))
    }

    /// A copy of the configuration to be changed and saved.
    pub fn config_for_writing(&self) -> ConfigFile {
        ConfigFile::load(&self.directory)
    }

    pub fn contexts(&self) -> context::Store {
        context::Store::new(&self.directory)
    }

    /// The engine in use.
    ///
    /// # Errors
    /// When its address or context is malformed or missing.
    pub fn client(&self) -> Result<&Client, Failure> {
        if self.client.get().is_none() {
            let endpoint = self.endpoint()?;
            return Ok(self.client.get_or_init(|| Client::new(endpoint)));
        }
        Ok(self.client.get().expect("set above"))
    }

    /// The context in use: `--context`, else `DOCKER_CONTEXT`, else the configured one; hosts given by `-H` or
    /// `DOCKER_HOST` are the default context.
    pub fn context_name(&self) -> String {
        if self.globals.changed("host") {
            return context::DEFAULT.to_owned();
        }
        if let Some(name) = self.globals.str("context") {
            return name.to_owned();
        }
        if host_variable().is_some() {
            return context::DEFAULT.to_owned();
        }
        let variable = std::env::var("DOCKER_CONTEXT").ok().filter(|name| !name.is_empty());
        let name = variable.or_else(|| self.config().string("currentContext").map(str::to_owned));
        name.unwrap_or_else(|| context::DEFAULT.to_owned())
    }

    fn endpoint(&self) -> Result<Endpoint, Failure> {
        if self.globals.changed("host") && self.globals.changed("context") {
            return Err(Failure::message("conflicting options: cannot specify both --host and --context"));
        }
        let unusable = |why: String| Failure::message(format!("Failed to initialize: unable to resolve docker endpoint: {why}"));
        let name = self.context_name();
        if name == context::DEFAULT {
            return Endpoint::parse(&self.default_host(), self.tls_options()).map_err(unusable);
        }
        let store = self.contexts();
        let context = store.read(&name).map_err(|err| unusable(err.text().unwrap_or_default().to_owned()))?;
        Endpoint::parse(&context.endpoints.docker.host, store.tls(&context)).map_err(unusable)
    }

    /// The host of the default context.
    pub fn default_host(&self) -> String {
        let flag = self.globals.str("host").map(str::to_owned);
        flag.or_else(host_variable).unwrap_or_else(|| crate::client::endpoint::DEFAULT_HOST.to_owned())
    }

    fn tls_options(&self) -> Option<TlsFiles> {
        let verify_variable = std::env::var("DOCKER_TLS_VERIFY").is_ok_and(|value| !value.is_empty());
        let verify = if self.globals.changed("tlsverify") { self.globals.bool("tlsverify") } else { verify_variable };
        let wanted = verify || self.globals.bool("tls") || ["tlscacert", "tlscert", "tlskey"].iter().any(|name| self.globals.changed(name));
        if !wanted {
            return None;
        }
        let directory = std::env::var_os("DOCKER_CERT_PATH").map_or_else(|| self.directory.clone(), PathBuf::from);
        let file = |flag: &str, name: &str| match self.globals.str(flag) {
            Some(path) => Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty()),
            None => Some(directory.join(name)).filter(|path| path.exists()),
        };
        Some(TlsFiles { ca: file("tlscacert", "ca.pem"), cert: file("tlscert", "cert.pem"), key: file("tlskey", "key.pem"), verify })
    }
}

pub fn host_variable() -> Option<String> {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty())
}
