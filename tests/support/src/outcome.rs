//! The result of a command, with assertions that show the whole of it when they fail.

use std::fmt;
use std::process::Output;

pub struct Outcome {
    command: String,
    /// The exit code; 128 + n for a program ended by signal n.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn new(command: String, output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        Self {
            command,
            code: code.expect("a process that ended has a code or a signal"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn success(self) -> Self {
        self.code(0)
    }

    #[track_caller]
    pub fn code(self, wanted: i32) -> Self {
        assert_eq!(self.code, wanted, "exit code of {self}");
        self
    }

    #[track_caller]
    pub fn stdout(self, wanted: &str) -> Self {
        assert_eq!(self.stdout, wanted, "standard output of {self}");
        self
    }

    #[track_caller]
    pub fn stdout_has(self, wanted: &str) -> Self {
        assert!(self.stdout.contains(wanted), "{wanted:?} is not in the standard output of {self}");
        self
    }

    #[track_caller]
    pub fn stderr_has(self, wanted: &str) -> Self {
        assert!(self.stderr.contains(wanted), "{wanted:?} is not in the standard error of {self}");
        self
    }

    /// Standard output without the line end: an id, a number.
    pub fn word(&self) -> String {
        self.stdout.trim_end().to_owned()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (exit {})\n--- stdout\n{}--- stderr\n{}", self.command, self.code, self.stdout, self.stderr)
    }
}
