//! `start`: makes the socket and the serving process, and tells the caller where it listens. `-v` and `-info`.
//!
//! Callers differ in what they read ([`Form`]): containerd 1.6 a bare address; those that set `MAX_SHIM_VERSION` JSON of that version (2 for
//! containerd 1.7 to 2.2, 3 for our manager); containerd 2.3 and later, which send their parameters on standard input, a message. The
//! version is that of the task service that the caller will use.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use prost::Message;
use prost_types::Any;
use proto_containerd::runc::v1::Options;
use proto_containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use proto_containerd::types::{RuntimeInfo, RuntimeVersion};

use crate::args::Args;
use crate::disk::write_atomically;
use crate::group;
use crate::io::sink::listen;
use crate::options::is_options;
use crate::runtime::default_binary;

/// How containerd's clients know the runtime-spec's features document.
const FEATURES_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
const NAME: &str = "containerd-shim-rrun-v2";
/// `sun_path` without its NUL.
const SOCKET_PATH_MAX: usize = 107;
/// containerd limits its parameters so.
const STDIN_MAX: u64 = 10 << 20;
/// File in the bundle with the options that the caller sent before it said what is to be made.
const OPTIONS_FILE: &str = "shim-options";

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
    let options = asked_options()?;
    let features = features(options.as_ref()).map(|value| Any { type_url: FEATURES_URL.to_owned(), value });
    let options = options.as_ref().map(crate::any);
    let name = "io.containerd.rrun.v2".to_owned();
    let info = RuntimeInfo { name, version: Some(version), options, features, ..RuntimeInfo::default() };
    std::io::stdout().write_all(&info.encode_to_vec()).context("write to standard output")
}

/// The options that the caller asks about, on standard input; without any it asks about our own runtime.
fn asked_options() -> Result<Option<Options>> {
    let mut input = Vec::new();
    // A terminal or nothing at all says nothing.
    if std::io::stdin().is_terminal() || std::io::stdin().take(STDIN_MAX).read_to_end(&mut input).is_err() {
        return Ok(None);
    }
    let any = Any::decode(input.as_slice()).context("decode the options on standard input")?;
    if any.type_url.is_empty() {
        return Ok(None);
    }
    crate::options::decode(Some(&any)).map(Some).map_err(|status| anyhow::anyhow!(status.message))
}

/// What the runtime tells of itself (`features`); a runtime that cannot has none.
fn features(options: Option<&Options>) -> Option<Vec<u8>> {
    let named = options.map(|options| &options.binary_name).filter(|name| !name.is_empty());
    let binary = named.map_or_else(default_binary, PathBuf::from);
    let output = Command::new(binary).arg("features").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// # Errors
/// One line; nothing is left behind then.
pub fn start(args: &Args) -> Result<()> {
    let bundle = std::env::current_dir().context("find the bundle (the working directory)")?;
    let params = bootstrap_params(args);
    let form = Form::of(params.as_ref(), std::env::var("MAX_SHIM_VERSION").ok().as_deref());
    let group = if form.may_be_grouped() { group::of_bundle(&bundle)? } else { None };
    let socket = socket_path(args, params.as_ref(), group.as_deref())?;
    let address = format!("unix://{}", socket.display());
    // Before the socket is made: whoever cleans up after us finds it there, whenever we are killed.
    write_atomically(&bundle.join("address"), address.as_bytes()).context("write the address file")?;
    if let Some(options) = params.as_ref().and_then(options_of) {
        write_atomically(&bundle.join(OPTIONS_FILE), &options.encode_to_vec()).context("write the options file")?;
    }
    let listener = if group.is_some() { group::claim(&socket) } else { listen(&socket).map(Some) };
    if let Some(listener) = listener.with_context(|| format!("listen on {}", socket.display()))? {
        spawn_server(args, listener, params.as_ref()).inspect_err(|_| drop(std::fs::remove_file(&socket)))?;
    }
    std::io::stdout().write_all(&form.answer(&address)).context("write to standard output")
}

/// The runtime's options in what the caller sent.
fn options_of(params: &BootstrapParams) -> Option<&Any> {
    params.extensions.iter().filter_map(|extension| extension.value.as_ref()).find(|any| is_options(any))
}

/// The options that came with the start of the bundle's shim: all that the maker of a sandbox sends of them.
///
/// # Errors
/// When they cannot be read.
pub fn kept_options(bundle: &Path) -> Result<Option<Any>> {
    match std::fs::read(bundle.join(OPTIONS_FILE)) {
        Ok(bytes) => Any::decode(bytes.as_slice()).map(Some).context("decode the options file"),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err).context("read the options file"),
    }
}

