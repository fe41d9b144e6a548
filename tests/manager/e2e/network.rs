//! The default bridge and published ports.

use rcontainerd_tests::{Client, TestHost, each_client};

each_client!(a_plain_run_has_an_address_and_reaches_its_gateway, a_published_port_answers);

fn a_plain_run_has_an_address_and_reaches_its_gateway(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let script = "ip -4 addr show eth0 | grep -c inet; ping -c1 -W5 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') >/dev/null && echo reached; cat /etc/resolv.conf | grep -c nameserver";
    let outcome = host.docker(["run", "--rm", "busybox", "sh", "-c", script]).success();
    assert!(outcome.stdout.starts_with("1\nreached\n"), "{outcome}");
}

fn a_published_port_answers(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    host.docker([
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "8080:80",
        "busybox",
        "sh",
        "-c",
        "mkdir /www; echo page >/www/index.html; exec httpd -f -h /www",
    ])
    .success();
    host.docker(["ps", "--format", "{{.Ports}}"]).success().stdout_has("0.0.0.0:8080->80/tcp");
    host.docker(["port", "web"]).success().stdout_has("80/tcp -> 0.0.0.0:8080");
    host.eventually("the page is served", || host.run("curl".as_ref(), ["-fs", "http://127.0.0.1:8080/"]).stdout == "page\n");
    host.docker(["run", "-p", "8080:80", "--name", "other", "busybox", "true"]).code(125).stderr_has("port is already allocated");
    host.docker(["rm", "-f", "web", "other"]).success();
}
