//! Debian's `ctr` (1.6), unmodified, for real work.

use std::io::{BufRead, BufReader};

use rcontainerd_tests::Outcome;

use crate::support::CtrHost;

#[test]
fn images_are_pulled_listed_checked_tagged_exported_and_removed() {
    let host = CtrHost::with_image("");
    let image = host.image();
    host.ctr(&["images", "ls"]).success().stdout_has(&image);
    host.ctr(&["images", "check"]).success().stdout_has("complete (2/2)");
    host.ctr(&["images", "check"]).success().stdout_has("true");
    host.ctr(&["images", "ls", "-q", "name~=^127.*busybox"]).success().stdout(&format!("{image}\n"));
    host.ctr(&["images", "tag", &image, "example.org/copy:1"]).success();
    let archive = host.host.path().join("out.tar");
    let archive = archive.to_str().expect("a path");
    host.ctr(&["images", "export", archive, "example.org/copy:1"]).success();
    host.ctr(&["images", "rm", "--sync", "example.org/copy:1"]).success();
    host.ctr(&["-n", "other", "images", "import", archive]).success().stdout_has("example.org/copy:1");
    host.ctr(&["-n", "other", "images", "ls", "-q"]).success().stdout("example.org/copy:1\n");
    host.ctr(&["-n", "other", "run", "--rm", "--cgroup", &host.cgroup("i"), "example.org/copy:1", "i", "echo", "imported"])
        .success()
        .stdout("imported\n");
    host.ctr(&["images", "rm", &image]).success();
    host.ctr(&["images", "ls", "-q"]).success().stdout("");
    host.ctr(&["images", "rm", &image]).success().stderr_has("image not found");
    host.assert_clean();
}

#[test]
fn a_container_runs_to_its_end_and_its_exit_code_comes_back() {
    let host = CtrHost::with_image("");
    let outcome = host.run(&["--rm"], "a", &["sh", "-c", "echo out; echo err >&2; exit 3"]).code(3).stdout("out\n");
    assert!(outcome.stderr.contains("err\n"), "{outcome}");
    host.run(&["--rm"], "b", &["no-such"]).code(1).stderr_has("executable file not found in $PATH");
    host.run(&["--rm", "--net-host"], "c", &["cat", "/proc/net/dev"]).success().stdout_has("lo:");
    let mounted = format!("type=bind,src={},dst=/mnt,options=rbind:ro", host.host.path().display());
    host.run(&["--rm", "--mount", &mounted, "--env", "A=b", "--cwd", "/mnt"], "d", &["sh", "-c", "pwd; echo $A; touch x"])
        .code(1)
        .stdout("/mnt\nb\n");
    host.ctr(&["containers", "ls", "-q"]).success().stdout("");
    host.ctr(&["snapshots", "ls"]).success();
    host.assert_clean();
}

/// What `ctr snapshots diff` asks of the diff service is what a client that commits a container does.
#[test]
fn what_a_container_changed_is_a_layer() {
    let host = CtrHost::with_image("");
    host.run(&[], "changed", &["sh", "-c", "echo new >/new; mkdir /dir; rm /bin/ls"]).success();
    let socket = host.socket();
    let layer = |form: &str, unpack: &str| {
        let ctr = format!("ctr -a {} snapshots diff --media-type application/vnd.oci.image.layer.v1.tar{form} changed", socket.display());
        let script = format!("set -o pipefail; {ctr} | {unpack} tar -t | sort");
        let output = host.host.command("bash").args(["-c", &script]).output().expect("run bash");
        Outcome::new(script, &output).success().stdout
    };
    let packed = layer("+gzip", "gzip -d |");
    for member in ["new", "dir/", "bin/.wh.ls"] {
        assert!(packed.lines().any(|line| line == member), "{member} is not in {packed}");
    }
    assert!(!packed.lines().any(|line| line.starts_with("etc/")), "unchanged, yet in the layer: {packed}");
    assert_eq!(layer("", ""), packed);
    host.remove("changed");
    host.assert_clean();
}

#[test]
fn a_terminal_is_one() {
    let host = CtrHost::with_image("");
    let command =
        format!("ctr -a {} run --rm -t --cgroup {} {} t sh -c 'tty; stty size'", host.socket().display(), host.cgroup("t"), host.image());
    let output = host.host.command("script").args(["-qec", &command, "/dev/null"]).output().expect("run script");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("/dev/pts/0") && output.status.success(), "{text}");
    host.assert_clean();
}

