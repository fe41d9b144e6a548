//! A bundle to attack with, a part of the host that must not change, and the runtimes that are attacked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rcontainerd_tests::leftovers;
use serde_json::{Value, json};

/// Whom the attack is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    Rrun,
    /// Must fall to every attack.
    Naive,
}

/// What came of an attack: `Err` says how it succeeded.
pub type Verdict = Result<(), String>;

/// Carries out an attack on both runtimes: the real one must withstand, the naive one must not.
pub fn withstands(name: &str, attack: impl Fn(&Arena) -> Verdict) {
    let arena = Arena::new(name, Runtime::Rrun);
    let verdict = attack(&arena);
    assert_eq!(verdict, Ok(()), "{name}: the attack on rrun succeeded");
    assert_eq!(arena.host_changes(), Vec::<String>::new(), "{name}: the host changed");
    arena.finish();
    let arena = Arena::new(name, Runtime::Naive);
    let verdict = attack(&arena);
    let changes = arena.host_changes();
    assert!(verdict.is_err() || !changes.is_empty(), "{name}: the attack proves nothing: the naive runtime withstood it");
}

pub struct Arena {
    pub runtime: Runtime,
    pub dir: tempfile::TempDir,
    id: String,
    before: BTreeMap<PathBuf, String>,
    mounts: Vec<PathBuf>,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

const APPLETS: [&str; 20] = [
    "sh", "cat", "ls", "id", "sleep", "mkdir", "mount", "umount", "grep", "true", "echo", "readlink", "head", "tr", "stat", "ln", "test",
    "touch", "kill", "seq",
];

/// By a process of its own: a descriptor that is open for writing here would go to whatever another thread starts meanwhile, and as
/// long as anybody has one the file cannot be executed (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success(), "{} is there", from.display());
}

impl Arena {
    fn new(name: &str, runtime: Runtime) -> Arena {
        let dir = tempfile::Builder::new().prefix("rrun-attack-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let bin = dir.path().join("bundle/rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        copy_program(Path::new("/usr/bin/busybox"), &bin.join("busybox"));
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        fs::create_dir(dir.path().join("canary")).unwrap();
        fs::write(dir.path().join("canary/secret"), "the host's secret\n").unwrap();
        let id = format!("attack-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut arena = Arena { runtime, dir, id, before: BTreeMap::new(), mounts: Vec::new() };
        arena.configure(&["true"], |_| {});
        arena.before = listing(&arena.canary());
        arena.mounts = leftovers::mounts(arena.dir.path());
        arena
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("bundle/rootfs")
    }

    /// The part of the host that must not change.
    pub fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes config.json: a container with Docker's usual mounts that runs `args`.
    pub fn configure(&self, args: &[&str], change: impl FnOnce(&mut Value)) {
        let mount = |to: &str, kind: &str| json!({"destination": to, "type": kind, "source": kind});
        let mut config = json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"], "capabilities": {}},
            "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/sys", "sysfs")],
            "linux": {
                "cgroupsPath": format!("/{}", self.id),
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
            },
        });
        change(&mut config);
        fs::write(self.dir.path().join("bundle/config.json"), config.to_string()).unwrap();
    }

    /// The runtime's `run`, ready for more settings.
    pub fn run_command(&self) -> Command {
        match self.runtime {
            Runtime::Rrun => {
                let mut command = self.rrun();
                command.arg("run").arg("--bundle").arg(self.dir.path().join("bundle")).arg(&self.id);
                command
            }
            Runtime::Naive => {
                let mut command = Command::new("bash");
                command.arg(naive()).arg("run").arg(self.dir.path().join("bundle")).stdin(Stdio::null());
                command
            }
        }
    }

    /// Runs the container to its end.
    pub fn run(&self) -> Output {
        self.run_command().output().unwrap()
    }

    pub fn rrun(&self) -> Command {
        let mut command = Command::new(rcontainerd_tests::host::programs().join("rrun"));
        command.arg("--root").arg(self.dir.path().join("state")).stdin(Stdio::null());
        command
    }

    /// What differs on the host from how it was.
    pub fn host_changes(&self) -> Vec<String> {
        let now = listing(&self.canary());
        let paths: std::collections::BTreeSet<&PathBuf> = self.before.keys().chain(now.keys()).collect();
        let mut changes: Vec<String> = paths
            .into_iter()
            .filter(|p| self.before.get(*p) != now.get(*p))
            .map(|p| format!("{}: {:?} → {:?}", p.display(), self.before.get(p), now.get(p)))
            .collect();
        let mounts = leftovers::mounts(self.dir.path());
        changes.extend(mounts.iter().filter(|m| !self.mounts.contains(m)).map(|m| format!("a mount on {}", m.display())));
        changes
    }

    fn finish(&self) {
        assert_eq!(leftovers::cgroups(&self.id), Vec::<PathBuf>::new());
        let state = fs::read_dir(self.dir.path().join("state")).into_iter().flatten().flatten();
        let left: Vec<_> = state.map(|e| e.file_name()).filter(|n| n != ".seccomp").collect();
        assert!(left.is_empty(), "state left behind: {left:?}");
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.runtime == Runtime::Rrun {
            // Nothing may be left to delete: then this says so and does nothing.
            drop(self.rrun().args(["delete", "--force", &self.id]).output());
        }
    }
}