/// What containerd 2.3 and later send; older ones send runtime options there, which say nothing that `Create` does not.
fn bootstrap_params(args: &Args) -> Option<BootstrapParams> {
    let mut input = Vec::new();
    std::io::stdin().take(STDIN_MAX).read_to_end(&mut input).ok()?;
    let params = BootstrapParams::decode(input.as_slice()).ok()?;
    (params.instance_id == args.id && params.namespace == args.namespace).then_some(params)
}

/// `<directory of the manager's socket>/s/<random, or the group's>`, a file system socket that only root reaches.
fn socket_path(args: &Args, params: Option<&BootstrapParams>, group: Option<&str>) -> Result<PathBuf> {
    if let Some(path) = &args.socket {
        return Ok(path.clone());
    }
    let given = params.and_then(|params| params.socket_dir.as_deref()).filter(|dir| !dir.is_empty());
    let directory = given.map_or_else(|| crate::serve::state_dir(&args.address).join("s"), PathBuf::from);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).with_context(|| format!("make {}", directory.display()))?;
    let name = group.map_or_else(random_name, |group| Ok(group::socket_name(&args.address, &args.namespace, group)))?;
    let path = directory.join(name);
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

/// How the caller reads our answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Address,
    /// The newest version that it speaks.
    Json(u32),
    Message,
}

const PROTOCOL: &str = "ttrpc";
const VERSION: u32 = 3;

impl Form {
    /// `max_version` is not set by containerd 1.6 and older.
    fn of(params: Option<&BootstrapParams>, max_version: Option<&str>) -> Self {
        let version = max_version.and_then(|text| text.parse::<u32>().ok()).unwrap_or(0).min(VERSION);
        match (params, version) {
            (Some(_), _) => Self::Message,
            (None, 0 | 1) => Self::Address,
            (None, version) => Self::Json(version),
        }
    }

    /// Our manager ends a container's shim with it: it keeps one for each.
    fn may_be_grouped(self) -> bool {
        self != Self::Json(VERSION)
    }

    fn answer(self, address: &str) -> Vec<u8> {
        let address = address.to_owned();
        match self {
            Self::Address => address.into_bytes(),
            Self::Json(version) => {
                serde_json::json!({ "version": version, "address": address, "protocol": PROTOCOL }).to_string().into_bytes()
            }
            Self::Message => {
                let (version, protocol) = (VERSION.cast_signed(), PROTOCOL.to_owned());
                BootstrapResult { version, address, protocol, ..BootstrapResult::default() }.encode_to_vec()
            }
        }
    }
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
        let answer = |params: Option<&BootstrapParams>, max_version| Form::of(params, max_version).answer("unix:///s");
        assert_eq!(answer(None, None), b"unix:///s");
        assert_eq!(answer(None, Some("2")), br#"{"version":2,"address":"unix:///s","protocol":"ttrpc"}"#);
        assert_eq!(answer(None, Some("9")), br#"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#);
        // containerd 2.3 and later say 2 there all the same.
        let message = answer(Some(&BootstrapParams::default()), Some("2"));
        let result = BootstrapResult::decode(message.as_slice()).expect("a message");
        assert_eq!((result.version, result.address.as_str(), result.protocol.as_str()), (3, "unix:///s", "ttrpc"));
    }

    #[test]
    fn only_the_runtimes_options_are_kept_of_what_is_sent() {
        use proto_containerd::runtime::bootstrap::v1::Extension;
        let any = |type_url: &str| Extension { value: Some(Any { type_url: type_url.to_owned(), value: vec![1] }) };
        let url = "types.containerd.io/containerd.runc.v1.Options";
        let params =
            BootstrapParams { extensions: vec![Extension { value: None }, any("other.v1.Options"), any(url)], ..Default::default() };
        assert_eq!(options_of(&params).map(|any| any.type_url.as_str()), Some(url));
        assert_eq!(options_of(&BootstrapParams::default()), None);
    }
}
