//! Debian's docker-registry as a child process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::http::Server;
use super::image::Layout;
use super::tls::Pki;
use super::token::{self, Signer};
use super::{run, write};

/// How the registry knows its users; the only one is `user` with `password`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    Open,
    Basic,
    /// Tokens that live that many seconds.
    Token(u64),
}

pub struct RealRegistry {
    pub dir: tempfile::TempDir,
    child: Child,
    authority: String,
    auth: Auth,
    tokens: Option<Server>,
}

impl RealRegistry {
    pub const USER: &'static str = "user";
    pub const PASSWORD: &'static str = "pass word:ä";

    pub fn start(auth: Auth, tls: bool) -> Self {
        Self::start_with(auth, if tls { Tls::Server } else { Tls::None })
    }

    /// Over TLS, for clients alone that show a certificate of its authority: [`Self::client_dir`].
    pub fn start_mutual() -> Self {
        Self::start_with(Auth::Open, Tls::Mutual)
    }

    fn start_with(auth: Auth, tls: Tls) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut tokens = None;
        let auth_section = match auth {
            Auth::Open => String::new(),
            Auth::Basic => {
                let file = dir.path().join("htpasswd");
                write(&file, run(Command::new("htpasswd").args(["-nbB", Self::USER, Self::PASSWORD])));
                format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
            }
            Auth::Token(lifetime) => {
                let signer = Signer::create(dir.path());
                let bundle = signer.certificate.clone();
                let server = token::serve(signer, Self::USER, Self::PASSWORD, lifetime);
                let realm = format!("http://{}/token", server.authority());
                tokens = Some(server);
                format!(
                    "auth:\n  token:\n    realm: {realm}\n    service: {}\n    issuer: {}\n    rootcertbundle: {}\n",
                    token::SERVICE,
                    token::ISSUER,
                    bundle.display()
                )
            }
        };
        let tls_section = tls_section(dir.path(), tls);
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:0\n{tls_section}{auth_section}",
            dir.path().join("data").display()
        );
        let file = dir.path().join("config.yml");
        write(&file, config);
        let (child, authority) = spawn(&file);
        Self { dir, child, authority, auth, tokens }
    }

    /// `127.0.0.1:port`
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The token service's requests.
    pub fn tokens(&self) -> &Server {
        self.tokens.as_ref().expect("a registry with tokens")
    }

    /// A directory for `RegistryConfig::host_dirs` that makes the private authority known.
    pub fn host_dir(&self) -> std::path::PathBuf {
        let hosts = self.dir.path().join("hosts");
        let host = hosts.join(&self.authority);
        std::fs::create_dir_all(&host).expect("directory");
        std::fs::copy(self.dir.path().join("ca.crt"), host.join("ca.crt")).expect("copy");
        hosts
    }

    /// As [`Self::host_dir`], with a client's certificate.
    pub fn client_dir(&self) -> std::path::PathBuf {
        let hosts = self.host_dir();
        for (from, to) in [("client.crt", "client.cert"), ("client.key", "client.key")] {
            std::fs::copy(self.dir.path().join(from), hosts.join(&self.authority).join(to)).expect("copy");
        }
        hosts
    }

    /// Pushes `tag` of a layout as `name`, by skopeo; `format` is `oci` or `v2s2`.
    pub fn push(&self, layout: &Layout, tag: &str, name: &str, format: &str) {
        let mut command = Command::new("skopeo");
        // `--all` keeps every platform, but then no format can be chosen.
        command.args(["--insecure-policy", "copy", "--dest-tls-verify=false"]);
        if format == "all" {
            command.arg("--all");
        } else {
            command.args(["--format", format]);
        }
        if self.auth != Auth::Open {
            command.arg(format!("--dest-creds={}:{}", Self::USER, Self::PASSWORD));
        }
        command.arg(format!("oci:{}:{tag}", layout.path().display())).arg(format!("docker://{}/{name}", self.authority));
        run(&mut command);
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tls {
    None,
    Server,
    Mutual,
}

fn tls_section(dir: &Path, tls: Tls) -> String {
    if tls == Tls::None {
        return String::new();
    }
    let pki = Pki::create(dir);
    let mut section = format!("  tls:\n    certificate: {}\n    key: {}\n", pki.certificate.display(), pki.key.display());
    if tls == Tls::Mutual {
        pki.sign(dir, "client", "extendedKeyUsage=clientAuth\nbasicConstraints=CA:FALSE\n");
        section += &format!("    clientcas:\n      - {}\n", pki.authority.display());
    }
    section
}

/// Starts it on a port of the kernel's choice, which its log tells.
#[expect(clippy::zombie_processes, reason = "the caller's Drop waits for it")]
fn spawn(config: &Path) -> (Child, String) {
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|err| panic!("docker-registry (Debian's package of that name): {err}"));
    let mut log = BufReader::new(child.stderr.take().expect("stderr"));
    let mut seen = String::new();
    loop {
        let start = seen.len();
        assert!(log.read_line(&mut seen).expect("log") > 0, "docker-registry ended:\n{seen}");
        if let Some((_, rest)) = seen[start..].split_once("listening on ") {
            let authority: String = rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
            let authority = authority.trim_end_matches([',', '.']).to_owned();
            // Its log must be read on, or it stops when the pipe is full.
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return (child, authority);
        }
    }
}
