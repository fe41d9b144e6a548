//! Cgroups on this very kernel. Each test has its own cgroup names and, where it wants another arrangement of hierarchies than
//! the host's, a mount namespace of its own (one per thread, so that tests run side by side).
//!
//! With `RRUN_FULL_V2=1` (the virtual machine of tests/vm) the tests insist on a pure v2 host with all controllers.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use rrun_cgroup::{Cgroup, Error, FreezerState, Host, Location, Mode, OomEvent, Plan, PlanOptions, Resources, Version};
use std::os::fd::AsFd;

const PATIENCE: Duration = Duration::from_secs(20);
const ROOT: &str = "/sys/fs/cgroup";

/// The host as this thread's mount namespace shows it.
fn host() -> Host {
    Host::from_proc(&fs::read("/proc/thread-self/mountinfo").unwrap(), &fs::read("/proc/thread-self/cgroup").unwrap())
}

/// Gives the calling thread a mount namespace of its own with the arrangement wanted; false if the kernel cannot offer it.
fn arrange(mode: Mode) -> bool {
    let now = host().mode().unwrap();
    if std::env::var_os("RRUN_FULL_V2").is_some() {
        assert_eq!(now, Mode::V2, "the virtual machine must have cgroup v2 alone");
    }
    if now == mode {
        return true;
    }
    if now == Mode::V2 {
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    match mode {
        Mode::V1 => umount2(&Path::new(ROOT).join("unified"), MntFlags::MNT_DETACH).unwrap(),
        Mode::V2 => mount(Some("none"), ROOT, Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap(),
        Mode::Hybrid => return false,
    }
    assert_eq!(host().mode().unwrap(), mode);
    true
}

/// A cgroup that is removed when the test ends, however it ends.
struct Scratch {
    location: Location,
    /// Parents that the test had made.
    top: String,
}

impl Scratch {
    fn new(name: &str) -> Scratch {
        let top = format!("/rrun-cgtest-{}-{name}", std::process::id());
        Scratch { location: host().locate(Some(&format!("{top}/c")), "id").unwrap(), top }
    }

    fn create(&self, resources: &str) -> Cgroup {
        let plan = Plan::for_create(&self.location, &parse(resources), PlanOptions::default()).unwrap();
        let cgroup = Cgroup::create(&self.location).unwrap();
        cgroup.apply(&plan).unwrap();
        cgroup
    }

    fn dirs(&self) -> Vec<PathBuf> {
        self.location.dirs.iter().map(|dir| dir.path.clone()).collect()
    }

    fn file(&self, controller: &str, file: &str) -> PathBuf {
        self.location.dir_of(controller).unwrap().path.join(file)
    }

    fn read(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.file(controller, file)).unwrap().trim().to_owned()
    }

    fn update(&self, resources: &str) -> rrun_cgroup::Result<()> {
        let plan = Plan::for_update(&self.location, &parse(resources), PlanOptions::default())?;
        Cgroup::open(&self.location)?.apply(&plan)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut parent = self.location.clone();
        for dir in &mut parent.dirs {
            dir.path = dir.mount_point.join(self.top.trim_start_matches('/'));
        }
        for location in [&self.location, &parent] {
            if let Ok(cgroup) = Cgroup::open(location) {
                cgroup.remove(PATIENCE).unwrap();
            }
        }
        parent.dirs.iter().for_each(|dir| fs::remove_dir(&dir.path).unwrap_or_default());
    }
}

fn parse(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

/// A shell that does what it is told on standard input, after it has been put into a cgroup.
struct Shell(Child);

impl Shell {
    fn in_cgroup(cgroup: &Cgroup) -> Shell {
        let child = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        cgroup.attach(pid(&child), false).unwrap();
        Shell(child)
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Runs a script and returns its exit code.
    fn finish(mut self, script: &str) -> i32 {
        self.tell(script);
        drop(self.0.stdin.take());
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

/// Whether opening a device node succeeds inside a cgroup with the rules given. The node is made here, outside of it.
fn may_open(cgroup: &Cgroup, major: u64, minor: u64, how: &str) -> bool {
    use nix::sys::stat::{Mode as Bits, SFlag, makedev, mknod};
    // The other arrangements of cgroups are tested at the same time, by threads of this process.
    let unique = format!("rrun-cgtest-{}-{:?}-{major}-{minor}-{how:?}", std::process::id(), std::thread::current().id());
    let node = std::env::temp_dir().join(unique.replace(['"', '<', '>', '(', ')'], ""));
    fs::remove_file(&node).unwrap_or_default();
    mknod(&node, SFlag::S_IFCHR, Bits::from_bits_truncate(0o666), makedev(major, minor)).unwrap();
    let code = Shell::in_cgroup(cgroup).finish(&format!("exec 3{how} {} && exit 0; exit 9", node.display()));
    fs::remove_file(&node).unwrap();
    code == 0
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        std::thread::yield_now();
    }
}

/// `T` column of /proc/<pid>/stat is no help for a frozen process: it makes no progress, which is what is looked at.
fn makes_progress(file: &Path) -> bool {
    let size = || fs::metadata(file).map_or(0, |m| m.len());
    let before = size();
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(150) {
        if size() > before {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

fn a_whole_life(mode: Mode, name: &str) {
    if !arrange(mode) {
        return;
    }
    let scratch = Scratch::new(name);
    let cgroup = scratch.create("{}");
    assert!(scratch.dirs().iter().all(|dir| dir.is_dir()));
    assert_eq!(cgroup.unified_fd().is_some(), mode != Mode::V1);
    assert!(cgroup.pids().unwrap().is_empty());

    let progress = std::env::temp_dir().join(format!("rrun-cgtest-{}-{name}", std::process::id()));
    let mut shell = Shell::in_cgroup(&cgroup);
    assert_eq!(cgroup.pids().unwrap(), [pid(&shell.0)]);
    shell.tell(&format!("while :; do echo x; done > {}", progress.display()));
    wait_until("the loop", || makes_progress(&progress));
    cgroup.freeze().unwrap();
    assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Frozen);
    assert!(!makes_progress(&progress), "frozen");
    cgroup.thaw().unwrap();
    assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Thawed);
    assert!(makes_progress(&progress), "thawed");

    // Killed while frozen: it must not stay.
    cgroup.freeze().unwrap();
    cgroup.signal_all(nix::libc::SIGKILL).unwrap();
    assert_eq!(shell.0.wait().unwrap().signal(), Some(nix::libc::SIGKILL));
    cgroup.remove(PATIENCE).unwrap();
    assert!(scratch.dirs().iter().all(|dir| !dir.exists()));
    // The name is free again.
    scratch.create("{}").remove(PATIENCE).unwrap();
    fs::remove_file(&progress).unwrap();
}

#[test]
fn a_whole_life_hybrid() {
    a_whole_life(Mode::Hybrid, "life-h");
}

#[test]
fn a_whole_life_v1() {
    a_whole_life(Mode::V1, "life-1");
}

#[test]
fn a_whole_life_v2() {
    a_whole_life(Mode::V2, "life-2");
}

fn devices(mode: Mode, name: &str) {
    if !arrange(mode) {
        return;
    }
    let scratch = Scratch::new(name);
    let kmsg_read = r#"{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}"#;
    let cgroup = scratch.create(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    assert!(may_open(&cgroup, 1, 3, "<>"), "/dev/null is for everyone");
    assert!(!may_open(&cgroup, 1, 11, "<"), "kmsg was not allowed");
    scratch.update(&format!(r#"{{"devices":[{{"allow":false,"access":"rwm"}},{kmsg_read}]}}"#)).unwrap();
    assert!(may_open(&cgroup, 1, 11, "<"), "kmsg is allowed for reading now");
    assert!(!may_open(&cgroup, 1, 11, ">"), "but not for writing");
    assert!(may_open(&cgroup, 1, 3, "<>"));
    scratch.update(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#).unwrap();
    assert!(!may_open(&cgroup, 1, 11, "<"), "taken back");
    scratch.update(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#).unwrap();
    assert!(may_open(&cgroup, 1, 11, "<>"), "everything allowed");
}

#[test]
fn devices_hybrid() {
    devices(Mode::Hybrid, "dev-h");
}

#[test]
fn devices_v2() {
    devices(Mode::V2, "dev-2");
}

/// What a container leaves: cgroups in cgroups, and processes that fork while they are being killed.
fn removal(mode: Mode, name: &str) {
    if !arrange(mode) {
        return;
    }
    let scratch = Scratch::new(name);
    let cgroup = scratch.create("{}");
    let mut shells = Vec::new();
    for depth in ["a", "a/b", "a/b/c d"] {
        for dir in scratch.dirs().iter().filter(|dir| !dir.starts_with("/sys/fs/cgroup/cpuset")) {
            fs::create_dir(dir.join(depth)).unwrap();
        }
        let mut shell = Shell::in_cgroup(&cgroup);
        shell.tell("while :; do sh -c 'sh -c : & :' & wait; done");
        for dir in scratch.dirs().iter().filter(|dir| !dir.starts_with("/sys/fs/cgroup/cpuset")) {
            fs::write(dir.join(depth).join("cgroup.procs"), shell.0.id().to_string()).unwrap();
        }
        shells.push(shell);
    }
    cgroup.remove(PATIENCE).unwrap();
    assert!(scratch.dirs().iter().all(|dir| !dir.exists()));
    for shell in &mut shells {
        assert_eq!(shell.0.wait().unwrap().signal(), Some(nix::libc::SIGKILL));
    }
}

#[test]
fn removal_hybrid() {
    removal(Mode::Hybrid, "rm-h");
}

#[test]
fn removal_v1() {
    removal(Mode::V1, "rm-1");
}

#[test]
fn removal_v2() {
    removal(Mode::V2, "rm-2");
}

#[test]
fn a_cgroup_that_is_gone_can_be_removed_again() {
    let scratch = Scratch::new("gone");
    let first = scratch.create("{}");
    let second = Cgroup::open(&scratch.location).unwrap();
    first.remove(PATIENCE).unwrap();
    assert!(second.pids().unwrap().is_empty());
    // A kill that meets the container's removal: there is nobody left to thaw or to signal.
    assert_eq!(second.freezer_state().unwrap(), FreezerState::Thawed);
    second.thaw().unwrap();
    second.signal_all(nix::libc::SIGTERM).unwrap();
    second.signal_all(nix::libc::SIGKILL).unwrap();
    second.remove(PATIENCE).unwrap();
    Cgroup::open(&scratch.location).unwrap().remove(PATIENCE).unwrap();
    assert!(scratch.update(r#"{"pids":{"limit":5},"devices":[{"allow":false}]}"#).is_err());
}

#[test]
fn a_failed_create_leaves_nothing() {
    let scratch = Scratch::new("undo");
    let mut broken = scratch.location.clone();
    let last = broken.dirs.last_mut().unwrap();
    last.path = PathBuf::from("/proc/rrun-cannot-be-made/x");
    last.mount_point = PathBuf::from("/proc");
    let e = Cgroup::create(&broken).unwrap_err().to_string();
    assert!(e.starts_with("cgroup: make /proc/rrun-cannot-be-made"), "{e}");
    for dir in scratch.dirs() {
        assert!(!dir.exists() && !dir.parent().unwrap().exists(), "{} was left", dir.display());
    }
}

#[test]
fn a_cgroup_in_use_is_not_taken_over() {
    let scratch = Scratch::new("used");
    let cgroup = scratch.create("{}");
    let _shell = Shell::in_cgroup(&cgroup);
    let e = Cgroup::create(&scratch.location).unwrap_err().to_string();
    assert!(e.contains("cgroup is not empty: 1 process(es)"), "{e}");
    assert_eq!(cgroup.pids().unwrap().len(), 1);
}

#[test]
fn signals_reach_every_process() {
    let scratch = Scratch::new("sig");
    let cgroup = scratch.create("{}");
    let marks: Vec<PathBuf> = (0..3).map(|n| std::env::temp_dir().join(format!("rrun-cgtest-{}-sig-{n}", std::process::id()))).collect();
    let mut shells: Vec<Shell> = marks
        .iter()
        .map(|mark| {
            let mut shell = Shell::in_cgroup(&cgroup);
            shell.tell(&format!("trap 'exit 42' USR1; : > {}; while :; do sleep 0.01; done", mark.display()));
            shell
        })
        .collect();
    wait_until("the traps", || marks.iter().all(|mark| mark.exists()));
    cgroup.signal_all(nix::libc::SIGUSR1).unwrap();
    for shell in &mut shells {
        assert_eq!(shell.0.wait().unwrap().code(), Some(42));
    }
    marks.iter().for_each(|mark| fs::remove_file(mark).unwrap());
}

#[test]
fn limits_are_written_and_changed_in_any_order() {
    let scratch = Scratch::new("limits");
    let v1 = scratch.location.dir_of("memory").unwrap().version == Version::V1;
    let cgroup = scratch.create(
        r#"{"memory":{"limit":67108864,"swap":134217728},"cpu":{"shares":512,"quota":150000,"period":100000,"cpus":"0"},"pids":{"limit":64}}"#,
    );
    assert_eq!(scratch.read("pids", "pids.max"), "64");
    assert_eq!(scratch.read("cpuset", "cpuset.cpus"), "0");
    let (memory, cpu) = if v1 { ("memory.limit_in_bytes", "cpu.cfs_quota_us") } else { ("memory.max", "cpu.max") };
    assert_eq!(scratch.read("memory", memory), "67108864");
    assert_eq!(scratch.read("cpu", cpu), if v1 { "150000" } else { "150000 100000" });
    if !v1 {
        assert_eq!(scratch.read("memory", "memory.swap.max"), "67108864");
        assert_eq!(scratch.read("cpu", "cpu.weight"), "59");
    }
    // Above the old memory+swap limit, then below: on v1 either order of the two writes fails for one of them.
    for (limit, swap) in [(268_435_456u64, 536_870_912u64), (33_554_432, 33_554_432)] {
        scratch.update(&format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#)).unwrap();
        assert_eq!(scratch.read("memory", memory), limit.to_string());
    }
    scratch.update(r#"{"cpu":{"period":50000}}"#).unwrap();
    assert_eq!(scratch.read("cpu", cpu), if v1 { "150000" } else { "150000 50000" });
    scratch.update(r#"{"memory":{"limit":-1},"cpu":{"quota":-1},"pids":{"limit":-1}}"#).unwrap();
    assert_eq!(scratch.read("pids", "pids.max"), "max");
    let stats = cgroup.stats().unwrap();
    assert_eq!(stats.cpuset.cpus, [0]);
    assert_eq!(stats.pids.limit, 0);
}

#[test]
fn stats_count() {
    let scratch = Scratch::new("stats");
    let cgroup = scratch.create(r#"{"pids":{"limit":10},"memory":{"limit":67108864}}"#);
    let code = Shell::in_cgroup(&cgroup).finish("n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; exit 4");
    assert_eq!(code, 4);
    // What a process has touched before it came stays where it was: it must take memory here.
    let mut greedy = Shell::in_cgroup(&cgroup);
    let mark = std::env::temp_dir().join(format!("rrun-cgtest-{}-stats", std::process::id()));
    greedy.tell(&format!("x=xxxxxxxxxxxxxxxx; while [ ${{#x}} -lt 2000000 ]; do x=$x$x; done; : > {}", mark.display()));
    wait_until("the memory", || mark.exists());
    fs::remove_file(&mark).unwrap();
    let stats = cgroup.stats().unwrap();
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 10));
    assert_eq!(stats.memory.usage.limit, 67_108_864);
    assert!(stats.memory.usage.usage > 1_000_000, "{:?}", stats.memory.usage);
    assert!(stats.cpu.usage.total > 0 && !stats.memory.raw.is_empty());
}

#[test]
fn an_oom_kill_is_told() {
    let scratch = Scratch::new("oom");
    let cgroup = scratch.create(r#"{"memory":{"limit":16777216,"swap":16777216}}"#);
    let mut watch = cgroup.oom_watch().unwrap();
    assert_eq!(watch.read().unwrap(), OomEvent::Nothing);
    let mut shell = Shell::in_cgroup(&cgroup);
    shell.tell("x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done");
    let timeout = PollTimeout::try_from(PATIENCE).unwrap();
    // Read at once: v1 wakes before it has counted the kill, and not again.
    loop {
        assert_ne!(poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], timeout).unwrap(), 0, "no event");
        match watch.read().unwrap() {
            OomEvent::Killed(n) => break assert!(n >= 1),
            OomEvent::Nothing => {}
            OomEvent::Gone => panic!("the cgroup is still there"),
        }
    }
    assert_eq!(shell.0.wait().unwrap().signal(), Some(nix::libc::SIGKILL));
    cgroup.remove(PATIENCE).unwrap();
    assert_eq!(watch.read().unwrap(), OomEvent::Gone);
}

#[test]
fn a_limit_whose_controller_is_missing_says_so() {
    if std::env::var_os("RRUN_FULL_V2").is_some() || !arrange(Mode::V2) {
        return;
    }
    let scratch = Scratch::new("missing");
    let _cgroup = scratch.create("{}");
    let e = scratch.update(r#"{"memory":{"limit":67108864}}"#).unwrap_err();
    assert!(matches!(e, Error::MissingController { controller: "memory", .. }), "{e}");
}

#[test]
fn exec_finds_a_place_below_when_the_top_hands_controllers_down() {
    if !arrange(Mode::V2) {
        return;
    }
    let scratch = Scratch::new("exec");
    let cgroup = scratch.create("{}");
    let top = &scratch.dirs()[0];
    let controllers = fs::read_to_string(top.join("cgroup.controllers")).unwrap();
    let Some(first) = controllers.split_whitespace().next() else { panic!("no controller is handed down to {}", top.display()) };
    fs::create_dir(top.join("init.scope")).unwrap();
    let shell = Shell::in_cgroup(&cgroup);
    fs::write(top.join("init.scope/cgroup.procs"), shell.0.id().to_string()).unwrap();
    assert_eq!(Cgroup::for_exec(&scratch.location, pid(&shell.0), &[]).unwrap().location(), &scratch.location);
    fs::write(top.join("cgroup.subtree_control"), format!("+{first}")).unwrap();
    let theirs = if std::env::var_os("RRUN_FULL_V2").is_some() {
        Cgroup::for_exec(&scratch.location, pid(&shell.0), &[]).unwrap().location().clone()
    } else {
        // In a thread's own mount namespace /proc/self shows the main thread's mounts: only the asked-for path can be tried.
        Cgroup::for_exec(&scratch.location, pid(&shell.0), &["/init.scope".to_string()]).unwrap().location().clone()
    };
    assert_eq!(theirs.unified().unwrap().path, top.join("init.scope"));
    assert!(Cgroup::for_exec(&scratch.location, pid(&shell.0), &["../x".to_string()]).is_err());
}
