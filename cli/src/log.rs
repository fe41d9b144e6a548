//! `--debug` and `--log-level`: what the client tells of its own work, on stderr.

use std::fmt;
use std::sync::OnceLock;
use std::time::Instant;

use crate::cmdline::Matches;
use crate::failure::Failure;

/// Levels as docker names them, least talkative first. Errors are told by exit texts, warnings always.
const LEVELS: &[&str] = &["panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"];

/// Set if debugging is on: since when.
static SINCE: OnceLock<Instant> = OnceLock::new();

/// Takes the level from the global options.
///
/// # Errors
/// A level that does not exist.
pub fn set_up(globals: &Matches) -> Result<(), Failure> {
    let level = globals.str("log-level").unwrap_or("info").to_ascii_lowercase();
    if !LEVELS.contains(&level.as_str()) {
        return Err(Failure::message(format!("Unable to parse logging level: {level}: it is one of {}", LEVELS.join(", "))));
    }
    if globals.bool("debug") || matches!(level.as_str(), "debug" | "trace") {
        SINCE.get_or_init(Instant::now);
    }
    Ok(())
}

pub fn debugging() -> bool {
    SINCE.get().is_some()
}

/// Prints a line if debugging is on, with the seconds since the start as docker does.
pub fn debug(text: fmt::Arguments<'_>) {
    if let Some(since) = SINCE.get() {
        eprintln!("DEBU[{:04}] {text}", since.elapsed().as_secs());
    }
}