pub fn naive() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("security/naive.sh")
}

/// Everything below a directory: kind, mode, inode, owner, size, content.
fn listing(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        let text = String::from_utf8_lossy(&content).into_owned();
        let shown = format!("{:o} inode {} owner {}:{} {text:?}", meta.mode(), meta.ino(), meta.uid(), meta.gid());
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        found.insert(path, shown);
    }
    found
}

/// Both streams of a finished program.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `Err(why)` where `hit`.
pub fn unless(hit: bool, why: impl Into<String>) -> Verdict {
    if hit { Err(why.into()) } else { Ok(()) }
}

impl Arena {
    /// For rrun alone: a container that sleeps.
    pub fn quiet(name: &str) -> Arena {
        let arena = Arena::new(name, Runtime::Rrun);
        arena.configure(&["sleep", "1000"], |_| {});
        arena
    }

    /// `rrun create`; the pid of the process that waits.
    pub fn create(&self) -> i32 {
        let pid_file = self.dir.path().join("pid");
        let mut command = self.rrun();
        command.arg("create").arg("--pid-file").arg(&pid_file).arg("--bundle").arg(self.dir.path().join("bundle")).arg(&self.id);
        assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "create");
        fs::read_to_string(pid_file).unwrap().trim().parse().unwrap()
    }
}

/// A container that runs, on either runtime, until this is dropped.
pub struct Running<'a> {
    arena: &'a Arena,
    container: Child,
    said: BufReader<std::process::ChildStdout>,
    /// Its first process as the host knows it; for the naive runtime, which keeps no record.
    pid: u32,
}

impl Arena {
    /// Runs a script that says `ready` when it can be attacked.
    pub fn start(&self, script: &str, change: impl FnOnce(&mut Value)) -> Running<'_> {
        self.configure(&["sh", "-c", script], change);
        let mut command = self.run_command();
        let mut container = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(container.stdout.take().unwrap());
        let mut heard = String::new();
        while !heard.ends_with("ready\n") {
            assert!(said.read_line(&mut heard).unwrap() > 0, "the container ended before it was ready: {heard}");
        }
        let pid = first_process_below(container.id()).unwrap();
        Running { arena: self, container, said, pid }
    }
}

impl Running<'_> {
    /// Enters it: by rrun with these options of exec, by the naive runtime with these variables.
    pub fn exec(&self, options: &[&str], variables: &[(&str, &str)], program: &[&str]) -> Output {
        let mut command = match self.arena.runtime {
            Runtime::Rrun => {
                let mut command = self.arena.rrun();
                command.arg("exec").args(options).arg(self.arena.id());
                command
            }
            Runtime::Naive => {
                let mut command = Command::new("bash");
                command.arg(naive()).args(["exec", &self.pid.to_string()]).envs(variables.iter().copied());
                command
            }
        };
        command.args(program).stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        match self.arena.runtime {
            Runtime::Rrun => drop(self.arena.rrun().args(["delete", "--force", self.arena.id()]).output()),
            Runtime::Naive => drop(Command::new("kill").args(["-9", &self.pid.to_string()]).status()),
        }
        drop(self.container.wait());
        drop(self.said.read_line(&mut String::new()));
    }
}

/// The innermost process that another has started.
pub fn first_process_below(pid: u32) -> Option<u32> {
    let mut next = Some(pid);
    while let Some(pid) = next {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        next = children.split_whitespace().next().and_then(|c| c.parse().ok());
        if next.is_some_and(|c: u32| fs::read_to_string(format!("/proc/{c}/status")).is_ok_and(|s| nested(&s))) {
            return next;
        }
    }
    None
}

fn nested(status: &str) -> bool {
    status.lines().find_map(|l| l.strip_prefix("NSpid:")).is_some_and(|pids| pids.split_whitespace().count() > 1)
}
