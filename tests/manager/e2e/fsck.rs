//! `rcontainerd fsck`: through the manager that runs, and without one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcontainerd_tests::{Registry, TestHost, image};

/// An id that no container has.
const NOBODY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn what_works_is_clean_with_and_without_a_manager() {
    let mut host = TestHost::with_busybox();
    host.rdocker(["network", "create", "mine"]).success();
    host.rdocker(["run", "-d", "--name", "up", "--network", "mine", "-v", "data:/data", "-p", "8080:80", "busybox", "sleep", "1000"])
        .success();
    host.rdocker(["run", "--name", "over", "--ipc", "shareable", "-v", "/anonymous", "busybox", "true"]).success();
    host.fsck(&[]).success().stdout("clean\n");
    host.stop_manager();
    host.fsck(&[]).success().stdout("clean\n");
    host.start_manager();
    host.rdocker(["rm", "-f", "up", "over"]).success();
    host.fsck(&["--json"]).success().stdout_has("\"clean\": true");
}

/// Leaves in every place where the engine puts things something that nobody owns; gives what `fsck` calls each.
fn litter(host: &TestHost) -> Vec<String> {
    let (root, state) = (host.root(), host.state());
    let files = root.join("containers").join(NOBODY);
    let run_files = state.join("c").join(&NOBODY[..32]);
    let bundle = state.join("tasks/moby").join(NOBODY);
    let stray = root.join("snapshots/stray");
    for dir in [files.join("below"), run_files.join("shm"), bundle.join("rootfs"), stray.clone()] {
        std::fs::create_dir_all(dir).expect("make a directory");
    }
    for place in [run_files.join("shm"), stray.clone()] {
        assert!(Command::new("mount").args(["-t", "tmpfs", "litter"]).arg(place).status().expect("mount").success());
    }
    let namespace = state.join("netns").join(NOBODY);
    std::fs::create_dir_all(state.join("netns")).expect("make a directory");
    std::fs::write(&namespace, "").expect("write a file");
    assert!(host.command("mount").args(["--bind", "/proc/self/ns/net"]).arg(&namespace).status().expect("mount").success());
    let volume = root.join("volumes/found/_data");
    std::fs::create_dir_all(&volume).expect("make a directory");
    std::fs::write(volume.join("precious"), "data").expect("write a file");
    vec![
        format!("directory {}", files.display()),
        format!("run files {}", run_files.display()),
        format!("task {}", bundle.display()),
        format!("mount {}", stray.display()),
        format!("network namespace {}", namespace.display()),
        "volume found: its data has no record".to_owned(),
    ]
}

/// A process in a cgroup of nobody's container.
fn squatter(host: &TestHost) -> (PathBuf, std::process::Child) {
    let parent = host.path().file_name().expect("a name");
    let cgroup = freezer().join(parent).join(NOBODY);
    std::fs::create_dir_all(&cgroup).expect("make a cgroup");
    let script = "echo $$ >\"$0\"/cgroup.procs && exec sleep 1000";
    let child = Command::new("sh").args(["-c", script]).arg(&cgroup).stdin(Stdio::null()).spawn().expect("start a process");
    let inside = || std::fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty());
    host.eventually("the process is in the cgroup", inside);
    (cgroup, child)
}

/// The hierarchy that containers are killed by.
fn freezer() -> PathBuf {
    let v1 = PathBuf::from("/sys/fs/cgroup/freezer");
    if v1.is_dir() { v1 } else { "/sys/fs/cgroup".into() }
}

