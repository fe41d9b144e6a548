//! A copy of the project's scripts, with stand-ins for the programs that they call: what `./run` decides on which machine costs no
//! build to test.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;

/// What the scripts may use on every machine: GNU's and util-linux's programs.
const ORDINARY: &[&str] = &[
    "bash", "cat", "chmod", "cmp", "cp", "cut", "date", "dirname", "env", "flock", "getent", "grep", "head", "ln", "mkdir", "mktemp", "mv",
    "readlink", "rm", "sed", "seq", "setsid", "sh", "sleep", "sort", "stat", "tail", "test", "timeout", "touch", "uname",
];

/// A directory with `run`, `test`, what they source, and a `PATH` of its own.
pub struct Checkout {
    pub dir: PathBuf,
    tools: PathBuf,
    home: PathBuf,
}

impl Checkout {
    /// Below `parent`, in a directory whose name has a blank and a quote, since such clones exist.
    pub fn new(parent: &Path) -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dir = parent.join("a clone's place");
        fs::create_dir_all(dir.join(".ci")).expect("make the clone");
        for file in ["run", "test", ".ci/common.sh", "Cargo.toml"] {
            fs::copy(project.join(file), dir.join(file)).unwrap_or_else(|err| panic!("copy {file}: {err}"));
        }
        let (tools, home) = (parent.join("tools"), parent.join("home"));
        fs::create_dir_all(&tools).expect("make the tools");
        fs::create_dir_all(&home).expect("make a home");
        let checkout = Self { dir, tools, home };
        for name in ORDINARY {
            checkout.link(name);
        }
        checkout
    }

    /// Puts the machine's own program on the PATH.
    pub fn link(&self, name: &str) {
        let path = std::env::var_os("PATH").expect("a PATH");
        let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
        symlink(found.unwrap_or_else(|| panic!("{name} is not installed")), self.tools.join(name)).expect("link a tool");
    }

    /// Puts a stand-in on the PATH: lines of sh(1). `$LOG` is the file that [`Self::log`] reads.
    pub fn tool(&self, name: &str, script: &str) {
        self.program(&self.tools.join(name), script);
    }

    /// The same, elsewhere in the clone's world.
    pub fn program(&self, path: &Path, script: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("make a directory");
        crate::executable(path, &format!("#!/bin/sh\nLOG='{}'\n{script}\n", self.log_path().display()));
    }

    pub fn remove_tool(&self, name: &str) {
        fs::remove_file(self.tools.join(name)).expect("remove a tool");
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("log")
    }

    /// What the stand-ins noted, a line each.
    pub fn log(&self) -> Vec<String> {
        fs::read_to_string(self.log_path()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Adds a clean environment to a command that runs one of the scripts.
    pub fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env_clear().env("PATH", &self.tools).env("HOME", &self.home).env("LC_ALL", "C")
    }

    /// Runs a script of the clone to its end, called from `/`.
    pub fn call(&self, script: &str, args: &[&str]) -> Outcome {
        self.call_with(script, args, &[])
    }

    /// The same, with further environment variables.
    pub fn call_with(&self, script: &str, args: &[&str], variables: &[(&str, &str)]) -> Outcome {
        let mut command = Command::new(self.dir.join(script));
        self.environment(&mut command).args(args).envs(variables.iter().copied()).current_dir("/").stdin(Stdio::null());
        let output = command.output().expect("run the script");
        Outcome::new(format!("./{script} {}", args.join(" ")), &output)
    }
}
