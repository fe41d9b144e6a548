//! One conversation with `criu swrk`: a socket pair that keeps message borders, requests one way, answers and notifications the other.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rrun_sys::fs::{self, OFlags};
use rrun_sys::process::{self, Cloned, Ended};
use rrun_sys::socket;
use rustix::fs::Access;

use super::log::Log;
use super::rpc::{self, Answer, Features, Kind, Options};
use crate::{Context, Error, Result};

/// criu's own descriptors begin here: 0 to 2 are what its programs get, 3 is the socket.
const SOCKET: i32 = 3;
pub const FIRST_EXTRA: i32 = 4;
/// How long criu may take to end once nobody speaks to it any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, found.
#[derive(Debug, Clone)]
pub struct Criu {
    program: PathBuf,
}

/// What criu gets as 0, 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    Null,
    Ours,
}

/// How criu is started.
#[derive(Debug)]
pub struct Start<'a> {
    pub stdio: Stdio,
    /// From [`FIRST_EXTRA`] on.
    pub extra: &'a [OwnedFd],
    /// A v2 cgroup to be in from the start.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// What the processes that it restores begin with.
    pub umask: Option<u32>,
}

/// A criu that was started, and ends with this.
#[derive(Debug)]
pub struct Session {
    /// None once nothing more will be said.
    socket: Option<OwnedFd>,
    /// Until it may go on.
    gate: Option<OwnedFd>,
    pid: i32,
    pidfd: OwnedFd,
    ended: bool,
}

impl Criu {
    /// `configured`: a path, or a name that is looked for in PATH.
    pub fn find(configured: &OsStr) -> Result<Criu> {
        let name = Path::new(configured);
        let missing =
            |why: &str| Error::invalid(format!("criu: {}: {why}: install criu, or give its path by --criu or RRUN_CRIU", name.display()));
        let may_run = |path: &Path| rustix::fs::accessat(fs::CWD, path, Access::EXEC_OK, fs::AtFlags::empty()).is_ok() && path.is_file();
        if configured.as_bytes().contains(&b'/') {
            let program = std::path::absolute(name).map_err(|e| Error::io("resolve", name, &e))?;
            return if may_run(&program) { Ok(Criu { program }) } else { Err(missing("is no program that can be run")) };
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(|path| may_run(path));
        found.map(|program| Criu { program }).ok_or_else(|| missing("is nowhere in PATH"))
    }

    /// As 31701 for 3.17.1; refused where it is older than `least`.
    pub fn version(&self, least: u32) -> Result<u32> {
        let answer = self.question(Kind::Version, &rpc::request(Kind::Version, None))?;
        let version = answer.version.ok_or_else(|| Error::state("criu: it answered the question for its version without one"))?;
        if version < least {
            return Err(Error::state(format!("criu: version {} is too old: {} is needed at least", shown(version), shown(least))));
        }
        Ok(version)
    }

    /// What criu cannot do here is told before anything is stopped.
    pub fn need(&self, wanted: Features) -> Result<()> {
        if wanted == Features::default() {
            return Ok(());
        }
        let can = self.question(Kind::FeatureCheck, &rpc::feature_check(wanted))?.features;
        let lacks = [(wanted.track_memory && !can.track_memory, "memory tracking"), (wanted.lazy_pages && !can.lazy_pages, "lazy pages")];
        match lacks.iter().find(|(lacks, _)| *lacks) {
            Some((_, what)) => Err(Error::state(format!("criu is missing features: this kernel or this criu has no {what}"))),
            None => Ok(()),
        }
    }

    /// Something that criu answers at once.
    fn question(&self, kind: Kind, request: &[u8]) -> Result<Answer> {
        let mut session = self.start(&Start { stdio: Stdio::Null, extra: &[], cgroup: None, umask: None }, || Ok(()))?;
        session.go()?;
        session.ask(kind, request, None, |_| Ok(()))
    }

    /// Starts it; it waits in `prepare`'s stead until [`Session::go`], then does that in its own process, and is criu.
    pub fn start(&self, start: &Start<'_>, prepare: impl FnOnce() -> Result<()>) -> Result<Session> {
        let null = fs::openat(fs::CWD, Path::new("/dev/null"), OFlags::RDWR, 0)?;
        let (ours, theirs) = socket::pair()?;
        let (gate, inner_gate) = socket::pair()?;
        let program = CString::new(self.program.as_os_str().as_bytes()).map_err(|_| Error::invalid("criu: its path holds a zero byte"))?;
        let arguments: Vec<CString> = [&b"criu"[..], b"swrk", b"3"].into_iter().filter_map(|word| CString::new(word).ok()).collect();
        let environment = environment();
        let ignored = process::ignored_signals()?;
        match process::clone3(0, start.cgroup)? {
            Cloned::Child => {
                process::close_in_child(ours.as_fd());
                process::close_in_child(gate.as_fd());
                let become_criu = || -> Result<Infallible> {
                    // Nobody to say go: the runtime has ended.
                    if socket::receive(&inner_gate)?.is_empty() {
                        process::exit_now(1);
                    }
                    prepare()?;
                    let stdio = if start.stdio == Stdio::Null { Some(null.as_fd()) } else { None };
                    place(stdio, &theirs, start.extra)?;
                    process::reset_signals(ignored)?;
                    if let Some(umask) = start.umask {
                        process::set_umask(umask);
                    }
                    Err(process::execveat(None, &program, &arguments, &environment).into())
                };
                let Err(e) = become_criu();
                // The parent hears it, or is gone.
                drop(socket::send(&inner_gate, e.to_string().as_bytes()));
                process::exit_now(127)
            }
            Cloned::Parent { pid, pidfd } => Ok(Session { socket: Some(ours), gate: Some(gate), pid, pidfd, ended: false }),
        }
    }
}

/// As people write it.
fn shown(version: u32) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

/// What is the runtime's own affair is not told to criu, and no file that is named in a variable configures it.
fn environment() -> Vec<CString> {
    const OURS: [&str; 5] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "CRIU_CONFIG_FILE"];
    let kept = std::env::vars_os().filter(|(name, _)| OURS.iter().all(|ours| name != ours));
    kept.filter_map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_vec()).ok()
    })
    .collect()
}

