//! A program on a terminal of its own: what it shows, what is typed, and whether it leaves the terminal as it found it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long anything may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The session's leader outlives the program: the kernel resets a terminal whose leader ends, and raw mode left on would not be seen.
const LEADER: &str = r#"
trap : INT QUIT TERM HUP
dir=$1; shift
stty -g >"$dir/before"
sh -c 'echo $$ >"$1/pid"; shift; exec "$@"' sh "$dir" "$@"
code=$?
stty -g >"$dir/after"
exit $code"#;

pub struct Terminal {
    controller: File,
    leader: Child,
    screen: Screen,
    /// Up to where the screen has been looked at.
    place: usize,
    dir: tempfile::TempDir,
}

/// How a program on a terminal ended.
pub struct Ended {
    /// As shells count: 128 + n for a signal.
    pub code: i32,
    /// Whether the terminal's settings are what they were before.
    pub restored: bool,
    pub screen: String,
}

impl Terminal {
    /// Starts the command on a terminal of 24 × 80.
    ///
    /// # Panics
    /// When this machine gives no terminal.
    pub fn run(command: &Command) -> Self {
        let (controller, terminal) = open().expect("open a terminal");
        let dir = tempfile::tempdir().expect("create a temporary directory");
        let mut leader = Command::new("sh");
        leader.args(["-c", LEADER, "leader"]).arg(dir.path()).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            leader.current_dir(directory);
        }
        let copy = || Stdio::from(terminal.try_clone().expect("copy a descriptor"));
        leader.stdin(copy()).stdout(copy()).stderr(copy());
        own_session(&mut leader);
        let child = leader.spawn().expect("start a shell");
        // With the leader's and our copies gone, the end of the program is the end of what can be read.
        drop((leader, terminal));
        let controller = File::from(controller);
        let screen = Screen::watch(controller.try_clone().expect("copy a descriptor"));
        Self { controller, leader: child, screen, place: 0, dir }
    }

    /// Waits until the text is shown, behind what was waited for before.
    ///
    /// # Errors
    /// When it is not shown in time.
    pub fn try_expect(&mut self, text: &str) -> Result<(), String> {
        self.place = self.screen.wait_for(text, self.place)?;
        Ok(())
    }

    /// As [`Self::try_expect`].
    ///
    /// # Panics
    /// When it is not shown in time.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> &mut Self {
        if let Err(why) = self.try_expect(text) {
            panic!("{why}\n--- screen\n{}", self.screen.text());
        }
        self
    }

    /// # Errors
    /// When the terminal is gone.
    pub fn try_type(&mut self, keys: &[u8]) -> Result<(), String> {
        self.controller.write_all(keys).map_err(|err| format!("typing failed: {err}"))
    }

    /// # Panics
    /// When the terminal is gone.
    #[track_caller]
    pub fn keys(&mut self, keys: &str) -> &mut Self {
        self.try_type(keys.as_bytes()).expect("the terminal takes what is typed");
        self
    }

    /// As a window manager does it: the kernel tells the programs in the foreground.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&mut self, rows: u16, columns: u16) -> &mut Self {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.controller, size).expect("resize the terminal");
        self
    }

    /// The program's own pid, known once it has shown something.
    ///
    /// # Panics
    /// When it has not been started yet.
    pub fn pid(&self) -> rustix::process::Pid {
        let text = std::fs::read_to_string(self.dir.path().join("pid")).expect("the program was started");
        rustix::process::Pid::from_raw(text.trim().parse().expect("a pid")).expect("a pid")
    }

    /// Whether raw mode is on: the client streams.
    pub fn is_raw(&self) -> bool {
        use rustix::termios::LocalModes;
        rustix::termios::tcgetattr(&self.controller).is_ok_and(|settings| !settings.local_modes.contains(LocalModes::ICANON))
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub fn try_wait(mut self) -> Result<Ended, String> {
        let status = wait(&mut self.leader);
        self.screen.finish();
        let status = status.map_err(|why| format!("{why}\n--- screen\n{}", self.screen.text()))?;
        let settings = |name| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        let restored = !settings("before").is_empty() && settings("before") == settings("after");
        Ok(Ended { code: code(status), restored, screen: self.screen.text() })
    }

    /// As [`Self::try_wait`], and the terminal must be as it was.
    ///
    /// # Panics
    /// When the program does not end, or leaves the terminal changed.
    #[track_caller]
    pub fn wait(self) -> Ended {
        let ended = self.try_wait().unwrap_or_else(|why| panic!("{why}"));
        assert!(ended.restored, "the terminal was left changed\n--- screen\n{}", ended.screen);
        ended
    }

    /// Gives up: the program and its leader are killed.
    pub fn kill(&mut self) {
        if let Some(pid) = std::fs::read_to_string(self.dir.path().join("pid")).ok().and_then(|text| text.trim().parse().ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
            && self.leader.try_wait().is_ok_and(|ended| ended.is_none())
        {
            // It may have ended by itself.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
        drop(self.leader.kill());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.kill();
        drop(self.leader.wait());
    }
}

/// 128 + n for a signal, as shells count.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Waits for a child's end without asking again and again.
///
/// # Errors
/// When it does not end within [`PATIENCE`]; it is killed then.
pub fn wait(child: &mut Child) -> Result<ExitStatus, String> {
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

fn open() -> std::io::Result<(OwnedFd, OwnedFd)> {
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
        String::from_utf8_lossy(&self.seen).into_owned()
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
