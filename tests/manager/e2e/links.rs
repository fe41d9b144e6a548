//! `--link`, and finding containers by what they publish, are on or are called.

use rcontainerd_tests::{Client, TestHost, each_client};

each_client!(
    a_link_on_the_default_network_is_lines_and_variables,
    a_link_on_a_network_of_ones_own_is_a_name,
    containers_are_found_by_filters
);

fn a_link_on_the_default_network_is_lines_and_variables(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    host.docker(["run", "-d", "--name", "db", "-e", "SECRET=x", "--expose", "5432", "busybox", "sleep", "1000"]).success();
    let seen = "env; cat /etc/hosts";
    let told = host.docker(["run", "--rm", "--link", "db:store", "busybox", "sh", "-c", seen]).success().stdout_has("STORE_ENV_SECRET=x");
    told.stdout_has("STORE_PORT_5432_TCP_PORT=5432").stdout_has("STORE_PORT=tcp://172.").stdout_has("\tstore ").stdout_has(" db\n");
    host.docker(["run", "-d", "--name", "web", "--link", "db:store", "busybox", "sleep", "1000"]).success();
    host.docker(["inspect", "-f", "{{.HostConfig.Links}}", "web"]).success().stdout("[/db:/web/store]\n");
    host.docker(["ps", "--no-trunc", "--format", "{{.Names}}"]).success().stdout_has("db,web/store\n");
    host.docker(["exec", "web", "env"]).success().stdout_has("STORE_NAME=/web/store");
    host.docker(["rm", "--link", "db"]).code(1).stderr_has("cannot remove the default link name");
    host.docker(["rm", "--link", "web/store"]).success();
    host.docker(["exec", "web", "grep", "-c", "store", "/etc/hosts"]).code(1);
    host.docker(["stop", "-t", "0", "db"]).success();
    host.docker(["run", "--rm", "--link", "db:store", "busybox", "true"]).stderr_has("Cannot link to a non running container: /db AS /");
    host.docker(["create", "--link", "nope", "busybox"]).stderr_has("could not get container for nope");
    host.docker(["rm", "-f", "web", "db"]).success();
}

fn a_link_on_a_network_of_ones_own_is_a_name(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    host.docker(["network", "create", "mine"]).success();
    let serve = "mkdir /www; echo page >/www/index.html; exec httpd -f -p 8080 -h /www";
    host.docker(["run", "-d", "--name", "web", "--network", "mine", "busybox", "sh", "-c", serve]).success();
    let fetch = |options: &[&str]| {
        let words =
            ["run", "--rm", "--network", "mine"].iter().chain(options).chain(&["busybox", "wget", "-q", "-O-", "http://store:8080/"]);
        host.docker(words.copied()).stdout == "page\n"
    };
    host.eventually("the page is served by the link's name", || fetch(&["--link", "web:store"]));
    assert!(!fetch(&[]), "nobody else knows the name");
    host.docker(["rm", "-f", "web"]).success();
    host.docker(["network", "rm", "mine"]).success();
}

fn containers_are_found_by_filters(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    host.docker(["network", "create", "mine"]).success();
    for (name, ports) in [("one", "18080:80"), ("two", "18081:81")] {
        host.docker(["run", "-d", "--name", name, "-p", ports, "busybox", "sleep", "1000"]).success();
    }
    host.docker(["network", "connect", "mine", "two"]).success();
    let found = |filters: &[&str]| {
        let filters = filters.iter().flat_map(|filter| ["-f", filter]);
        let words = ["ps", "--format", "{{.Names}}"].into_iter().chain(filters);
        let outcome = host.docker(words).success();
        let mut names: Vec<String> = outcome.stdout.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(found(&["publish=18080"]), ["one"], "the host's port");
    assert_eq!(found(&["publish=80"]), [""; 0], "not the container's");
    assert_eq!(found(&["expose=80-90/tcp"]), ["one", "two"]);
    assert_eq!(found(&["publish=18080", "expose=81"]), ["one", "two"], "one or the other");
    assert_eq!(found(&["network=mine"]), ["two"], "connected after its creation");
    assert_eq!(found(&["network=bridge"]), ["one", "two"]);
    assert_eq!(found(&["name=^(one|three)$"]), ["one"]);
    assert_eq!(found(&["exited=0"]), [""; 0], "stopped ones are asked for with -a");
    for bad in ["publish=x", "expose=1:2", "health=odd", "is-task=x"] {
        host.docker(["ps", "-f", bad]).code(1).stderr_has("invalid filter");
    }
    let ids = host.docker(["network", "inspect", "-f", "{{.Id}}", "bridge", "mine"]).success().stdout;
    host.docker(["stop", "-t", "0", "two"]).success();
    let told = "{{range .NetworkSettings.Networks}}{{println .NetworkID}}{{end}}";
    let told = host.docker(["inspect", "-f", told, "two"]).success().stdout;
    assert_eq!(told.trim(), ids.trim(), "a stopped container tells its networks too");
    host.docker(["rm", "-f", "one", "two"]).success();
    host.docker(["network", "rm", "mine"]).success();
}
