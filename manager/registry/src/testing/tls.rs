//! A private certificate authority and a server certificate for loopback.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{run, write};

pub struct Pki {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pki {
    pub fn create(dir: &Path) -> Self {
        let path = |name: &str| dir.join(name);
        let pki = Self { authority: path("ca.crt"), certificate: path("server.crt"), key: path("server.key") };
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        run(Command::new("openssl").args(["req", "-x509", "-days", "2", "-subj", "/CN=test authority"]).args(new_key).args([
            "-addext".as_ref(),
            "basicConstraints=critical,CA:TRUE".as_ref(),
            "-keyout".as_ref(),
            path("ca.key").as_os_str(),
            "-out".as_ref(),
            pki.authority.as_os_str(),
        ]));
        pki.sign(dir, "server", "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n");
        pki
    }

    /// Makes `NAME.crt` and `NAME.key`, signed by the authority.
    pub fn sign(&self, dir: &Path, name: &str, extensions: &str) {
        let path = |kind: &str| dir.join(format!("{name}.{kind}"));
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        run(Command::new("openssl").args(["req", "-subj", "/CN=localhost"]).args(new_key).args([
            "-keyout".as_ref(),
            path("key").as_os_str(),
            "-out".as_ref(),
            path("csr").as_os_str(),
        ]));
        write(&path("extensions"), extensions);
        run(Command::new("openssl").args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"]).arg(path("csr")).args([
            "-CA".as_ref(),
            self.authority.as_os_str(),
            "-CAkey".as_ref(),
            self.authority.with_extension("key").as_os_str(),
            "-extfile".as_ref(),
            path("extensions").as_os_str(),
            "-out".as_ref(),
            path("crt").as_os_str(),
        ]));
    }
}
