//! What people see: tables, Go templates, JSON as Go prints it, sizes and ages, pull progress.

pub mod json;
pub mod progress;
pub mod table;
pub mod template;
pub mod units;

use std::io::Write;

use crate::failure::Failure;

/// Writes to stdout; a reader that has gone away ends the program quietly, as it does others.
///
/// # Errors
/// When stdout cannot be written for another reason, such as a full disk.
pub fn print(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// As [`print`], with a newline.
///
/// # Errors
/// As [`print`].
pub fn line(text: &str) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes())
}

/// As [`print`].
///
/// # Errors
/// As [`print`].
pub fn bytes(data: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::silent(141)),
        Err(err) => Err(Failure::message(format!("write /dev/stdout: {err}"))),
    }
}
