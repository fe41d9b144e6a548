//! The OCI runtime below us: its command line, and its own words when it fails.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proto_containerd::runc::v1::Options;
use serde::{Deserialize, Serialize};

/// Which runtime a container uses. Kept in the bundle, so that `delete` finds it after our death.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Runtime {
    pub binary: PathBuf,
    /// `--root`, the namespace included.
    pub root: PathBuf,
    #[serde(default)]
    pub systemd_cgroup: bool,
    #[serde(default)]
    pub no_pivot_root: bool,
    #[serde(default)]
    pub no_new_keyring: bool,
}

/// File in the bundle that holds [`Record`].
const RECORD: &str = "shim.json";

/// The persistent form.
#[derive(Serialize, Deserialize)]
struct Record {
    written_by: String,
    min_reader: u32,
    runtime: Runtime,
}

const FORMAT: u32 = 1;

impl Runtime {
    /// `state` is the directory of the manager's socket: the default root is below it.
    pub fn new(options: &Options, state: &Path, namespace: &str) -> Self {
        let root = if options.root.is_empty() { state.join("rrun") } else { PathBuf::from(&options.root) };
        let binary = if options.binary_name.is_empty() { default_binary() } else { PathBuf::from(&options.binary_name) };
        Self {
            binary,
            root: root.join(namespace),
            systemd_cgroup: options.systemd_cgroup,
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
        }
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, bundle: &Path) -> std::io::Result<()> {
        let written_by = concat!("containerd-shim-rrun-v2 ", env!("CARGO_PKG_VERSION")).to_owned();
        let record = Record { written_by, min_reader: FORMAT, runtime: self.clone() };
        crate::disk::write_atomically(&bundle.join(RECORD), &serde_json::to_vec(&record)?)
    }

    /// # Errors
    /// When there is no record, or one that a later version wrote.
    pub fn load(bundle: &Path) -> std::io::Result<Self> {
        let record: Record = serde_json::from_slice(&std::fs::read(bundle.join(RECORD))?)?;
        if record.min_reader > FORMAT {
            let why = format!("{} was written by {}, which this version cannot read", bundle.join(RECORD).display(), record.written_by);
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
        }
        Ok(record.runtime)
    }

    /// A command with the global flags, errors going to `log` as JSON, all streams null.
    pub fn command(&self, log: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root).arg("--log").arg(log).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        // A socket of the service that the caller is part of: containers are not that service, and a runtime that found it would wait
        // until they say that they are ready (sd_notify(3), sd_listen_fds(3)).
        for of_the_caller in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(of_the_caller);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// `rrun` beside our own binary, else found on PATH.
pub fn default_binary() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("rrun")));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("rrun"))
}

/// Where a runtime's log ended before it ran: what it says is looked for from there.
#[derive(Clone, Debug)]
pub struct LogMark {
    path: PathBuf,
    offset: u64,
}

#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

impl LogMark {
    pub fn new(path: &Path) -> Self {
        let offset = std::fs::metadata(path).map_or(0, |meta| meta.len());
        Self { path: path.to_owned(), offset }
    }

    /// The last error that the runtime wrote.
    pub fn error(&self) -> Option<String> {
        let mut file = std::fs::File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.offset)).ok()?;
        let mut text = Vec::new();
        file.take(1 << 20).read_to_end(&mut text).ok()?;
        let lines = text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<LogLine>(line).ok());
        let errors = lines.filter(|line| matches!(line.level.as_str(), "error" | "fatal" | "panic"));
        errors.map(|line| line.msg.trim().to_owned()).next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_container_is_taken_for_the_service_that_started_us() {
        let runtime =
            Runtime { binary: "rrun".into(), root: "/r".into(), systemd_cgroup: false, no_pivot_root: false, no_new_keyring: false };
        let command = runtime.command(Path::new("/log"));
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        assert!(["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"].iter().all(|name| removed.contains(&std::ffi::OsStr::new(name))));
    }

    #[test]
    fn the_last_error_after_the_mark_is_told_whole() {
        let path = std::env::temp_dir().join(format!("shim-runtime-log-{}", std::process::id()));
        std::fs::write(&path, "{\"level\":\"error\",\"msg\":\"old\"}\n").expect("log");
        let mark = LogMark::new(&path);
        assert_eq!(mark.error(), None);
        let more = "{\"level\":\"warning\",\"msg\":\"w\"}\nnot json\n{\"level\":\"error\",\"msg\":\"exec: \\\"foo\\\": executable file not found in $PATH\"}\n{\"level\":\"info\",\"msg\":\"i\"}\n";
        let mut text = std::fs::read_to_string(&path).expect("log");
        text.push_str(more);
        std::fs::write(&path, text).expect("log");
        assert_eq!(mark.error().as_deref(), Some("exec: \"foo\": executable file not found in $PATH"));
        std::fs::remove_file(path).expect("clean");
    }

    #[test]
    fn options_choose_binary_and_root() {
        let runtime = Runtime::new(&Options::default(), Path::new("/run/x"), "ns");
        assert_eq!(runtime.root, Path::new("/run/x/rrun/ns"));
        let options = Options { binary_name: "/usr/sbin/runc".into(), root: "/r".into(), systemd_cgroup: true, ..Options::default() };
        let runtime = Runtime::new(&options, Path::new("/run/x"), "ns");
        assert_eq!((runtime.binary, runtime.root, runtime.systemd_cgroup), ("/usr/sbin/runc".into(), "/r/ns".into(), true));
    }
}
