//! Running one step of a transcript.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::script::{Keys, Kind, Step, lines_match};

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the steps of one replay run.
pub struct Stage {
    /// Has the client under the name `docker`.
    bin: PathBuf,
    /// Current directory of the commands, `$T`, and the client's home.
    scratch: PathBuf,
    host: String,
    images: PathBuf,
}

impl Stage {
    /// A fresh directory below `root` for a client and an engine.
    pub fn new(root: &Path, client: &Path, host: &str, images: &Path) -> Self {
        let (bin, scratch) = (root.join("bin"), root.join("work"));
        std::fs::create_dir_all(&bin).expect("create a directory for the client");
        std::fs::create_dir_all(&scratch).expect("create a scratch directory");
        std::os::unix::fs::symlink(client, bin.join("docker")).expect("link the client");
        Self { bin, scratch, host: host.to_owned(), images: images.to_owned() }
    }

    fn command(&self, text: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command.args(["-c", text]).current_dir(&self.scratch).env("PATH", format!("{}:{path}", self.bin.display()));
        command
            .env("DOCKER_HOST", &self.host)
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
        let (controller, terminal) = open_terminal().map_err(|err| format!("no terminal: {err}"))?;
        let mut command = self.command(&step.command);
        let copy = |fd: &OwnedFd| fd.try_clone().map(Stdio::from).map_err(|err| err.to_string());
        command.stdin(copy(&terminal)?).stdout(copy(&terminal)?).stderr(copy(&terminal)?);
        own_session(&mut command);
        let mut child = command.spawn().map_err(|err| err.to_string())?;
        // With the command's and our copies gone, the end of the program is the end of what can be read.
        drop((command, terminal));
        let mut screen = Screen::watch(File::from(controller.try_clone().map_err(|err| err.to_string())?));
        let mut typing = File::from(controller);
        let outcome = drive(&mut screen, &mut typing, keys);
        if outcome.is_err() {
            child.kill().ok();
        }
        let status = wait(&mut child).map_err(|why| format!("{why}\n--- screen ---\n{}", screen.text()))?;
        let restored = is_cooked(&typing);
        screen.finish();
        let told = format!("--- screen ---\n{}", screen.text());
        outcome.map_err(|why| format!("{why}\n{told}"))?;
        if !step.status.contains(&code(status)) {
            return Err(format!("exit status {} instead of {:?}\n{told}", code(status), step.status));
        }
        if !restored {
            return Err(format!("the terminal was left in raw mode\n{told}"));
        }
        let text = screen.text();
        let seen: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
        if !step.stdout.is_empty() && !lines_match(&step.stdout, &seen) {
            return Err(format!("the screen is not what was expected:\n{}\n{told}", step.stdout.join("\n")));
        }
        Ok(())
    }
}

/// 128 + n for a signal, as shells count.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn wait(child: &mut Child) -> Result<ExitStatus, String> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let ends = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(|err| format!("pidfd_open: {err}"))?;
    let patience = Timespec { tv_sec: i64::try_from(PATIENCE.as_secs()).expect("is a small number"), tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&ends, PollFlags::IN)], Some(&patience)).map_err(|err| format!("poll: {err}"))?;
    if ended == 0 {
        child.kill().ok();
    }
    let status = child.wait().map_err(|err| err.to_string())?;
    if ended == 0 { Err(format!("it did not end within {} s", PATIENCE.as_secs())) } else { Ok(status) }
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

fn open_terminal() -> std::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let name = ptsname(&controller, Vec::new())?;
    let terminal = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, size)?;
    Ok((controller, terminal))
}

#[allow(unsafe_code, reason = "a session of its own can only be made between fork and exec")]
fn own_session(command: &mut Command) {
    let begin = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: the closure does two system calls and allocates nothing, as is right between fork and exec.
    unsafe { command.pre_exec(begin) };
}

fn is_cooked(terminal: &File) -> bool {
    use rustix::termios::LocalModes;
    rustix::termios::tcgetattr(terminal).is_ok_and(|settings| settings.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO))
}

/// What a terminal has shown.
struct Screen {
    chunks: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Screen {
    fn watch(mut from: File) -> Self {
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { chunks, seen: Vec::new() }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).replace("rdocker", "docker")
    }

    /// Waits for a text after `from`; gives the place behind it.
    fn wait_for(&mut self, text: &str, from: usize) -> Result<usize, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let shown = self.text();
            if let Some(at) = shown.get(from..).and_then(|rest| rest.find(text)) {
                return Ok(from + at + text.len());
            }
            match self.chunks.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.seen.extend(chunk),
                Err(RecvTimeoutError::Timeout) => return Err(format!("{text:?} was not shown within {} s", PATIENCE.as_secs())),
                Err(RecvTimeoutError::Disconnected) => return Err(format!("the terminal was closed before {text:?} was shown")),
            }
        }
    }

    /// Takes what is still to come.
    fn finish(&mut self) {
        while let Ok(chunk) = self.chunks.recv_timeout(Duration::from_millis(200)) {
            self.seen.extend(chunk);
        }
    }
}

fn drive(screen: &mut Screen, typing: &mut File, keys: &[Keys]) -> Result<(), String> {
    let mut place = 0;
    for key in keys {
        match key {
            Keys::Expect(text) => place = screen.wait_for(text, place)?,
            Keys::Type(bytes) => typing.write_all(bytes).map_err(|err| format!("typing failed: {err}"))?,
        }
    }
    Ok(())
}
