//! Our shim and our runtime under unmodified containerds, each driven by its own `ctr`: Debian's 1.6, and the newest 2.x as `./test setup`
//! gets it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcontainerd_tests::host::programs;
use rcontainerd_tests::{Outcome, executable, image, leftovers};

const PATIENCE: Duration = Duration::from_secs(30);
const OURS: [&str; 2] = ["--runtime", "io.containerd.rrun.v2"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    /// 1.6: a shim is told by flags alone and answers with its address; task service version 2.
    One,
    /// 2.3 and later: parameters on standard input, a message as the answer; task service version 3 and sandboxes.
    Two,
}

impl Generation {
    /// # Panics
    /// When it is not installed: a test that leaves it out proves nothing for it.
    fn directory(self) -> PathBuf {
        if self == Self::One {
            return "/usr/bin".into();
        }
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/containerd-2");
        let given = std::env::var_os("CONTAINERD_2").map(PathBuf::from);
        let mut places = given.into_iter().chain(["/usr/local/bin".into(), "/usr/bin".into(), built]);
        places.find(|place| is_2(place)).expect("no containerd 2 here: run ./test setup, or set CONTAINERD_2 to its directory")
    }

    fn config(self, dir: &Path) -> String {
        let dir = dir.display();
        let addresses = format!("[grpc]\naddress = \"{dir}/s/containerd.sock\"\n[ttrpc]\naddress = \"{dir}/s/containerd.sock.ttrpc\"\n");
        let (version, cri, shims) = match self {
            Self::One => (2, "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n".to_owned(), String::new()),
            Self::Two => (3, String::new(), format!("[plugins.\"io.containerd.shim.v1.manager\"]\nsocket_dir = \"{dir}/s/s\"\n")),
        };
        format!("version = {version}\nroot = \"{dir}/root\"\nstate = \"{dir}/s\"\n{cri}{addresses}{shims}")
    }
}

fn is_2(directory: &Path) -> bool {
    let said = |program: &str| Command::new(directory.join(program)).arg("-v").output().map(|said| said.stdout).unwrap_or_default();
    ["containerd", "ctr", "containerd-shim-runc-v2"].iter().all(|program| {
        let text = String::from_utf8_lossy(&said(program)).into_owned();
        text.split_whitespace().any(|word| word.trim_start_matches('v').starts_with("2."))
    })
}

/// A containerd with directories and cgroups of its own.
struct Containerd {
    programs: PathBuf,
    child: Child,
    dir: tempfile::TempDir,
}

impl Containerd {
    fn start(generation: Generation) -> Self {
        let dir = tempfile::Builder::new().prefix("rct-containerd-").tempdir().expect("temp dir");
        let programs = generation.directory();
        std::fs::write(dir.path().join("config.toml"), generation.config(dir.path())).expect("configuration");
        unpack(&dir.path().join("rootfs"));
        let child = spawn(&programs, dir.path());
        let containerd = Self { programs, child, dir };
        containerd.await_answer();
        containerd
    }

    fn await_answer(&self) {
        let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let end = Instant::now() + PATIENCE;
        while self.ctr(&["version"]).code != 0 {
            assert!(Instant::now() < end, "containerd does not answer:\n{}", log());
        }
    }

    /// As by a crash of it, and its start at once.
    fn crash_and_restart(&mut self) {
        self.child.kill().expect("kill containerd");
        self.child.wait().expect("wait for containerd");
        self.child = spawn(&self.programs, self.dir.path());
        self.await_answer();
    }

