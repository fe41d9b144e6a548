//! Where the other programs are: beside our own binary, then on PATH.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// All that the manager starts.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Ourselves, for shims that publish events by starting us.
    pub manager: PathBuf,
    pub shim: PathBuf,
    pub runtime: PathBuf,
    /// PID 1 for `--init`, and the program in the shipped image; absent: both are refused with a clear error.
    pub init: Option<PathBuf>,
}

impl Programs {
    pub fn find() -> Result<Self> {
        let manager = env::current_exe().context("find our own binary")?;
        Ok(Self { shim: need("containerd-shim-rrun-v2")?, runtime: need("rrun")?, init: find("rcontainerd-init"), manager })
    }
}

fn need(name: &str) -> Result<PathBuf> {
    find(name).with_context(|| format!("{name} is neither beside rcontainerd nor on PATH: install it there"))
}

pub fn find(name: &str) -> Option<PathBuf> {
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(|dir| dir.join(name)));
    let path = env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(env::split_paths(&path).map(|dir| dir.join(name))).find(|candidate| candidate.is_file())
}
