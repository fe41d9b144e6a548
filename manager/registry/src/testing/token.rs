//! A token service as the distribution spec describes it: tokens signed with a key that the registry knows.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::http::{Reply, Request, Server};
use super::run;

pub(crate) const ISSUER: &str = "test issuer";
pub(crate) const SERVICE: &str = "test registry";

pub(crate) struct Signer {
    pub certificate: PathBuf,
    key: PathBuf,
}

impl Signer {
    pub(crate) fn create(dir: &Path) -> Self {
        let signer = Self { certificate: dir.join("token.crt"), key: dir.join("token.key") };
        run(Command::new("openssl").args(["req", "-x509", "-days", "2", "-subj", "/CN=tokens", "-newkey", "rsa:2048", "-nodes"]).args([
            "-keyout".as_ref(),
            signer.key.as_os_str(),
            "-out".as_ref(),
            signer.certificate.as_os_str(),
        ]));
        signer
    }

    fn token(&self, account: &str, scopes: &[(String, Vec<String>)], lifetime: u64) -> String {
        let der = run(Command::new("openssl").args(["x509", "-outform", "der", "-in"]).arg(&self.certificate));
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [STANDARD.encode(der)]});
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let access: Vec<_> = scopes.iter().map(|(name, actions)| json!({"type": "repository", "name": name, "actions": actions})).collect();
        let claims = json!({
            "iss": ISSUER, "sub": account, "aud": SERVICE, "exp": now + lifetime, "nbf": now - 5, "iat": now, "jti": "1", "access": access,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut child = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(&self.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl");
        std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), signed.as_bytes()).expect("sign");
        let signature = child.wait_with_output().expect("openssl").stdout;
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Serves tokens to `user`/`password` (or the refresh token `refresh`), each good for `lifetime` seconds.
pub(crate) fn serve(signer: Signer, user: &str, password: &str, lifetime: u64) -> Server {
    let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let user = user.to_owned();
    Server::start(move |request| {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let is_refresh = request.method == "POST" && form.contains("refresh_token=refresh");
        if !is_refresh && request.header("authorization") != Some(&basic) {
            return Reply::new(401, r#"{"details":"incorrect username or password"}"#);
        }
        let token = signer.token(&user, &scopes(request, &form), lifetime);
        Reply::new(200, json!({"token": token, "expires_in": lifetime}).to_string())
    })
}

/// The `scope` parameters of query or form: `repository:name:pull,push`.
fn scopes(request: &Request, form: &str) -> Vec<(String, Vec<String>)> {
    let query = request.path.split_once('?').map_or("", |(_, query)| query);
    let url = reqwest::Url::parse(&format!("http://x/?{query}&{form}")).expect("query");
    let scopes = url.query_pairs().filter(|(name, _)| name == "scope");
    let words: Vec<String> = scopes.flat_map(|(_, value)| value.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    let scope = |word: &String| {
        let parts: Vec<&str> = word.splitn(3, ':').collect();
        let [_, name, actions] = parts[..] else { return None };
        Some((name.to_owned(), actions.split(',').map(str::to_owned).collect()))
    };
    words.iter().filter_map(scope).collect()
}