/// Every descriptor where criu expects it, and no other.
fn place(stdio: Option<BorrowedFd<'_>>, socket: &OwnedFd, extra: &[OwnedFd]) -> Result<()> {
    // First out of the way of those numbers.
    let high = |fd: BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, FIRST_EXTRA + 64)
            .map_err(|e| rrun_sys::Error::new("fcntl", "F_DUPFD_CLOEXEC", e.raw_os_error()))
    };
    let moved = std::iter::once(socket).chain(extra).map(|fd| high(fd.as_fd())).collect::<rrun_sys::Result<Vec<_>>>()?;
    if let Some(null) = stdio {
        let null = high(null)?;
        (0..SOCKET).try_for_each(|number| process::duplicate_to(&null, number))?;
    }
    // What closes on exec does so from the first number after ours; the copies above lie there.
    process::cloexec_from(SOCKET + moved.len() as i32)?;
    for (number, fd) in (SOCKET..).zip(&moved) {
        process::duplicate_to(fd, number)?;
    }
    Ok(())
}

/// What criu tells of on its way.
#[derive(Debug)]
pub struct Notification<'a> {
    pub moment: &'a str,
    /// The first process of what is restored.
    pub pid: Option<i32>,
    pub sent: Option<OwnedFd>,
}

impl Session {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Lets it go on, and waits until it is criu.
    pub fn go(&mut self) -> Result<()> {
        let Some(gate) = self.gate.take() else { return Ok(()) };
        socket::send(&gate, b"g")?;
        match socket::receive(&gate)?.as_slice() {
            [] => Ok(()),
            why => Err(Error::state(String::from_utf8_lossy(why).into_owned())).doing(|| "start criu".to_string()),
        }
    }

