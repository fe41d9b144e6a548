//! One manager per root: an flock on ROOT/lock, whose content names the holder until that one says farewell.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rcontainerd_types::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, test_kill_process};

use crate::fs::failed;

/// Held while the value lives; the kernel lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub struct RootLock {
    file: File,
    abandoned: bool,
}

impl RootLock {
    /// # Errors
    /// `Conflict` naming the process that holds the root.
    pub fn acquire(root: &Path) -> Result<Self> {
        let path = root.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        lock(root, &path, &mut file)?;
        let abandoned = file.metadata().map_err(failed("stat", &path))?.len() > 0;
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed("truncate", &path))?;
        writeln!(file, "{} {}", std::process::id(), program_name()).map_err(failed("write", &path))?;
        Ok(Self { file, abandoned })
    }

    /// Whether the last holder ended without a farewell.
    pub fn was_abandoned(&self) -> bool {
        self.abandoned
    }

    /// An orderly end; the lock itself is held until the value goes.
    ///
    /// # Errors
    /// What ftruncate(2) says.
    pub fn say_farewell(&self) -> Result<()> {
        self.file.set_len(0).map_err(|err| Error::io("truncate the root's lock", err))
    }
}

fn program_name() -> String {
    let exe = std::env::current_exe().ok();
    exe.as_deref().and_then(Path::file_name).map_or_else(|| "unknown program".into(), |name| name.to_string_lossy().into_owned())
}

/// What is just being forked has the open file, too, until it executes something: unlocking counts for all who have it, closing does not.
impl Drop for RootLock {
    fn drop(&mut self) {
        // The close that follows says it too; nothing more can be done about a failure.
        flock(&self.file, FlockOperation::Unlock).ok();
    }
}

/// What a holder that was killed was just forking has the lock, too, until it executes something.
const LAST_GASP: Duration = Duration::from_secs(5);

fn lock(root: &Path, path: &Path, file: &mut File) -> Result<()> {
    let end = Instant::now() + LAST_GASP;
    loop {
        match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(err) => return Err(failed("lock", path)(err.into())),
        }
        let holder = Holder::read(file);
        if holder.as_ref().is_some_and(Holder::lives) || Instant::now() >= end {
            let owner =
                holder.map_or_else(|| "another process".to_owned(), |Holder { pid, program }| format!("{program} with process id {pid}"));
            return Err(Error::conflict(format!("root {} is in use by {owner}: stop it first, or choose another --root", root.display())));
        }
        // Nothing tells of another process's execve(2); an flock(2) that waits could wait for ever.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

struct Holder {
    pid: i32,
    program: String,
}

impl Holder {
    /// None where nobody has said a name, or a farewell.
    fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
        let (pid, program) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, program: program.to_owned() })
    }

    fn lives(&self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_the_root() {
        let root = tempfile::tempdir().expect("temporary directory");
        let held = RootLock::acquire(root.path()).expect("first");
        let err = RootLock::acquire(root.path()).expect_err("second");
        assert!(err.message().contains(&format!("process id {}", std::process::id())), "{err}");
        drop(held);
        let held = RootLock::acquire(root.path()).expect("free again");
        assert!(held.was_abandoned());
        held.say_farewell().expect("farewell");
        drop(held);
        assert!(!RootLock::acquire(root.path()).expect("free again").was_abandoned());
    }

    #[test]
    fn what_is_given_back_is_free_even_while_a_fork_has_it() {
        let root = tempfile::tempdir().expect("temporary directory");
        let held = RootLock::acquire(root.path()).expect("first");
        let _inherited = held.file.try_clone().expect("clone");
        drop(held);
        RootLock::acquire(root.path()).expect("free again");
    }

    #[test]
    fn what_a_dead_holder_was_forking_is_waited_for() {
        let root = tempfile::tempdir().expect("temporary directory");
        let mut dead = std::process::Command::new("true").spawn().expect("spawn");
        dead.wait().expect("wait");
        let path = root.path().join("lock");
        std::fs::write(&path, format!("{} rcontainerd\n", dead.id())).expect("write");
        // Another open file, as a fork of the dead one has it, until its execve closes it.
        let inherited = File::open(&path).expect("open");
        flock(&inherited, FlockOperation::LockExclusive).expect("lock");
        let executes = std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(100));
            drop(inherited);
        });
        assert!(RootLock::acquire(root.path()).expect("free in a moment").was_abandoned());
        executes.join().expect("joined");
    }
}
