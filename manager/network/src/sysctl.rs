//! Kernel switches of the manager's own network namespace.

use std::fs;

use rcontainerd_types::{Error, Result};

/// Sets `/proc/sys/<name>` to 1 unless it is on already (a write would wake up listeners for nothing).
pub fn enable(name: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    let current = fs::read_to_string(&path).map_err(|err| Error::io(format!("read {path}"), err))?;
    if current.trim() != "0" {
        return Ok(());
    }
    fs::write(&path, "1").map_err(|err| Error::io(format!("turn on {path} (needed for containers to reach the network)"), err))
}
