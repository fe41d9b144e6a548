//! Hooks: programs that are told the container's state on stdin and may take only so long.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rrun_sys::process;

use crate::spec::Hook;
use crate::{Error, Result};

/// What of a container hooks are told (runtime-spec, state).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookState {
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub annotations: BTreeMap<String, String>,
}

impl HookState {
    /// The JSON document; a pid of 0 is left out.
    pub fn with(&self, status: &str, pid: i32) -> Vec<u8> {
        let mut state = serde_json::json!({"ociVersion": self.oci_version, "id": self.id, "status": status});
        if pid != 0 {
            state["pid"] = pid.into();
        }
        state["bundle"] = self.bundle.display().to_string().into();
        if !self.annotations.is_empty() {
            state["annotations"] = serde_json::json!(self.annotations);
        }
        state.to_string().into_bytes()
    }
}

/// Runs hooks in order; the first failure ends it.
pub fn run_all(kind: &str, hooks: &[Hook], state: &[u8], cwd: Option<&Path>) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(n, hook)| {
        run(hook, state, cwd).map_err(|e| Error::state(format!("error running {kind} hook #{n}: {}: {e}", hook.path.display())))
    })
}

fn run(hook: &Hook, state: &[u8], cwd: Option<&Path>) -> Result<()> {
    let mut command = Command::new(&hook.path);
    if let [name, args @ ..] = hook.args.as_slice() {
        command.arg0(name).args(args);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|e| e.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    let mut child = command.spawn().map_err(|e| Error::io("start", &hook.path, &e))?;
    let pidfd = process::pidfd_open(child.id() as i32)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its input: EPIPE is its choice.
        drop(stdin.write_all(state));
    }
    let timeout = hook.timeout.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    let in_time = process::pidfd_exited(&pidfd, timeout)?;
    if !in_time {
        child.kill().map_err(|e| Error::io("kill", &hook.path, &e))?;
    }
    let status = child.wait().map_err(|e| Error::io("wait for", &hook.path, &e))?;
    if !in_time {
        return Err(Error::state(format!("timed out after {} s", hook.timeout.unwrap_or_default())));
    }
    if status.success() {
        return Ok(());
    }
    let said = |stream: Option<&mut dyn Read>| {
        let mut text = Vec::new();
        if let Some(stream) = stream {
            // What it said is a courtesy: a pipe that cannot be read adds nothing.
            drop(stream.take(4096).read_to_end(&mut text));
        }
        String::from_utf8_lossy(&text).trim().to_string()
    };
    let stdout = said(child.stdout.as_mut().map(|s| s as &mut dyn Read));
    let stderr = said(child.stderr.as_mut().map(|s| s as &mut dyn Read));
    Err(Error::state(format!("{status}, stdout: {stdout}, stderr: {stderr}")))
}
