//! What is done with a container that is unhealthy. docker 20.10 has no annotations.

use rcontainerd_tests::{Client, TestHost};

#[test]
fn an_unhealthy_container_is_killed_restarted_or_stopped_where_that_was_asked_for() {
    for client in [Client::Ours, Client::Docker28] {
        client.run(acts);
    }
}

fn acts(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let run = |name: &str, action: &str, policy: &str, check: &str| {
        let annotation = format!("rcontainerd.health-on-failure={action}");
        let options = ["--annotation", &annotation, "--restart", policy, "--stop-timeout", "0"];
        let checks = ["--health-cmd", check, "--health-interval", "100ms", "--health-retries", "1"];
        let args = ["run", "-d", "--name", name, "--network", "none"].into_iter().chain(options).chain(checks);
        host.docker(args.chain(["busybox", "sh", "-c", "echo run >>/runs; sleep 1000"])).success();
    };
    let told = |name: &str, what: &str| host.docker(["inspect", "-f", what, name]).success().stdout;
    // The policy counts it as any other end.
    run("killed", "kill", "on-failure:1", "false");
    host.eventually("killed ends twice", || told("killed", "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}") == "1 exited 137\n");
    // Well in its second run.
    run("anew", "restart", "no", "test $(wc -l </runs) -eq 2");
    host.eventually("anew is well", || told("anew", "{{.State.Health.Status}}") == "healthy\n");
    host.docker(["exec", "anew", "cat", "/runs"]).success().stdout("run\nrun\n");
    // For good.
    run("stopped", "stop", "always", "false");
    host.eventually("stopped ends", || told("stopped", "{{.State.Status}} {{.RestartCount}}") == "exited 0\n");
    run("left", "none", "no", "false");
    host.eventually("left is unwell", || told("left", "{{.State.Health.Status}} {{.State.Status}}") == "unhealthy running\n");
    let refused = ["create", "--annotation", "rcontainerd.health-on-failure=panic", "busybox"];
    host.docker(refused).code(1).stderr_has("\"panic\" is none of none, kill, restart, stop");
    host.docker(["rm", "-f", "killed", "anew", "stopped", "left"]).success();
    assert_eq!(host.leftovers(), Vec::<String>::new());
}
