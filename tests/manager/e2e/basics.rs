//! What people do on their first day.

use rcontainerd_tests::{Client, TestHost, each_client};

each_client!(
    a_container_runs_and_leaves_nothing,
    the_shipped_image_greets_without_a_registry,
    detached_logs_exec_stop_and_remove,
    records_carry_what_of_the_container_is_wanted,
    input_flows_in_and_ends,
    options_reach_the_container,
    volumes_keep_data_and_binds_are_live,
    images_are_listed_tagged_and_removed
);

fn a_container_runs_and_leaves_nothing(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    host.docker(["run", "--rm", "--network", "none", "busybox", "echo", "hi"]).success().stdout("hi\n");
    host.docker(["run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"])
        .code(7)
        .stdout("out\n")
        .stderr_has("err\n");
    assert_eq!(host.docker(["ps", "-aq"]).success().stdout, "");
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

fn the_shipped_image_greets_without_a_registry(client: Client) {
    let host = TestHost::start().with_client(client);
    host.docker(["run", "--rm", "--network", "none", "rcontainerd/hello"]).success().stdout_has("Hello from rcontainerd!");
}

fn detached_logs_exec_stop_and_remove(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let id = host.docker(["run", "-d", "--network", "none", "--name", "worker", "busybox", "sh", "-c", script]).success().word();
    assert_eq!(id.len(), 64, "{id}");
    host.eventually("the container says it is ready", || host.docker(["logs", "worker"]).stdout == "ready\n");
    host.docker(["exec", "-e", "A=b", "-w", "/tmp", "worker", "sh", "-c", "echo $A; pwd; exit 4"]).code(4).stdout("b\n/tmp\n");
    host.docker(["ps", "--format", "{{.Names}} {{.Image}}"]).success().stdout("worker busybox\n");
    host.docker(["rm", "worker"]).code(1).stderr_has("container is running");
    host.docker(["stop", "worker"]).success().stdout("worker\n");
    host.docker(["logs", "worker"]).success().stdout("ready\nbye\n");
    host.docker(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "worker"]).success().stdout("exited 3\n");
    host.docker(["start", "worker"]).success();
    host.docker(["kill", "worker"]).success();
    host.docker(["wait", "worker"]).success().stdout("137\n");
    host.docker(["rm", "worker"]).success().stdout("worker\n");
    host.docker(["inspect", "worker"]).code(1);
}

fn records_carry_what_of_the_container_is_wanted(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let words = "run --name told --network none -l a=1 -l b.c=x=&y -l b.d=2 -l other=3 -e WHO=me -e WHERE=here --log-opt labels=a,absent \
                 --log-opt labels-regex=^b --log-opt env=WHO --log-opt tag={{.Name}}/{{.ImageName}}/{{.ID}} busybox echo hi";
    host.docker(words.split_whitespace()).success().stdout("hi\n");
    let id = host.docker(["ps", "-aq"]).success().word();
    let attributes = format!("WHO=me,a=1,b.c=x%3D%26y,b.d=2,tag=told%2Fbusybox%2F{id}");
    host.docker(["logs", "--details", "told"]).success().stdout(&format!("{attributes} hi\n"));
    host.docker(["logs", "told"]).success().stdout("hi\n");
    let path = host.docker(["inspect", "-f", "{{.LogPath}}", "told"]).success().word();
    let record = std::fs::read_to_string(path).expect("read the log");
    let start = format!(
        r#"{{"log":"hi\n","stream":"stdout","attrs":{{"WHO":"me","a":"1","b.c":"x=&y","b.d":"2","tag":"told/busybox/{id}"}},"time":""#
    );
    assert!(record.starts_with(&start), "{record}");
    let refused = |option: &str, message: &str| {
        host.docker(["run", "--rm", "--log-opt", option, "busybox", "true"]).code(125).stderr_has(message);
    };
    refused("tag={{.Nonsense}}", ".Nonsense");
    refused("env-regex=(", "env-regex");
    refused("colour=red", "unknown log opt 'colour' for json-file log driver");
}

fn input_flows_in_and_ends(client: Client) {
    use std::io::Write;
    let host = TestHost::with_busybox().with_client(client);
    let mut child = host.spawn(["run", "-i", "--rm", "--network", "none", "busybox", "cat"]);
    child.stdin.take().expect("piped").write_all(&b"x".repeat(100_000)).expect("write");
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 100_000);
}

fn options_reach_the_container(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let run = |options: &[&str], script: &str| {
        let args =
            ["run", "--rm", "--network", "none"].iter().chain(options).chain(&["busybox", "sh", "-c", script]).copied().collect::<Vec<_>>();
        host.docker(args).success().stdout
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

fn volumes_keep_data_and_binds_are_live(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let dir = host.path().join("shared");
    std::fs::create_dir(&dir).expect("make a directory");
    let bind = format!("{}:/x", dir.display());
    host.docker([
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
    host.docker(["run", "--rm", "--network", "none", "-v", "data:/data:ro", "busybox", "cat", "/data/f"]).success().stdout("b\n");
    host.docker(["volume", "ls", "-q"]).success().stdout("data\n");
    host.docker(["volume", "rm", "data"]).success().stdout("data\n");
}

fn images_are_listed_tagged_and_removed(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    host.docker(["tag", "busybox", "other:1"]).success();
    host.docker(["images", "other", "--format", "{{.Repository}}:{{.Tag}}"]).success().stdout("other:1\n");
    host.docker(["rmi", "other:1"]).success().stdout("Untagged: other:1\n");
    host.docker(["create", "--name", "user", "busybox"]).success();
    host.docker(["rmi", "busybox"]).code(1).stderr_has("conflict: unable to remove repository reference \"busybox\" (must force)");
    host.docker(["rm", "user"]).success();
    host.docker(["rmi", "busybox"]).success().stdout_has("Untagged: busybox:latest\nDeleted: sha256:");
}
