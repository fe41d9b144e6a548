//! What people do on their first day.

use rcontainerd_tests::TestHost;

#[test]
fn a_container_runs_and_leaves_nothing() {
    let host = TestHost::with_busybox();
    host.rdocker(["run", "--rm", "--network", "none", "busybox", "echo", "hi"]).success().stdout("hi\n");
    host.rdocker(["run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"])
        .code(7)
        .stdout("out\n")
        .stderr_has("err\n");
    assert_eq!(host.rdocker(["ps", "-aq"]).success().stdout, "");
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn the_shipped_image_greets_without_a_registry() {
    let host = TestHost::start();
    host.rdocker(["run", "--rm", "--network", "none", "rcontainerd/hello"]).success().stdout_has("Hello from rcontainerd!");
}

#[test]
fn detached_logs_exec_stop_and_remove() {
    let host = TestHost::with_busybox();
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let id = host.rdocker(["run", "-d", "--network", "none", "--name", "worker", "busybox", "sh", "-c", script]).success().word();
    assert_eq!(id.len(), 64, "{id}");
    host.eventually("the container says it is ready", || host.rdocker(["logs", "worker"]).stdout == "ready\n");
    host.rdocker(["exec", "-e", "A=b", "-w", "/tmp", "worker", "sh", "-c", "echo $A; pwd; exit 4"]).code(4).stdout("b\n/tmp\n");
    host.rdocker(["ps", "--format", "{{.Names}} {{.Image}}"]).success().stdout("worker busybox\n");
    host.rdocker(["rm", "worker"]).code(1).stderr_has("container is running");
    host.rdocker(["stop", "worker"]).success().stdout("worker\n");
    host.rdocker(["logs", "worker"]).success().stdout("ready\nbye\n");
    host.rdocker(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "worker"]).success().stdout("exited 3\n");
    host.rdocker(["start", "worker"]).success();
    host.rdocker(["kill", "worker"]).success();
    host.rdocker(["wait", "worker"]).success().stdout("137\n");
    host.rdocker(["rm", "worker"]).success().stdout("worker\n");
    host.rdocker(["inspect", "worker"]).code(1);
}

#[test]
fn input_flows_in_and_ends() {
    use std::io::Write;
    let host = TestHost::with_busybox();
    let mut child = host.spawn(["run", "-i", "--rm", "--network", "none", "busybox", "cat"]);
    child.stdin.take().expect("piped").write_all(&b"x".repeat(100_000)).expect("write");
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 100_000);
}

#[test]
fn options_reach_the_container() {
    let host = TestHost::with_busybox();
    let run = |options: &[&str], script: &str| {
        let args =
            ["run", "--rm", "--network", "none"].iter().chain(options).chain(&["busybox", "sh", "-c", script]).copied().collect::<Vec<_>>();
        host.rdocker(args).success().stdout
    };
    assert_eq!(run(&["--hostname", "box"], "hostname"), "box\n");
    assert_eq!(run(&["-u", "1000:1000"], "id -u; id -g"), "1000\n1000\n");
    assert_eq!(run(&["--read-only"], "touch /x 2>/dev/null || echo refused"), "refused\n");
    assert_eq!(run(&["--cap-drop", "ALL"], "grep CapEff /proc/self/status | cut -f2"), "0000000000000000\n");
    assert_eq!(run(&["--ulimit", "nofile=100:200"], "ulimit -n"), "100\n");
    assert_eq!(run(&["--tmpfs", "/scratch:size=1m"], "grep ' /scratch ' /proc/mounts | cut -d' ' -f3"), "tmpfs\n");
    assert_eq!(run(&["--pids-limit", "20"], "true"), "");
    assert_eq!(run(&["-m", "64m", "--cpus", "0.5"], "true"), "");
    assert_eq!(run(&[], "grep Seccomp: /proc/self/status | cut -f2"), "2\n");
    assert_eq!(run(&["--init"], "cat /proc/1/comm"), "docker-init\n");
}

#[test]
fn volumes_keep_data_and_binds_are_live() {
    let host = TestHost::with_busybox();
    let dir = host.path().join("shared");
    std::fs::create_dir(&dir).expect("make a directory");
    let bind = format!("{}:/x", dir.display());
    host.rdocker([
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        &bind,
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        "echo a >/x/f; echo b >/data/f",
    ])
    .success();
    assert_eq!(std::fs::read_to_string(dir.join("f")).expect("read"), "a\n");
    host.rdocker(["run", "--rm", "--network", "none", "-v", "data:/data:ro", "busybox", "cat", "/data/f"]).success().stdout("b\n");
    host.rdocker(["volume", "ls", "-q"]).success().stdout("data\n");
    host.rdocker(["volume", "rm", "data"]).success().stdout("data\n");
}

#[test]
fn images_are_listed_tagged_and_removed() {
    let host = TestHost::with_busybox();
    host.rdocker(["tag", "busybox", "other:1"]).success();
    host.rdocker(["images", "other", "--format", "{{.Repository}}:{{.Tag}}"]).success().stdout("other:1\n");
    host.rdocker(["rmi", "other:1"]).success().stdout("Untagged: other:1\n");
    host.rdocker(["create", "--name", "user", "busybox"]).success();
    host.rdocker(["rmi", "busybox"]).code(1).stderr_has("conflict: unable to remove repository reference \"busybox\" (must force)");
    host.rdocker(["rm", "user"]).success();
    host.rdocker(["rmi", "busybox"]).success().stdout_has("Untagged: busybox:latest\nDeleted: sha256:");
}
