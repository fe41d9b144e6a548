//! Faults in a manager's system calls, by `inject.c`: which sees all that changes the store, whoever in the program asks for it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rcontainerd_tests::TestHost;

use crate::disk::done;

/// The supervisor of a host's manager.
pub struct Injector {
    control: PathBuf,
}

impl Injector {
    /// Has the host's manager started anew under a supervisor that lets all calls pass.
    pub fn attach(host: &mut TestHost) -> Self {
        host.stop_manager();
        let injector = Self { control: host.path().join("inject") };
        let launcher = [program(), &injector.control, &host.root()].map(|word| OsString::from(word.as_os_str()));
        host.set_launchers(launcher.to_vec(), Vec::new());
        host.start_manager();
        injector
    }

    /// Has the manager started anew without a supervisor.
    pub fn detach(self, host: &mut TestHost) {
        host.stop_manager();
        host.set_launchers(Vec::new(), Vec::new());
        host.start_manager();
    }

    /// Gives the manager what `inject.c` calls a mode, and counts from here on.
    pub fn arm(&self, at: u64, mode: &str) {
        self.ask(&format!("arm {at} {mode}\n"));
    }

    /// Lets all calls pass again; gives the number of those since the last time.
    pub fn disarm(&self) -> u64 {
        let counted = self.ask("count\n");
        self.arm(0, "none");
        counted
    }

    fn ask(&self, command: &str) -> u64 {
        let mut stream = UnixStream::connect(&self.control).expect("reach the supervisor");
        stream.write_all(command.as_bytes()).expect("tell the supervisor");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("hear the supervisor");
        answer.trim().parse().expect("a number")
    }
}

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("inject-{}", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fault/store/inject.c");
        done(Command::new("cc").args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source).arg("-lseccomp"));
        program
    })
}
