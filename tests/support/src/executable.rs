//! Programs that a test writes and runs.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes an executable script; one that is there is replaced.
///
/// By a process of its own: a descriptor that is open for writing here would go to whatever another test starts meanwhile, and as long as
/// anybody has one the file cannot be executed (`ETXTBSY`).
///
/// # Panics
/// When the script cannot be written.
pub fn executable(path: &Path, script: &str) {
    let mut install = Command::new("install");
    let mut install = install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn().expect("run install");
    install.stdin.take().expect("piped").write_all(script.as_bytes()).expect("hand the script over");
    assert!(install.wait().expect("wait").success(), "{} cannot be written", path.display());
}