#[test]
fn what_nobody_owns_is_found_and_removed_and_what_is_used_is_not() {
    let host = TestHost::with_busybox();
    host.rdocker(["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).success();
    let mut told = litter(&host);
    let (cgroup, mut child) = squatter(&host);
    told.push("no running container owns it; processes in it: 1;".to_owned());
    let found = host.fsck(&["--quick"]).code(1);
    for line in &told {
        assert!(found.stdout.contains(line.as_str()), "{line:?} is missing: {found}");
    }
    assert_eq!(found.stdout.lines().count(), told.len() + 1, "and nothing else: {found}");
    assert!(cgroup.exists(), "looking changes nothing");
    host.fsck(&["--quick", "--repair"]).success().stdout_has(&format!("clean now: {} repaired", told.len()));
    assert!(!child.wait().expect("the process ended").success());
    assert!(!cgroup.exists());
    host.fsck(&[]).success().stdout("clean\n");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    assert!(!mounts.contains(&host.root().join("snapshots/stray").display().to_string()));
    host.rdocker(["exec", "up", "true"]).success();
    host.rdocker(["run", "--rm", "-v", "found:/found", "busybox", "cat", "/found/precious"]).success().stdout("data");
    host.rdocker(["rm", "-f", "up"]).success();
}

#[test]
fn without_a_manager_the_same_is_found_but_tasks_are_left_to_it() {
    let mut host = TestHost::with_busybox();
    host.stop_manager();
    let told = litter(&host);
    let found = host.fsck(&[]).code(1);
    assert!(told.iter().all(|line| found.stdout.contains(line.as_str())), "{found}");
    host.fsck(&["--repair"]).code(1).stdout_has("start rcontainerd, which ends it").stdout_has("1 left");
    host.start_manager();
    host.fsck(&[]).success().stdout("clean\n");
}

/// The one file of a repository's image whose bytes are wrong from now on, of the same size.
fn rot(root: &Path) -> PathBuf {
    let blobs = std::fs::read_dir(root.join("content/blobs/sha256")).expect("read the blobs");
    let largest = blobs.map(|blob| blob.expect("an entry").path()).max_by_key(|path| path.metadata().expect("stat").len());
    let path = largest.expect("a blob");
    let mut bytes = std::fs::read(&path).expect("read a blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).expect("remove a blob");
    std::fs::write(&path, bytes).expect("write a blob");
    path
}

#[test]
fn a_damaged_blob_alone_is_fetched_again() {
    let host = TestHost::start();
    let registry = Registry::start(&host);
    let archive = host.path().join("image.tar");
    image::busybox_archive(&archive, "busybox:latest");
    registry.push(&host, &archive, "busybox:1", "oci");
    let name = format!("{}/busybox:1", registry.address);
    host.rdocker(["pull", &name]).success();
    let damaged = rot(&host.root());
    host.fsck(&["--quick"]).success().stdout("clean\n");
    host.fsck(&[]).code(1).stdout_has("its bytes have digest");
    host.fsck(&["--repair", "--refetch"]).success().stdout_has(&format!("image {name}: parts of it were lost or damaged"));
    host.fsck(&[]).success().stdout("clean\n");
    assert!(damaged.exists());
    host.rdocker(["run", "--rm", "--network", "none", &name, "true"]).success();
    host.rdocker(["save", "-o", host.path().join("saved.tar").to_str().expect("a path"), &name]).success();
    // An image that came by no registry cannot be fetched, and that is what remains to be told.
    host.rdocker(["load", "-i", archive.to_str().expect("a path")]).success();
    host.rdocker(["rmi", &name]).success();
    rot(&host.root());
    host.fsck(&["--repair", "--refetch"]).code(1).stdout_has("its lost parts cannot be fetched").stdout_has("pull or load it again");
    host.rdocker(["load", "-i", archive.to_str().expect("a path")]).success();
    host.fsck(&[]).success().stdout("clean\n");
}

#[test]
fn containers_that_come_and_go_are_never_taken_for_rubbish() {
    let host = TestHost::with_busybox();
    std::thread::scope(|scope| {
        let churn = |name: &'static str| {
            let host = &host;
            scope.spawn(move || {
                for _ in 0..12 {
                    host.rdocker(["run", "--rm", "--name", name, "-v", "/anonymous", "busybox", "true"]).success();
                    host.rdocker(["run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "1000"]).success();
                    host.rdocker(["rm", "-f", name]).success();
                }
            })
        };
        let workers = [churn("one"), churn("two")];
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            host.fsck(&["--quick", "--repair"]).success().stdout("clean\n");
        }
    });
}

#[test]
fn a_manager_that_was_killed_is_followed_by_a_check() {
    let mut host = TestHost::with_busybox();
    host.stop_manager();
    host.start_manager();
    host.rdocker(["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).success();
    assert!(!host.log().contains("quick check"), "an orderly end needs none");
    host.kill_manager();
    host.start_manager();
    host.eventually("the check", || host.log().contains("a quick check found nothing wrong"));
    host.kill_manager();
    litter(&host);
    host.start_manager();
    host.eventually("the check", || host.log().contains("fsck: its data has no record"));
    host.fsck(&["--repair"]).success();
    host.rdocker(["rm", "-f", "up"]).success();
}

#[test]
fn bad_words_are_one_line() {
    let host = TestHost::start();
    host.fsck(&["--refetch"]).code(1).stderr_has("--refetch fetches what --repair drops: give both");
    let nowhere = host.path().join("nowhere");
    let args = ["--root", nowhere.to_str().expect("a path"), "fsck"];
    host.run(&rcontainerd_tests::host::programs().join("rcontainerd"), args).code(1).stderr_has("nothing to check");
    assert!(!nowhere.exists());
}
