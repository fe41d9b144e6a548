//! A bundle of busybox-static and the real binary, as root.
#![allow(clippy::unwrap_used, dead_code, reason = "a test that cannot go on fails there; not every suite uses all of it")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

pub struct Host {
    pub dir: tempfile::TempDir,
    pub prefix: String,
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Without a mount namespace, and without what needs one.
pub fn bare(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "mount");
    config["linux"]["maskedPaths"] = json!([]);
    config["linux"]["readonlyPaths"] = json!([]);
}

/// By a process of its own: a descriptor that is open for writing here would go to whatever another thread starts meanwhile, and as
/// long as anybody has one the file cannot be executed (ETXTBSY).
pub fn copy_program(from: &str, to: &std::path::Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success(), "{from} is there (busybox-static is installed)");
}

impl Host {
    pub fn new(name: &str) -> Host {
        let dir = tempfile::Builder::new().prefix("rrun-test-").tempdir().unwrap();
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        copy_program("/usr/bin/busybox", &bin.join("busybox"));
        for applet in ["sh", "sleep", "id", "cat", "grep", "true", "ls", "tty", "mkdir"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let host = Host { dir, prefix: format!("rruntest-{name}-{}", std::process::id()) };
        assert!(host.rrun(&["spec", "--bundle", host.bundle()]).status.success());
        host
    }

    pub fn bundle(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    pub fn id(&self, n: usize) -> String {
        format!("{}-{n}", self.prefix)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rrun"));
        command.arg("--root").arg(self.dir.path().join("state")).args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    pub fn rrun(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Like rrun, for commands that leave a container behind: it would keep pipes open.
    pub fn quiet(&self, args: &[&str]) -> bool {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    pub fn configure(&self, args: &[&str], change: impl FnOnce(&mut Value)) {
        let path = self.dir.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(args);
        config["linux"]["cgroupsPath"] = json!(format!("/{}", self.prefix));
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    pub fn run(&self, args: &[&str], change: impl FnOnce(&mut Value)) -> Output {
        self.configure(args, change);
        self.rrun(&["run", &self.id(0)])
    }

    pub fn leftovers(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = fs::read_dir(self.dir.path().join("state"))
            .map(|d| d.map(|e| e.unwrap().path()).filter(|p| !p.ends_with(".seccomp")).collect())
            .unwrap_or_default();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let path = hierarchy.unwrap().path().join(&self.prefix);
            found.extend(path.exists().then_some(path));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|l| l.contains(self.bundle())).map(PathBuf::from));
        found
    }

    pub fn assert_clean(&self) {
        assert_eq!(self.leftovers(), Vec::<PathBuf>::new());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for n in 0..3 {
            self.quiet(&["delete", "--force", &self.id(n)]);
        }
    }
}
