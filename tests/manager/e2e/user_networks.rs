//! Networks that users make: names, isolation, connecting and disconnecting, survival.

use rcontainerd_tests::{Client, TestHost, each_client};

each_client!(containers_find_each_other_by_name, a_running_container_changes_its_networks);

const SERVER: &str = "mkdir /www; echo page >/www/index.html; exec httpd -f -p 8080 -h /www";

fn server(host: &TestHost, options: &[&str]) {
    let args = ["run", "-d"].iter().chain(options).chain(&["busybox", "sh", "-c", SERVER]);
    host.docker(args.copied()).success();
}

/// Asks from a container on `network`; the name is resolved, and the page fetched from it.
fn fetch(host: &TestHost, network: &str, name: &str) -> bool {
    let url = format!("http://{name}:8080/");
    host.docker(["run", "--rm", "--network", network, "busybox", "wget", "-q", "-O-", &url]).stdout == "page\n"
}

fn containers_find_each_other_by_name(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    host.docker(["network", "create", "mine"]).success();
    host.docker(["network", "create", "other"]).success();
    server(&host, &["--name", "web", "--network", "mine", "--network-alias", "www"]);
    host.eventually("the page is served by name", || fetch(&host, "mine", "web"));
    assert!(fetch(&host, "mine", "www"), "by the alias");
    assert!(!fetch(&host, "other", "web"), "another network knows nothing of it");
    host.docker(["network", "rm", "mine"]).code(1).stderr_has("has active endpoints");
    host.docker(["network", "create", "mine"]).code(1).stderr_has("network with name mine already exists");
    host.docker(["network", "rm", "bridge"]).code(1).stderr_has("pre-defined");
    host.docker(["rm", "-f", "web"]).success();
    host.docker(["network", "rm", "mine"]).success().stdout("mine\n");
    host.docker(["network", "prune", "-f"]).success().stdout_has("other");
    host.docker(["network", "inspect", "other"]).code(1).stderr_has("other");
}

fn a_running_container_changes_its_networks(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    host.docker(["network", "create", "--subnet", "10.88.0.0/24", "first"]).success();
    host.docker(["network", "create", "--subnet", "10.89.0.0/24", "second"]).success();
    server(&host, &["--name", "web", "--network", "first", "--ip", "10.88.0.77"]);
    host.docker(["network", "connect", "--alias", "moved", "second", "web"]).success();
    host.eventually("it is reached by its new name", || fetch(&host, "second", "moved"));
    let address = |network: &str| format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    host.docker(["inspect", "-f", &address("first"), "web"]).success().stdout("10.88.0.77\n");
    host.docker(["inspect", "-f", &address("second"), "web"]).success().stdout("10.89.0.2\n");
    host.docker(["network", "disconnect", "first", "web"]).success();
    assert!(!fetch(&host, "first", "web"));
    host.docker(["exec", "web", "ip", "route"]).success().stdout_has("default via 10.89.0.1");
    host.docker(["network", "disconnect", "first", "web"]).code(1).stderr_has("is not connected");
    host.docker(["restart", "-t", "0", "web"]).success();
    host.eventually("it comes back where it was", || fetch(&host, "second", "web"));
    host.docker(["rm", "-f", "web"]).success();
}

#[test]
fn a_run_tells_the_networks_that_it_is_on() {
    let host = TestHost::with_busybox();
    host.rdocker(["network", "create", "mine"]).success();
    host.rdocker(["run", "--name", "one", "--network", "mine", "busybox", "true"]).success();
    let format = "{{.Type}} {{.Action}}";
    let words = ["events", "--since", "1", "--until", "0s", "--filter", "network=mine", "--format", format];
    host.rdocker(words).success().stdout("network create\nnetwork connect\nnetwork disconnect\n");
    host.rdocker(["rm", "one"]).success();
}

#[test]
fn names_outlive_the_manager() {
    let mut host = TestHost::with_busybox();
    host.rdocker(["network", "create", "mine"]).success();
    host.rdocker(["run", "-d", "--name", "web", "--network", "mine", "busybox", "sh", "-c", SERVER]).success();
    let get = "wget -q -O- http://web:8080/ >/dev/null";
    let asker =
        format!("until {get}; do :; done; i=0; while {get}; do i=$((i+1)); echo $i >/next; mv /next /count; usleep 50000; done; rm /count");
    host.rdocker(["run", "-d", "--name", "asker", "--network", "mine", "busybox", "sh", "-c", &asker]).success();
    let count = |host: &TestHost| host.rdocker(["exec", "asker", "cat", "/count"]).word().parse::<u32>().unwrap_or_default();
    host.eventually("the first answers", || count(&host) > 2);
    host.kill_manager();
    host.start_manager();
    let before = count(&host);
    assert!(before > 2, "no answer was missed: {before}");
    host.eventually("further answers", || count(&host) > before + 2);
    host.rdocker(["run", "--rm", "--network", "mine", "busybox", "wget", "-q", "-O-", "http://web:8080/"]).success().stdout("page\n");
    host.rdocker(["rm", "-f", "asker", "web"]).success();
}

#[test]
fn an_internal_network_leads_nowhere() {
    let host = TestHost::with_busybox();
    host.rdocker(["network", "create", "--internal", "inner"]).success();
    let outcome =
        host.rdocker(["run", "--rm", "--network", "inner", "busybox", "sh", "-c", "ip route; nslookup example.org; true"]).success();
    assert!(!outcome.stdout.contains("default"), "{outcome}");
    assert!(!outcome.stdout.contains("answer:"), "a question must not leak: {outcome}");
    host.rdocker(["network", "rm", "inner"]).success();
}

/// docker-compose 1.29 takes a new container off its network and puts it back with aliases before the start.
#[test]
fn a_container_that_left_its_only_network_may_join_again() {
    let host = TestHost::with_busybox();
    host.rdocker(["network", "create", "mine"]).success();
    host.rdocker(["create", "--name", "web", "--network", "mine", "busybox", "sh", "-c", SERVER]).success();
    host.rdocker(["network", "disconnect", "mine", "web"]).success();
    host.rdocker(["network", "connect", "--alias", "www", "mine", "web"]).success();
    host.rdocker(["start", "web"]).success();
    host.eventually("it is reached by its alias", || fetch(&host, "mine", "www"));
    host.rdocker(["network", "disconnect", "mine", "web"]).success();
    host.rdocker(["exec", "web", "ip", "link"]).success();
    assert!(!host.rdocker(["exec", "web", "ip", "link"]).stdout.contains("eth0"));
    host.rdocker(["network", "connect", "mine", "web"]).success();
    host.eventually("it is reached again", || fetch(&host, "mine", "web"));
    host.rdocker(["rm", "-f", "web"]).success();
}
