//! Starting shims, and cleaning up after those that died.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use prost::Message;
use proto_containerd::runtime::bootstrap::v1::BootstrapResult;
use proto_containerd::task::v3::DeleteResponse;
use rcontainerd_types::{Error, ErrorKind, Result};
use tokio::process::Command;

use crate::events::exit_status;
use crate::types::{ExitStatus, TaskConfig, TaskKey};

/// Where a shim listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub socket: PathBuf,
    /// Of the task API: 2 or 3.
    pub version: u32,
}

/// Runs the shim's `start` in the bundle.
///
/// # Errors
/// The shim's own words.
pub async fn start(config: &TaskConfig, shim: &Path, key: &TaskKey, bundle: &Path) -> Result<Endpoint> {
    let output = run(config, shim, key, bundle, "start").await?;
    parse_answer(&output).map_err(|why| Error::internal(format!("start shim {}: {why}", shim.display())))
}

/// Runs the shim's `delete`: the container is killed and deleted, the rootfs unmounted.
///
/// # Errors
/// The shim's own words.
pub async fn delete(config: &TaskConfig, shim: &Path, key: &TaskKey, bundle: &Path) -> Result<ExitStatus> {
    let output = run(config, shim, key, bundle, "delete").await?;
    let answer =
        DeleteResponse::decode(output.as_slice()).map_err(|err| Error::internal(format!("answer of shim {}: {err}", shim.display())))?;
    Ok(exit_status(answer.exit_status, answer.exited_at))
}

async fn run(config: &TaskConfig, shim: &Path, key: &TaskKey, bundle: &Path, action: &str) -> Result<Vec<u8>> {
    let what = || format!("{action} shim {} of {}", shim.display(), key.id);
    let address = config.state_dir.join("rcontainerd.sock");
    let mut command = Command::new(shim);
    command.arg("-namespace").arg(&key.namespace).arg("-address").arg(&address).arg("-publish-binary").arg(&config.publish_binary);
    command.arg("-id").arg(&key.id);
    if action == "delete" {
        command.arg("-bundle").arg(bundle);
    }
    command.arg(action).current_dir(bundle);
    // Nothing of our own environment is a container's business.
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()));
    command.env("TTRPC_ADDRESS", config.state_dir.join("rcontainerd.sock.ttrpc")).env("GRPC_ADDRESS", &address);
    command.env("NAMESPACE", &key.namespace).env("MAX_SHIM_VERSION", "3").env("GOMAXPROCS", "2");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(config.timeout, command.output())
        .await
        .map_err(|_| Error::new(ErrorKind::Unavailable, format!("{}: no answer within {:?}", what(), config.timeout)))?
        .map_err(|err| Error::io(what(), err))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words = if words.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { words };
    Err(Error::internal(format!("{}: {}: {}", what(), output.status, words.trim().replace('\n', "; "))))
}

#[derive(serde::Deserialize)]
struct JsonAnswer {
    version: u32,
    address: String,
    protocol: String,
}

/// The three forms: protobuf (containerd 2.3), JSON (1.7 and later), a bare address (1.6).
fn parse_answer(output: &[u8]) -> Result<Endpoint, String> {
    let text = std::str::from_utf8(output).unwrap_or_default().trim();
    let (version, address, protocol) = if text.starts_with("unix://") {
        (2, text.to_owned(), "ttrpc".to_owned())
    } else if let Ok(answer) = serde_json::from_str::<JsonAnswer>(text) {
        (answer.version, answer.address, answer.protocol)
    } else if let Some(answer) = BootstrapResult::decode(output).ok().filter(|answer| !answer.address.is_empty()) {
        (answer.version.unsigned_abs(), answer.address, answer.protocol)
    } else {
        return Err(format!("it answered {text:?}, which is no address"));
    };
    if protocol != "ttrpc" || !(2..=3).contains(&version) {
        return Err(format!("it speaks {protocol} version {version}, we speak ttrpc version 2 and 3"));
    }
    let path = address.strip_prefix("unix://").filter(|path| path.starts_with('/'));
    let socket = path.ok_or_else(|| format!("its address {address:?} is no file system socket"))?;
    Ok(Endpoint { socket: socket.into(), version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_answer_is_understood() {
        let endpoint = |version| Ok(Endpoint { socket: "/run/s".into(), version });
        assert_eq!(parse_answer(b"unix:///run/s\n"), endpoint(2));
        assert_eq!(parse_answer(br#"{"version":3,"address":"unix:///run/s","protocol":"ttrpc"}"#), endpoint(3));
        let result =
            BootstrapResult { version: 3, address: "unix:///run/s".into(), protocol: "ttrpc".into(), ..BootstrapResult::default() };
        assert_eq!(parse_answer(&result.encode_to_vec()), endpoint(3));
    }

    #[test]
    fn what_we_cannot_speak_is_refused() {
        for bad in [
            "",
            "nonsense",
            r#"{"version":3,"address":"vsock://1:2","protocol":"ttrpc"}"#,
            r#"{"version":3,"address":"unix:///s","protocol":"grpc"}"#,
        ] {
            assert!(parse_answer(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
