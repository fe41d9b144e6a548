//! Debian's docker-registry on the loopback of a host's network namespace, filled by skopeo.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::TestHost;

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Registry {
    server: Child,
    pub address: String,
    /// `user:password`.
    credentials: Option<String>,
}

impl Registry {
    /// Starts an empty registry, plain http.
    pub fn start(host: &TestHost) -> Self {
        Self::start_with(host, "", None)
    }

    /// Starts an empty registry that wants a password for everything.
    pub fn start_with_password(host: &TestHost, user: &str, password: &str) -> Self {
        let hashed = host.run(Path::new("htpasswd"), ["-Bbn", user, password]).success().stdout;
        let file = host.path().join("htpasswd");
        std::fs::write(&file, hashed).expect("write the passwords");
        let auth = format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", file.display());
        Self::start_with(host, &auth, Some(format!("{user}:{password}")))
    }

    fn start_with(host: &TestHost, more: &str, credentials: Option<String>) -> Self {
        let dir = host.path().join("registry");
        std::fs::create_dir_all(&dir).expect("make the registry's directory");
        let address = "127.0.0.1:5000".to_owned();
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n{more}",
            dir.join("data").display()
        );
        std::fs::write(&config, text).expect("write the registry's configuration");
        let log = std::fs::File::create(dir.join("log")).expect("open the registry's log");
        let mut command = host.command("docker-registry");
        let server = command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(log).spawn().expect("start docker-registry");
        let mut registry = Self { server, address, credentials };
        registry.await_answer(host);
        registry
    }

    fn await_answer(&mut self, host: &TestHost) {
        let end = Instant::now() + PATIENCE;
        let url = format!("http://{}/v2/", self.address);
        let login = self.credentials.iter().flat_map(|login| ["-u", login]);
        let args: Vec<&str> = ["-fs", "-o", "/dev/null", &url].into_iter().chain(login).collect();
        while !host.command("curl").args(&args).status().expect("run curl").success() {
            assert!(self.server.try_wait().expect("wait").is_none() && Instant::now() < end, "docker-registry does not answer");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Puts a docker-archive into the registry under `name:tag`; `format` is skopeo's (`v2s2`, `oci`).
    pub fn push(&self, host: &TestHost, archive: &Path, name: &str, format: &str) {
        let to = format!("docker://{}/{name}", self.address);
        let from = format!("docker-archive:{}", archive.display());
        let login = self.credentials.iter().flat_map(|login| ["--dest-creds", login]);
        let args = ["copy", "--insecure-policy", "--dest-tls-verify=false", "--format", format, &from, &to].into_iter().chain(login);
        host.run(Path::new("skopeo"), args).success();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