#[test]
fn a_detached_container_is_looked_at_execd_into_paused_updated_and_removed() {
    let host = CtrHost::with_image("");
    host.run(&["-d"], "c", &["sleep", "1000"]).success();
    assert_eq!(host.state("c").as_deref(), Some("RUNNING"));
    host.run(&["-d"], "c", &["true"]).code(1).stderr_has("already exists");
    host.ctr(&["tasks", "exec", "--exec-id", "e", "c", "sh", "-c", "echo in; exit 4"]).code(4).stdout("in\n");
    host.ctr(&["tasks", "exec", "--exec-id", "f", "c", "no-such"]).code(1).stderr_has("executable file not found in $PATH");
    host.ctr(&["tasks", "ps", "c"]).success().stdout_has("PID");
    host.ctr(&["tasks", "metrics", "c"]).success().stdout_has("pids.current");
    host.ctr(&["containers", "info", "c"]).success().stdout_has("\"sleep\"").stdout_has("io.containerd.runc.v2");
    host.ctr(&["tasks", "pause", "c"]).success();
    assert_eq!(host.state("c").as_deref(), Some("PAUSED"));
    host.ctr(&["tasks", "resume", "c"]).success();
    host.ctr(&["tasks", "rm", "c"]).code(1);
    host.ctr(&["tasks", "kill", "-s", "KILL", "c"]).success();
    host.host.eventually("the task is stopped", || host.state("c").as_deref() == Some("STOPPED"));
    host.ctr(&["tasks", "rm", "c"]).success().stderr_has("exit code 137");
    host.ctr(&["tasks", "start", "-d", "c"]).success();
    assert_eq!(host.state("c").as_deref(), Some("RUNNING"), "a container has one task after the other");
    host.remove("c");
    host.assert_clean();
}

#[test]
fn what_happens_is_told() {
    let host = CtrHost::with_image("");
    let mut events = host.spawn_ctr(&["events"]);
    let lines = BufReader::new(events.stdout.take().expect("piped")).lines().map(|line| line.expect("a line"));
    // Once something of ours arrives, the subscription holds.
    let mut number = 0;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
    host.host.eventually("the subscription holds", || {
        number += 1;
        host.ctr(&["namespaces", "create", &format!("n{number}")]).success();
        receiver.recv_timeout(std::time::Duration::from_millis(100)).is_ok()
    });
    host.run(&["--rm"], "e", &["true"]).success();
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.contains("/containers/delete")) {
        seen.push(receiver.recv_timeout(std::time::Duration::from_secs(30)).unwrap_or_else(|_| panic!("no further event after {seen:#?}")));
    }
    for topic in ["/snapshot/prepare", "/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"] {
        assert!(seen.iter().any(|line| line.contains(topic)), "{topic} is missing in {seen:#?}");
    }
    drop(events.kill());
    drop(events.wait());
    host.assert_clean();
}

#[test]
fn a_shim_that_dies_takes_its_task_with_it() {
    let host = CtrHost::with_image("");
    host.run(&["-d"], "dies", &["sleep", "1000"]).success();
    let shim = rcontainerd_tests::leftovers::processes(&host.host.path().display().to_string())
        .into_iter()
        .find(|(_, line)| line.contains("containerd-shim-rrun-v2") && line.contains("dies"))
        .expect("its shim");
    let pid = rustix::process::Pid::from_raw(shim.0).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    host.host.eventually("the task is gone", || host.state("dies").is_none());
    host.ctr(&["containers", "rm", "dies"]).success();
    host.assert_clean();
}

#[test]
fn tasks_outlive_the_manager() {
    let mut host = CtrHost::with_image("");
    host.run(&["-d"], "c", &["sleep", "1000"]).success();
    host.host.kill_manager();
    host.host.start_manager();
    assert_eq!(host.state("c").as_deref(), Some("RUNNING"));
    host.ctr(&["tasks", "exec", "--exec-id", "e", "c", "echo", "still"]).success().stdout("still\n");
    host.remove("c");
    host.assert_clean();
}

#[test]
fn dockers_containers_are_seen_and_kept() {
    let host = CtrHost::start("");
    let archive = host.host.path().join("busybox.tar");
    host.host.rdocker(["load", "-i", archive.to_str().expect("a path")]).success();
    let id = host.host.rdocker(["run", "-d", "--network", "none", "busybox", "sleep", "1000"]).success().word();
    host.ctr(&["-n", "moby", "tasks", "ls"]).success().stdout_has(&id).stdout_has("RUNNING");
    host.ctr(&["-n", "moby", "containers", "ls"]).success().stdout_has(&id);
    host.ctr(&["-n", "moby", "tasks", "rm", "-f", &id]).code(1);
    host.ctr(&["-n", "moby", "containers", "rm", &id]).code(1);
    host.host.rdocker(["rm", "-f", &id]).success();
}
