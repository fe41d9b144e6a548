//! Debian's docker-registry on the loopback of a host's network namespace, filled by skopeo.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::TestHost;

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Registry {
    server: Child,
    pub address: String,
}

impl Registry {
    /// Starts an empty registry, plain http.
    pub fn start(host: &TestHost) -> Self {
        let dir = host.path().join("registry");
        std::fs::create_dir_all(&dir).expect("make the registry's directory");
        let address = "127.0.0.1:5000".to_owned();
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
            dir.join("data").display()
        );
        std::fs::write(&config, text).expect("write the registry's configuration");
        let log = std::fs::File::create(dir.join("log")).expect("open the registry's log");
        let mut command = host.command("docker-registry");
        let server = command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(log).spawn().expect("start docker-registry");
        let mut registry = Self { server, address };
        registry.await_answer(host);
        registry
    }

    fn await_answer(&mut self, host: &TestHost) {
        let end = Instant::now() + PATIENCE;
        let url = format!("http://{}/v2/", self.address);
        while !host.command("curl").args(["-fs", "-o", "/dev/null", &url]).status().expect("run curl").success() {
            assert!(self.server.try_wait().expect("wait").is_none() && Instant::now() < end, "docker-registry does not answer");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Puts a docker-archive into the registry under `name:tag`; `format` is skopeo's (`v2s2`, `oci`).
    pub fn push(&self, host: &TestHost, archive: &Path, name: &str, format: &str) {
        let to = format!("docker://{}/{name}", self.address);
        let from = format!("docker-archive:{}", archive.display());
        let args = ["copy", "--insecure-policy", "--dest-tls-verify=false", "--format", format, &from, &to];
        host.run(Path::new("skopeo"), args).success();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
