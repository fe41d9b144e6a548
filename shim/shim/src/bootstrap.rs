//! `start`: makes the socket and the serving process, and tells the caller where it listens. `-v` and `-info`.
//!
//! Callers differ in what they read: containerd 1.6 a bare address; 1.7 and later JSON, asked for by `MAX_SHIM_VERSION` (2 there, 3 in 2.x). Task
//! version 3 in JSON version 3. containerd 2.3 sends its parameters on standard input and takes JSON too.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use prost::Message;
use proto_containerd::runtime::bootstrap::v1::BootstrapParams;
use proto_containerd::types::{RuntimeInfo, RuntimeVersion};

use crate::args::Args;
use crate::disk::write_atomically;
use crate::io::sink::listen;

const NAME: &str = "containerd-shim-rrun-v2";
/// `sun_path` without its NUL.
const SOCKET_PATH_MAX: usize = 107;
/// containerd limits its parameters so.
const STDIN_MAX: u64 = 10 << 20;

/// # Errors
/// When standard output is closed.
pub fn version() -> Result<()> {
    println!("{NAME}:\n  Version:  {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}

/// # Errors
/// When standard output is closed.
pub fn info() -> Result<()> {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), revision: String::new() };
    let info = RuntimeInfo { name: "io.containerd.rrun.v2".to_owned(), version: Some(version), ..RuntimeInfo::default() };
    std::io::stdout().write_all(&info.encode_to_vec()).context("write to standard output")
}

/// # Errors
/// One line; nothing is left behind then.
pub fn start(args: &Args) -> Result<()> {
    let bundle = std::env::current_dir().context("find the bundle (the working directory)")?;
    let params = bootstrap_params(args);
    let socket = socket_path(args, params.as_ref())?;
    let listener = listen(&socket).with_context(|| format!("listen on {}", socket.display()))?;
    let address = format!("unix://{}", socket.display());
    let started = write_atomically(&bundle.join("address"), address.as_bytes())
        .context("write the address file")
        .and_then(|()| spawn_server(args, listener, params.as_ref()));
    if let Err(err) = started {
        drop(std::fs::remove_file(&socket));
        return Err(err);
    }
    let answer = answer(&address, std::env::var("MAX_SHIM_VERSION").ok().as_deref());
    std::io::stdout().write_all(answer.as_bytes()).context("write to standard output")
}

/// What containerd 2.3 and later send; older ones send runtime options there, which say nothing that `Create` does not.
fn bootstrap_params(args: &Args) -> Option<BootstrapParams> {
    let mut input = Vec::new();
    std::io::stdin().take(STDIN_MAX).read_to_end(&mut input).ok()?;
    let params = BootstrapParams::decode(input.as_slice()).ok()?;
    (params.instance_id == args.id && params.namespace == args.namespace).then_some(params)
}

/// `<directory of the manager's socket>/s/<random>`, a file system socket that only root reaches.
fn socket_path(args: &Args, params: Option<&BootstrapParams>) -> Result<PathBuf> {
    if let Some(path) = &args.socket {
        return Ok(path.clone());
    }
    let given = params.and_then(|params| params.socket_dir.as_deref()).filter(|dir| !dir.is_empty());
    let directory = given.map_or_else(|| crate::serve::state_dir(&args.address).join("s"), PathBuf::from);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).with_context(|| format!("make {}", directory.display()))?;
    let path = directory.join(random_name()?);
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        bail!("socket path {} is longer than {SOCKET_PATH_MAX} bytes: use a shorter state directory", path.display());
    }
    Ok(path)
}

fn random_name() -> Result<String> {
    let mut bytes = [0u8; 16];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).context("read random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The same program without an action; the listener is its standard input.
fn spawn_server(args: &Args, listener: OwnedFd, params: Option<&BootstrapParams>) -> Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(own);
    command.args(["-namespace", &args.namespace, "-id", &args.id, "-address", &args.address]);
    if args.debug {
        command.arg("-debug");
    }
    if let Some(params) = params.filter(|params| !params.containerd_ttrpc_address.is_empty()) {
        command.env("TTRPC_ADDRESS", &params.containerd_ttrpc_address);
    }
    command.stdin(listener).stdout(Stdio::null()).stderr(Stdio::null());
    // A group of its own: a signal for the manager's group is none for us.
    command.process_group(0);
    let child = command.spawn().context("start the serving process")?;
    adjust_oom_score(child.id());
    Ok(())
}

/// One above the manager's, so that the kernel takes us first of the two; containers are set by their own configuration.
fn adjust_oom_score(pid: u32) {
    let parent = rustix::process::getppid().map_or(1, |parent| parent.as_raw_nonzero().get());
    let score = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj")).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = score {
        // Refused without CAP_SYS_RESOURCE when it would lower our own: then it stays as inherited.
        drop(std::fs::write(format!("/proc/{pid}/oom_score_adj"), (score + 1).min(1000).to_string()));
    }
}

/// `max_version`: what the caller understands; unset by containerd 1.6 and older.
fn answer(address: &str, max_version: Option<&str>) -> String {
    let version = max_version.and_then(|text| text.parse::<u32>().ok()).unwrap_or(0).min(3);
    if version < 2 {
        return address.to_owned();
    }
    serde_json::json!({ "version": version, "address": address, "protocol": "ttrpc" }).to_string()
}

/// The directory part of a socket address.
pub fn directory_of(address: &Path) -> Option<PathBuf> {
    address.parent().filter(|dir| dir.is_absolute()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_gets_what_it_reads() {
        assert_eq!(answer("unix:///s", None), "unix:///s");
        assert_eq!(answer("unix:///s", Some("2")), r#"{"version":2,"address":"unix:///s","protocol":"ttrpc"}"#);
        assert_eq!(answer("unix:///s", Some("9")), r#"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#);
    }
}
