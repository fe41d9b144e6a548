//! Running one step of a transcript.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rcontainerd_tests::terminal::{Terminal, code, wait};

use crate::Engine;

use super::script::{Keys, Kind, Step, lines_match};

/// Where the steps of one replay run.
pub struct Stage<'a> {
    /// Has the client under the name `docker`.
    bin: PathBuf,
    /// Current directory of the commands, `$T`, and the client's home.
    scratch: PathBuf,
    engine: &'a Engine,
    images: PathBuf,
}

impl<'a> Stage<'a> {
    /// A fresh directory below `root` for a client and an engine.
    pub fn new(root: &Path, client: &Path, engine: &'a Engine, images: &Path) -> Self {
        let (bin, scratch) = (root.join("bin"), root.join("work"));
        std::fs::create_dir_all(&bin).expect("create a directory for the client");
        std::fs::create_dir_all(&scratch).expect("create a scratch directory");
        std::os::unix::fs::symlink(client, bin.join("docker")).expect("link the client");
        Self { bin, scratch, engine, images: images.to_owned() }
    }

    fn command(&self, text: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.engine.shell();
        command.args(["-c", text]).current_dir(&self.scratch).env("PATH", format!("{}:{path}", self.bin.display()));
        command
            .env("DOCKER_HOST", self.engine.host())
            .env("HOME", &self.scratch)
            .env("T", &self.scratch)
            .env("TERM", "xterm")
            .env("IMAGES", &self.images);
        for name in ["DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_API_VERSION", "DOCKER_DEFAULT_PLATFORM"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a step; the error tells what was different.
    pub fn play(&self, step: &Step) -> Result<(), String> {
        match &step.kind {
            Kind::Later => Ok(()),
            Kind::Prepare | Kind::Pipes => self.pipes(step),
            Kind::Terminal(keys) => self.terminal(step, keys),
        }
    }

    fn pipes(&self, step: &Step) -> Result<(), String> {
        let mut command = self.command(&step.command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|err| err.to_string())?;
        let stdout = child.stdout.take().map(collect).expect("is piped");
        let stderr = child.stderr.take().map(collect).expect("is piped");
        let status = wait(&mut child)?;
        let (stdout, stderr) = (take(&stdout), take(&stderr));
        let told = format!("--- stdout ---\n{stdout}--- stderr ---\n{stderr}");
        if !step.status.contains(&code(status)) {
            return Err(format!("exit status {} instead of {:?}\n{told}", code(status), step.status));
        }
        if step.kind == Kind::Prepare {
            return Ok(());
        }
        let fits = |expected: &[String], seen: &str| lines_match(expected, &seen.lines().collect::<Vec<_>>());
        if !step.stdout.is_empty() && !fits(&step.stdout, &stdout) {
            return Err(format!("stdout is not what was expected:\n{}\n{told}", step.stdout.join("\n")));
        }
        if !step.stderr.is_empty() && !fits(&step.stderr, &stderr) {
            return Err(format!("stderr is not what was expected:\n{}\n{told}", step.stderr.join("\n")));
        }
        Ok(())
    }

    fn terminal(&self, step: &Step, keys: &[Keys]) -> Result<(), String> {
        let mut terminal = Terminal::run(&self.command(&step.command));
        let outcome = drive(&mut terminal, keys);
        if outcome.is_err() {
            terminal.kill();
        }
        let ended = terminal.try_wait();
        let text = ended.as_ref().map(|ended| ended.screen.replace("rdocker", "docker")).unwrap_or_default();
        let told = format!("--- screen ---\n{text}");
        outcome.map_err(|why| format!("{why}\n{told}"))?;
        let ended = ended?;
        if !step.status.contains(&ended.code) {
            return Err(format!("exit status {} instead of {:?}\n{told}", ended.code, step.status));
        }
        if !ended.restored {
            return Err(format!("the terminal was left changed\n{told}"));
        }
        let seen: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
        if !step.stdout.is_empty() && !lines_match(&step.stdout, &seen) {
            return Err(format!("the screen is not what was expected:\n{}\n{told}", step.stdout.join("\n")));
        }
        Ok(())
    }
}

fn collect(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).ok();
        sender.send(all).ok();
    });
    receiver
}

/// What was printed; the client's own name does not count. A process left behind must not hold up the test.
fn take(from: &Receiver<Vec<u8>>) -> String {
    let bytes = from.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace("rdocker", "docker")
}

fn drive(terminal: &mut Terminal, keys: &[Keys]) -> Result<(), String> {
    for key in keys {
        match key {
            Keys::Expect(text) => terminal.try_expect(text)?,
            Keys::Type(bytes) => terminal.try_type(bytes)?,
        }
    }
    Ok(())
}