    /// Asks for something. Each notification is answered by what `notify` makes of it; once it has failed criu is told so, takes back
    /// what it has done, and the first failure is the result.
    pub fn ask(
        &mut self,
        kind: Kind,
        request: &[u8],
        log: Option<&Log>,
        mut notify: impl FnMut(Notification<'_>) -> Result<()>,
    ) -> Result<Answer> {
        let mut failed = None;
        let answered = self.converse(kind, request, &mut |notification| {
            if failed.is_some() {
                return false;
            }
            failed = notify(notification).err();
            failed.is_none()
        });
        if let Some(e) = failed {
            return Err(e);
        }
        let answer = answered.map_err(|e| explained(e, log))?;
        if answer.success {
            return Ok(answer);
        }
        let mut why = format!("criu: {} failed", kind.name());
        if answer.errno > 0 {
            why.push_str(&format!(" ({})", rrun_sys::errno_text(answer.errno)));
        }
        // It stands in the log, too, with what came of it.
        if !answer.message.is_empty() && log.is_none_or(|log| log.errors().is_empty()) {
            why.push_str(&format!(": {}", crate::one_line(&answer.message.trim())));
        }
        Err(explained(Error::state(why), log))
    }

    fn converse(&mut self, kind: Kind, request: &[u8], notify: &mut dyn FnMut(Notification<'_>) -> bool) -> Result<Answer> {
        let gone = || Error::state(format!("criu: it ended in the middle of a {}", kind.name()));
        let socket = self.socket.as_ref().ok_or_else(gone)?;
        let tell = |bytes: &[u8]| match socket::send(socket, bytes) {
            Err(e) if e.is(libc::EPIPE) || e.is(libc::ECONNRESET) => Err(gone()),
            done => Ok(done?),
        };
        tell(request)?;
        loop {
            // A process that criu has made may keep the socket open.
            let ready = process::wait_readable(&[socket.as_fd(), self.pidfd.as_fd()], None)?;
            if !ready[0] {
                return Err(gone());
            }
            let (bytes, sent) = match socket::receive_fd(socket) {
                Err(e) if e.is(libc::ECONNRESET) => return Err(gone()),
                done => done?,
            };
            if bytes.is_empty() {
                return Err(gone());
            }
            let garbage =
                || Error::state("criu: it answered what is no answer of criu's: is the program named by --criu or RRUN_CRIU criu?");
            let answer = Answer::parse(&bytes).ok_or_else(garbage)?;
            if answer.kind == Kind::Notify {
                let (moment, pid) = answer.notification.as_ref().ok_or_else(garbage)?;
                tell(&rpc::notified(notify(Notification { moment, pid: *pid, sent })))?;
            } else if answer.kind == kind {
                return Ok(answer);
            } else {
                return Err(garbage());
            }
        }
    }

    /// After the last answer: how criu ended.
    pub fn finish(mut self) -> Result<Ended> {
        self.socket = None;
        if !process::pidfd_exited(&self.pidfd, Some(PATIENCE))? {
            return Err(Error::state("criu: it does not end"));
        }
        self.ended = true;
        Ok(process::wait(self.pid)?)
    }
}

impl Drop for Session {
    /// Who is left alone by its caller takes back what it has done; who does not end is ended.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.socket = None;
        self.gate = None;
        if !process::pidfd_exited(&self.pidfd, Some(PATIENCE)).unwrap_or(false) {
            // ESRCH: it ended meanwhile.
            drop(process::pidfd_signal(&self.pidfd, libc::SIGKILL));
        }
        drop(process::wait(self.pid));
    }
}

/// With what criu has written down of it.
fn explained(e: Error, log: Option<&Log>) -> Error {
    let Some(log) = log else { return e };
    match log.errors() {
        said if said.is_empty() => Error::state(format!("{e}: {}", log.advice())),
        said => Error::state(format!("{e}: {said} ({})", log.advice())),
    }
}

/// What a request takes for granted.
pub fn options(images: i32, log: &Log) -> Options {
    Options { images_dir: images, log_level: 4, log_file: log.name.to_string(), work_dir: Some(log.number()), ..Options::default() }
}
