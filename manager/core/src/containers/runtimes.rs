//! `--runtime`: our own under the names that clients know, and those that the configuration names.

use rcontainerd_task::RuntimeOptions;
use rcontainerd_types::{Error, Result};

use crate::engine::Engine;

/// What stands for our own runtime; clients that name one usually name Docker's.
const OWN: [&str; 5] = ["", "rrun", "io.containerd.rrun.v2", "runc", "io.containerd.runc.v2"];

/// How to run by the runtime of that name.
///
/// # Errors
/// `InvalidArgument` in Docker's words.
pub(super) fn options(engine: &Engine, name: &str) -> Result<RuntimeOptions> {
    if let Some(runtime) = engine.config.runtimes.get(name) {
        return Ok(RuntimeOptions { shim: runtime.shim.clone(), binary: runtime.binary.clone(), ..RuntimeOptions::default() });
    }
    if OWN.contains(&name) {
        return Ok(RuntimeOptions::default());
    }
    Err(Error::invalid(format!("unknown or invalid runtime name: {name}")))
}
