//! Hooks: programs that are told the container's state on stdin and may take only so long.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rrun_sys::{fs, process};

pub use crate::spec::Hook;
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
    // The reading end stays open here, too, as long as the command lives: a hook that does not read raises no SIGPIPE, which could be
    // the end of a container's first process.
    let (theirs, input) = std::io::pipe().map_err(|e| Error::io("pipe", &hook.path, &e))?;
    command.stdin(theirs).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    let mut child = command.spawn().map_err(|e| Error::io("start", &hook.path, &e))?;
    let timeout = hook.timeout.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    let said = converse(&mut child, input.into(), state, timeout);
    if !matches!(said, Ok(Some(_))) {
        child.kill().map_err(|e| Error::io("kill", &hook.path, &e))?;
    }
    let status = child.wait().map_err(|e| Error::io("wait for", &hook.path, &e))?;
    let Some([stdout, stderr]) = said? else {
        return Err(Error::state(format!("timed out after {} s", hook.timeout.unwrap_or_default())));
    };
    if status.success() {
        return Ok(());
    }
    let shown = |said: &[u8]| String::from_utf8_lossy(said).trim().to_string();
    // The field's word for SIGSYS.
    let status = if status.signal() == Some(libc::SIGSYS) { "signal: bad system call".to_string() } else { status.to_string() };
    Err(Error::state(format!("{status}, stdout: {}, stderr: {}", shown(&stdout), shown(&stderr))))
}

/// So much of what a hook says is told when it fails; the rest is read and forgotten.
const REMEMBERED: usize = 4096;

/// Feeds a hook the state, and hears what it says on stdout and stderr, until it has ended. None: it took too long. A hook need not
/// read, may say more than a pipe holds, and may leave its pipes to a process that outlives it.
fn converse(child: &mut Child, input: OwnedFd, state: &[u8], timeout: Option<Duration>) -> Result<Option<[Vec<u8>; 2]>> {
    let until = timeout.map(|t| Instant::now() + t);
    let pidfd = process::pidfd_open(child.id().cast_signed())?;
    let mut input = Some(input);
    let mut outputs = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
    for pipe in input.iter().chain(outputs.iter().flatten()) {
        fs::set_nonblocking(pipe)?;
    }
    let mut rest = state;
    let mut said = [Vec::new(), Vec::new()];
    loop {
        let listened: Vec<BorrowedFd<'_>> = std::iter::once(pidfd.as_fd()).chain(outputs.iter().flatten().map(AsFd::as_fd)).collect();
        let fed: Vec<BorrowedFd<'_>> = input.iter().map(AsFd::as_fd).collect();
        let ready = process::wait_ready(&listened, &fed, until.map(|u| u.saturating_duration_since(Instant::now())))?;
        if !ready.contains(&true) {
            return Ok(None);
        }
        if input.as_ref().is_some_and(|pipe| !feed(pipe, &mut rest)) {
            input = None;
        }
        for (output, said) in outputs.iter_mut().zip(&mut said) {
            if output.as_ref().is_some_and(|pipe| !hear(pipe, said)) {
                *output = None;
            }
        }
        if ready[0] {
            return Ok(Some(said));
        }
    }
}

/// As much as there is room for; false: all is written.
fn feed(pipe: &OwnedFd, rest: &mut &[u8]) -> bool {
    while !rest.is_empty() {
        match rustix::io::write(pipe, rest) {
            Ok(n) => *rest = &rest[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return e == rustix::io::Errno::AGAIN,
        }
    }
    false
}

/// A piece of what is there; false: nobody writes any more.
fn hear(pipe: &OwnedFd, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; REMEMBERED];
    match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut buffer[..])) {
        Ok(0) => false,
        Ok(n) => {
            said.extend_from_slice(&buffer[..n.min(REMEMBERED - said.len())]);
            true
        }
        Err(e) => e == rustix::io::Errno::AGAIN,
    }
}
