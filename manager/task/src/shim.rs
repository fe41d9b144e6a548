//! Starting shims, and cleaning up after those that died.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use prost::Message;
use proto_containerd::runtime::bootstrap::v1::BootstrapResult;
use proto_containerd::task::v3::DeleteResponse;
use rcontainerd_types::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
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

/// How long a killed shim may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Kills every shim that still serves the bundle; gives their number. Found by their working directory and command line, which is the same
/// for all that follow containerd's protocol.
///
/// # Errors
/// When /proc cannot be read, or one does not go.
pub async fn end_leftovers(bundle: &Path, id: &str) -> Result<usize> {
    let (bundle, id) = (bundle.to_owned(), id.to_owned());
    let ended = tokio::task::spawn_blocking(move || kill_serving(&bundle, &id)).await;
    ended.map_err(|err| Error::internal(format!("end leftover shims: {err}")))?
}

/// Again until none is found: one that is just starting makes another of itself.
fn kill_serving(bundle: &Path, id: &str) -> Result<usize> {
    let mut ended = 0;
    loop {
        match kill_once(bundle, id)? {
            0 => return Ok(ended),
            more => ended += more,
        }
    }
}

fn kill_once(bundle: &Path, id: &str) -> Result<usize> {
    let failed = |err: std::io::Error| Error::io(format!("look for shims of {id}"), err);
    let mut ended = 0;
    for entry in std::fs::read_dir("/proc").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        // Held while it is looked at: the number cannot pass to another process meanwhile.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if !serves(&entry.path(), bundle, id) {
            continue;
        }
        match pidfd_send_signal(&handle, Signal::KILL) {
            Ok(()) => wait_for_end(&handle, pid)?,
            Err(Errno::SRCH) => {}
            Err(err) => return Err(Error::io(format!("kill the shim {}", pid.as_raw_nonzero()), err.into())),
        }
        ended += 1;
    }
    Ok(ended)
}

/// Whether a process is a shim of this bundle: it works there and was given the id.
fn serves(process: &Path, bundle: &Path, id: &str) -> bool {
    if std::fs::read_link(process.join("cwd")).ok().as_deref() != Some(bundle) {
        return false;
    }
    let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    words.windows(2).any(|pair| matches!(pair[0], b"-id" | b"--id") && pair[1] == id.as_bytes())
}

fn wait_for_end(handle: &OwnedFd, pid: Pid) -> Result<()> {
    let mut ends = [PollFd::new(handle, PollFlags::IN)];
    let patience = Timespec { tv_sec: KILL_PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut ends, Some(&patience)) {
        Ok(0) => Err(Error::new(ErrorKind::Unavailable, format!("the shim {} does not end", pid.as_raw_nonzero()))),
        Ok(_) => Ok(()),
        Err(err) => Err(Error::io("wait for a killed shim", err.into())),
    }
}

/// What the shim says of itself and its runtime: a `containerd.types.RuntimeInfo`. `options` is the encoded options message, or empty.
///
/// # Errors
/// The shim's own words.
pub async fn info(config: &TaskConfig, shim: &Path, options: &[u8]) -> Result<Vec<u8>> {
    use tokio::io::AsyncWriteExt;
    let what = || format!("ask shim {} what it is", shim.display());
    let mut command = Command::new(shim);
    command.arg("-info").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|err| Error::io(what(), err))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A shim that takes no options may close its end before we have written.
        drop(stdin.write_all(options).await);
    }
    let output = tokio::time::timeout(config.timeout, child.wait_with_output())
        .await
        .map_err(|_| Error::new(ErrorKind::Unavailable, format!("{}: no answer within {:?}", what(), config.timeout)))?
        .map_err(|err| Error::io(what(), err))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(Error::internal(format!("{}: {}: {}", what(), output.status, one_line(&output.stderr)))),
    }
}

fn one_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().replace('\n', "; ")
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
    let words = one_line(&output.stderr);
    let words = if words.is_empty() { one_line(&output.stdout) } else { words };
    Err(Error::internal(format!("{}: {}: {words}", what(), output.status)))
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
