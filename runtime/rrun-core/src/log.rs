//! The log that engines read: one line per event, in logrus's text or JSON form, since that is what they parse.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use crate::{Error, Result};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug)]
struct Log {
    /// None: stderr.
    file: Option<File>,
    format: Format,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Opens the log; called once, before anything logs.
pub fn init(path: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    let file = match path {
        Some(path) => {
            Some(OpenOptions::new().append(true).create(true).mode(0o644).open(path).map_err(|e| Error::io("open log file", path, &e))?)
        }
        None => None,
    };
    // A second call would be a defect of this program; the first log stays.
    LOG.get_or_init(|| Log { file, format, debug });
    Ok(())
}

/// Whether messages go to a file, so that the user's terminal needs a copy of errors.
pub fn is_file() -> bool {
    LOG.get().is_some_and(|l| l.file.is_some())
}

pub fn error(message: &str) {
    write("error", message);
}

pub fn warn(message: &str) {
    write("warning", message);
}

pub fn debug(message: impl FnOnce() -> String) {
    if LOG.get().is_some_and(|l| l.debug) {
        write("debug", &message());
    }
}

fn write(level: &str, message: &str) {
    let Some(log) = LOG.get() else { return };
    let time = crate::state::rfc3339_now();
    let line = match log.format {
        Format::Json => format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": time})),
        Format::Text => format!("time={time:?} level={level} msg={message:?}\n"),
    };
    let wrote = match &log.file {
        Some(file) => (&mut &*file).write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
    // The log is where failures are told; when it fails itself, stderr is what is left.
    if wrote.is_err() && log.file.is_some() {
        say(line.trim_end());
    }
}

/// A line on stderr, for people. There is nobody to tell that nobody listens.
pub fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Fails where RRUN_FAILPOINT says so, in builds for tests.
#[cfg(feature = "failpoints")]
pub fn failpoint(name: &str) -> Result<()> {
    match std::env::var("RRUN_FAILPOINT") {
        Ok(wanted) if wanted == name => Err(Error::state(format!("failpoint {name}"))),
        _ => Ok(()),
    }
}

/// Does nothing: failpoints are for tests.
#[cfg(not(feature = "failpoints"))]
pub fn failpoint(_name: &str) -> Result<()> {
    Ok(())
}
