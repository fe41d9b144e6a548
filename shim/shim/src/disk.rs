//! What the shim keeps in the bundle: exit statuses, each a small versioned JSON, written whole or not at all.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 0–255, or 128 + signal.
    pub code: u32,
    pub at: SystemTime,
}

/// `BUNDLE/exit/init` or `BUNDLE/exit/exec.<exec id>`. Read by the manager too (rcontainerd-task).
#[derive(Serialize, Deserialize)]
struct ExitRecord {
    written_by: String,
    min_reader: u32,
    pid: i32,
    code: u32,
    /// Nanoseconds since 1970.
    exited_at: u64,
}

const FORMAT: u32 = 1;

fn exit_path(bundle: &Path, exec_id: &str) -> PathBuf {
    let name = if exec_id.is_empty() { "init".to_owned() } else { format!("exec.{exec_id}") };
    bundle.join("exit").join(name)
}

/// # Errors
/// When the file cannot be written.
pub fn save_exit(bundle: &Path, exec_id: &str, pid: i32, exit: Exit) -> io::Result<()> {
    let path = exit_path(bundle, exec_id);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let since = exit.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let record = ExitRecord {
        written_by: concat!("containerd-shim-rrun-v2 ", env!("CARGO_PKG_VERSION")).to_owned(),
        min_reader: FORMAT,
        pid,
        code: exit.code,
        exited_at: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
    };
    write_atomically(&path, &serde_json::to_vec(&record)?)
}

/// The kept status of the main process, if it ended before we died.
pub fn load_exit(bundle: &Path) -> Option<(i32, Exit)> {
    let record: ExitRecord = serde_json::from_slice(&std::fs::read(exit_path(bundle, "")).ok()?).ok()?;
    let at = UNIX_EPOCH + Duration::from_nanos(record.exited_at);
    (record.min_reader <= FORMAT).then_some((record.pid, Exit { code: record.code, at }))
}

/// Forgets an exec'd process's status, once it has been deleted.
pub fn forget_exit(bundle: &Path, exec_id: &str) {
    // It is not there when the process never ran.
    drop(std::fs::remove_file(exit_path(bundle, exec_id)));
}

/// Readers see the old content or the new, never a part.
///
/// # Errors
/// When writing or renaming fails; the temporary file is removed then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
        drop(std::fs::remove_file(&temporary));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_is_read_back() {
        let bundle = std::env::temp_dir().join(format!("shim-exit-{}", std::process::id()));
        std::fs::create_dir_all(&bundle).expect("bundle");
        assert_eq!(load_exit(&bundle), None);
        let exit = Exit { code: 137, at: UNIX_EPOCH + Duration::new(5, 7) };
        save_exit(&bundle, "", 42, exit).expect("save");
        save_exit(&bundle, "x", 43, Exit { code: 1, ..exit }).expect("save");
        assert_eq!(load_exit(&bundle), Some((42, exit)));
        std::fs::remove_dir_all(bundle).expect("clean");
    }
}