    fn command(&self, args: &[&str]) -> Command {
        // ctr passes signals on to the container: only KILL ends it for sure.
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60"]).arg(self.programs.join("ctr")).arg("-a").arg(self.dir.path().join("s/containerd.sock"));
        command.args(args).env("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "1").stdin(Stdio::null());
        command
    }

    fn ctr(&self, args: &[&str]) -> Outcome {
        Outcome::new(format!("ctr {}", args.join(" ")), &self.command(args).output().expect("run ctr"))
    }

    fn run_args(&self, flags: &[&str], id: &str, args: &[&str]) -> Vec<String> {
        let cgroup = format!("/{}/{id}", self.cgroup());
        let rootfs = self.dir.path().join("rootfs").display().to_string();
        let fixed = ["--cgroup", &cgroup, "--env", "PATH=/bin", "--rootfs", &rootfs, id];
        [&["run"], flags, &fixed, args].concat().into_iter().map(str::to_owned).collect()
    }

    fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> Outcome {
        let args = self.run_args(flags, id, args);
        self.ctr(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn cgroup(&self) -> String {
        self.dir.path().file_name().expect("a name").to_string_lossy().into_owned()
    }

    fn state(&self, id: &str) -> Option<String> {
        let tasks = self.ctr(&["tasks", "ls"]).success().stdout;
        let line = tasks.lines().find(|line| line.split_whitespace().next() == Some(id))?;
        line.split_whitespace().last().map(str::to_owned)
    }

    fn kill(&self, id: &str) {
        self.ctr(&["tasks", "kill", "-s", "KILL", id]).success();
        eventually("the task ends", || self.state(id).as_deref() == Some("STOPPED"));
    }

    /// Of a container that runs: it is killed first.
    fn remove(&self, id: &str) {
        self.kill(id);
        self.ctr(&["tasks", "rm", id]).stderr_has("exit code 137");
        self.ctr(&["containers", "rm", id]).success();
    }

    fn exec(&self, id: &str, exec_id: &str, args: &[&str]) -> Outcome {
        self.ctr(&[&["tasks", "exec", "--exec-id", exec_id, id], args].concat())
    }

    /// Shims below this containerd, of whatever make.
    fn shims(&self) -> Vec<i32> {
        let address = format!("{}/s/containerd.sock", self.dir.path().display());
        let found = leftovers::processes(&address).into_iter();
        found.filter(|(_, line)| line.contains("containerd-shim-")).map(|(pid, _)| pid).collect()
    }

    /// Directories of tasks or of sandboxes.
    fn bundles(&self, plugin: &str) -> usize {
        files(&self.dir.path().join("s").join(plugin).join("default"))
    }

    fn assert_clean(&self) {
        let dir = self.dir.path();
        let left = || {
            let bundles = self.bundles("io.containerd.runtime.v2.task") + self.bundles("io.containerd.sandbox.controller.v1.shim");
            (self.shims(), bundles, files(&dir.join("s/s")), leftovers::mounts(dir))
        };
        eventually_or(|| left() == (Vec::new(), 0, 0, Vec::new()), || format!("shims, bundles, sockets, mounts left: {:?}", left()));
        let cgroups = leftovers::cgroups(&self.cgroup());
        assert!(cgroups.iter().all(|path| path.ends_with(self.cgroup())), "cgroups of containers are left: {cgroups:?}");
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        for pid in self.shims().into_iter().filter_map(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
        leftovers::end_cgroups(&self.cgroup(), PATIENCE);
        for mount in leftovers::mounts(self.dir.path()) {
            rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH).ok();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an archive of our own making")]
fn unpack(rootfs: &Path) {
    tar::Archive::new(image::busybox_layer().as_slice()).unpack(rootfs).expect("unpack");
}

fn spawn(programs: &Path, dir: &Path) -> Child {
    let inherited = std::env::var("PATH").expect("PATH");
    let path = format!("{}:{}:{inherited}", rcontainerd_tests::host::programs().display(), programs.display());
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).expect("log file");
    let mut command = Command::new(programs.join("containerd"));
    command.arg("-c").arg(dir.join("config.toml")).env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("containerd must be installed")
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    eventually_or(holds, || format!("not in time: {what}"));
}

#[track_caller]
fn eventually_or(holds: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{}", complaint());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A test with each containerd of each function `fn(Generation)` named.
macro_rules! with_both {
    ($($name:ident),+ $(,)?) => {
        with_both!(@ containerd_1 One $($name)+);
        with_both!(@ containerd_2 Two $($name)+);
    };
    (@ $module:ident $generation:ident $($name:ident)+) => {
        mod $module {
            $(#[test]
            fn $name() {
                super::$name(super::Generation::$generation);
            })+
        }
    };
}

with_both!(
    drives_our_shim,
    drives_our_runtime_below_the_go_shim,
    finds_its_containers_again,
    removes_what_a_killed_shim_left,
    has_one_shim_for_a_group,
    gets_logs_by_file_and_by_program,
    hears_events,
    maps_users,
);

/// The whole of a life.
fn lives(containerd: &Containerd, flags: &[&str]) {
    let run = |more: &[&str], id, args: &[&str]| containerd.run(&[more, flags].concat(), id, args);
    run(&["--rm"], "a", &["sh", "-c", "echo out; exit 3"]).code(3).stdout("out\n");
    run(&["--rm"], "none", &["no-such"]).code(1).stderr_has("executable file not found in $PATH");
    run(&["-d"], "c", &["sleep", "1000"]).success();
    let exec = containerd.exec("c", "e", &["sh", "-c", "echo in; exit 4"]).code(4);
    if flags == OURS {
        // The Go shim may tell the end before the client has got the output.
        exec.stdout("in\n");
    }
    containerd.ctr(&["tasks", "metrics", "c"]).success().stdout_has("pids.current");
    containerd.ctr(&["tasks", "ps", "c"]).success().stdout_has("PID");
    containerd.ctr(&["tasks", "pause", "c"]).success();
    assert_eq!(containerd.state("c").as_deref(), Some("PAUSED"));
    containerd.ctr(&["tasks", "resume", "c"]).success();
    containerd.remove("c");
}

fn drives_our_shim(generation: Generation) {
    let containerd = Containerd::start(generation);
    lives(&containerd, &OURS);
    containerd.run(&[OURS.as_slice(), &["-d", "--cpus", "0.5", "--memory-limit", "33554432"]].concat(), "r", &["sleep", "1000"]).success();
    containerd.ctr(&["tasks", "checkpoint", "r"]).code(1).stderr_has("checkpoint is not supported by this shim");
    containerd.ctr(&["tasks", "rm", "r"]).code(1);
    containerd.remove("r");
    stdin_ends(&containerd);
    a_terminal_is_one(&containerd);
    containerd.assert_clean();
}

/// The end of the client's input is the end of the container's.
fn stdin_ends(containerd: &Containerd) {
    let args = containerd.run_args(&[OURS.as_slice(), &["--rm"]].concat(), "i", &["cat"]);
    let mut command = containerd.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run ctr");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"told\n").expect("write");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
    assert_eq!(line, "told\n");
    // Only now: ctr tells nobody of an end that comes before it knows the task.
    drop(stdin);
    let output = child.wait_with_output().expect("wait for ctr");
    Outcome::new("ctr run cat".to_owned(), &output).success();
}

fn a_terminal_is_one(containerd: &Containerd) {
    let args = containerd.run_args(&[OURS.as_slice(), &["--rm", "-t"]].concat(), "t", &["sh", "-c", "'tty; exit 6'"]);
    let command = format!(
        "{} -a {}/s/containerd.sock {}",
        containerd.programs.join("ctr").display(),
        containerd.dir.path().display(),
        args.join(" ")
    );
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().expect("run script");
    Outcome::new(command, &output).code(6).stdout_has("/dev/pts/0");
}

fn drives_our_runtime_below_the_go_shim(generation: Generation) {
    let containerd = Containerd::start(generation);
    let runtime = programs().join("rrun");
    // By default all containerds of a machine share one.
    let root = containerd.dir.path().join("runc");
    let (runtime, root) = (runtime.to_str().expect("a path"), root.to_str().expect("a path"));
    lives(&containerd, &["--runtime", "io.containerd.runc.v2", "--runc-binary", runtime, "--runc-root", root]);
    containerd.assert_clean();
}

fn finds_its_containers_again(generation: Generation) {
    let mut containerd = Containerd::start(generation);
    containerd.run(&[OURS.as_slice(), &["-d"]].concat(), "runs", &["sleep", "1000"]).success();
    containerd.run(&[OURS.as_slice(), &["-d"]].concat(), "ended", &["sh", "-c", "exit 7"]).success();
    eventually("it ends", || containerd.state("ended").as_deref() == Some("STOPPED"));
    containerd.crash_and_restart();
    assert_eq!(containerd.state("runs").as_deref(), Some("RUNNING"));
    assert_eq!(containerd.state("ended").as_deref(), Some("STOPPED"));
    containerd.exec("runs", "e", &["sh", "-c", "echo in; exit 4"]).code(4).stdout("in\n");
    containerd.ctr(&["tasks", "rm", "ended"]).stderr_has("exit code 7");
    containerd.ctr(&["containers", "rm", "ended"]).success();
    containerd.remove("runs");
    containerd.assert_clean();
}

fn removes_what_a_killed_shim_left(generation: Generation) {
    let containerd = Containerd::start(generation);
    containerd.run(&[OURS.as_slice(), &["-d"]].concat(), "c", &["sleep", "1000"]).success();
    let shims = containerd.shims();
    assert_eq!(shims.len(), 1);
    rustix::process::kill_process(rustix::process::Pid::from_raw(shims[0]).expect("a pid"), rustix::process::Signal::KILL).expect("kill");
    eventually("the task is gone", || containerd.state("c").is_none());
    containerd.ctr(&["containers", "rm", "c"]).success();
    containerd.assert_clean();
}

fn has_one_shim_for_a_group(generation: Generation) {
    let containerd = Containerd::start(generation);
    let of = |pod: &str| [OURS.as_slice(), &["-d", "--annotation", &format!("io.kubernetes.cri.sandbox-id={pod}")]].concat().join("\n");
    for (pod, id) in [("one", "a"), ("one", "b"), ("two", "c")] {
        let flags = of(pod);
        containerd.run(&flags.split('\n').collect::<Vec<_>>(), id, &["sleep", "1000"]).success();
    }
    assert_eq!(containerd.shims().len(), 2);
    containerd.remove("a");
    // The shim, and its socket, live on with the other.
    assert_eq!(containerd.shims().len(), 2);
    containerd.exec("b", "e", &["sh", "-c", "exit 4"]).code(4);
    let flags = of("one");
    containerd.run(&flags.split('\n').collect::<Vec<_>>(), "d", &["sleep", "1000"]).success();
    assert_eq!(containerd.shims().len(), 2);
    for id in ["b", "c", "d"] {
        containerd.remove(id);
    }
    containerd.assert_clean();
}

fn gets_logs_by_file_and_by_program(generation: Generation) {
    let containerd = Containerd::start(generation);
    let path = |name: &str| containerd.dir.path().join(name);
    let program = path("logger");
    executable(&program, &format!("#!/bin/sh\nexec 5>&-\ncat <&3 >{}\n", path("by-program").display()));
    for (id, uri, log) in
        [("f", format!("file://{}", path("by-file").display()), "by-file"), ("p", format!("binary://{}", program.display()), "by-program")]
    {
        containerd.run(&[OURS.as_slice(), &["-d", "--log-uri", &uri]].concat(), id, &["echo", "told"]).success();
        eventually("the line is in the log", || std::fs::read_to_string(path(log)).is_ok_and(|text| text == "told\n"));
        eventually("it ends", || containerd.state(id).as_deref() == Some("STOPPED"));
        containerd.ctr(&["tasks", "rm", id]).success();
        containerd.ctr(&["containers", "rm", id]).success();
    }
    containerd.assert_clean();
}

fn hears_events(generation: Generation) {
    let containerd = Containerd::start(generation);
    let heard = containerd.dir.path().join("events");
    let log = std::fs::File::create(&heard).expect("file");
    let mut listener = containerd.command(&["events"]).stdout(log).spawn().expect("run ctr");
    let has = |word: &str| std::fs::read_to_string(&heard).is_ok_and(|text| text.contains(word));
    eventually("somebody listens", || {
        containerd.ctr(&["namespaces", "label", "default", "a=b"]);
        has("/namespaces/")
    });
    let hungry = "x=aaaaaaaa; while :; do x=$x$x; done";
    containerd.run(&[OURS.as_slice(), &["--rm", "--memory-limit", "8388608"]].concat(), "o", &["sh", "-c", hungry]).code(137);
    for topic in ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete"] {
        eventually(topic, || has(topic));
    }
    listener.kill().expect("kill ctr");
    listener.wait().expect("wait for ctr");
    containerd.assert_clean();
}

fn maps_users(generation: Generation) {
    let containerd = Containerd::start(generation);
    let archive = containerd.dir.path().join("busybox.tar");
    image::busybox_archive(&archive, "localhost/busybox:latest");
    containerd.ctr(&["images", "import", archive.to_str().expect("a path")]).success();
    let cgroup = format!("/{}/u", containerd.cgroup());
    let maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let command = [
        "localhost/busybox:latest",
        "u",
        "sh",
        "-c",
        "cat /proc/self/uid_map /proc/self/gid_map; touch /new && echo written >/dev/stderr; exit 5",
    ];
    let outcome = containerd.ctr(&[&["run", "--rm", "--cgroup", &cgroup], OURS.as_slice(), &maps, &command].concat()).code(5);
    let numbers: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert_eq!(numbers, ["0", "100000", "65536", "0", "200000", "65536"], "{outcome}");
    // The streams belong to the container's root.
    assert_eq!(outcome.stderr, "written\n");
    containerd.assert_clean();
}

#[test]
fn containerd_2_is_told_what_our_shim_is() {
    let containerd = Containerd::start(Generation::Two);
    let told = containerd.ctr(&["plugins", "inspect-runtime", "--runtime", OURS[1]]).success().stdout_has("\"io.containerd.rrun.v2\"");
    told.stdout_has("\"ociVersionMax\"").stdout_has("\"apparmor\"");
}

/// What containerd's own shim does not offer: a sandbox that holds namespaces for its containers, or runs a program.
#[test]
fn containerd_2_keeps_sandboxes_with_our_shim() {
    let mut containerd = Containerd::start(Generation::Two);
    let config = containerd.dir.path().join("pod.json");
    let sandbox = |containerd: &Containerd, id: &str, more: &str| {
        let cgroup = format!("/{}/{id}", containerd.cgroup());
        std::fs::write(&config, format!("{{{more}\"linux\":{{\"cgroupsPath\":\"{cgroup}\"}}}}")).expect("configuration");
        containerd.ctr(&["sandboxes", "run", "--runtime", OURS[1], config.to_str().expect("a path"), id])
    };
    sandbox(&containerd, "pod", "\"hostname\":\"pod\",").success().stdout("pod\n");
    containerd.run(&[OURS.as_slice(), &["--sandbox", "pod", "-d"]].concat(), "in", &["sleep", "1000"]).success();
    containerd
        .run(&[OURS.as_slice(), &["--sandbox", "pod", "--rm"]].concat(), "short", &["sh", "-c", "echo out; exit 5"])
        .code(5)
        .stdout("out\n");
    assert_eq!(containerd.shims().len(), 1, "the container is kept by its sandbox's shim");
    containerd.crash_and_restart();
    containerd.exec("in", "e", &["sh", "-c", "exit 4"]).code(4);
    // Its containers end with it.
    containerd.ctr(&["sandboxes", "rm", "pod"]).success();
    eventually("its container is gone", || containerd.state("in").is_none());
    containerd.ctr(&["containers", "rm", "in"]).success();
    let rootfs = containerd.dir.path().join("rootfs");
    let program = |args: &str| {
        format!("\"process\":{{\"args\":{args},\"cwd\":\"/\",\"env\":[\"PATH=/bin\"]}},\"root\":{{\"path\":\"{}\"}},", rootfs.display())
    };
    sandbox(&containerd, "runs", &program("[\"sleep\",\"1000\"]")).success();
    assert_eq!(containerd.state("runs").as_deref(), Some("RUNNING"));
    containerd.ctr(&["sandboxes", "rm", "runs"]).success();
    sandbox(&containerd, "fails", &program("[\"no-such\"]")).code(1).stderr_has("executable file not found in $PATH");
    containerd.assert_clean();
}
