//! `--format`, side by side with docker's newest: every field that templates know of, those of nothing and those that nothing has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcontainerd_tests::{Client, TestHost};

/// Objects and their fields, as the client itself has them: name and kind.
type Objects = BTreeMap<String, Vec<(String, String)>>;

fn objects() -> Objects {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/src/output/template/types.txt");
    let text = std::fs::read_to_string(path).expect("read the client's list of fields");
    let mut objects = Objects::new();
    let mut open = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            None => {
                line.clone_into(&mut open);
                objects.insert(open.clone(), Vec::new());
            }
            Some(field) => {
                let mut words = field.split(' ').map(str::to_owned);
                let field = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                objects.get_mut(&open).expect("an open object").push(field);
            }
        }
    }
    objects
}

/// What a template can write to reach each field of `object`, at `prefix`; lists by their first item, maps by a key they have or not.
fn paths(objects: &Objects, object: &str, prefix: &str, deep: bool, found: &mut Vec<String>) {
    for (name, kind) in &objects[object] {
        let (bare, kind) = (name.trim_start_matches('^'), kind.trim_start_matches('*'));
        let path = format!("{prefix}.{bare}");
        if bare.starts_with(char::is_uppercase) {
            found.push(path.clone());
        }
        if name.starts_with('^') {
            paths(objects, kind, prefix, deep, found);
        } else if objects.contains_key(kind) {
            paths(objects, kind, &path, deep, found);
        } else if let Some(item) = kind.strip_prefix("[]") {
            inner(objects, item, &format!("(index {path} 0)"), deep, found);
        } else if let Some(item) = kind.strip_prefix("map[string]").or_else(|| kind.strip_prefix("map[nat.Port]")) {
            let key = if bare == "Networks" { "net" } else { "none" };
            found.extend([format!("{path}.none"), format!("{path}.none.other")]);
            inner(objects, item, &format!("(index {path} {key:?})"), deep, found);
        }
    }
}

/// The fields of a list's first item, or only the item.
fn inner(objects: &Objects, item: &str, path: &str, deep: bool, found: &mut Vec<String>) {
    found.push(path.to_owned());
    let item = item.trim_start_matches('*');
    if deep && objects.contains_key(item) {
        paths(objects, item, path, deep, found);
    }
}

/// What the client says, with addresses in memory and its own name made alike.
fn said(host: &TestHost, client: Client, words: &[&str]) -> (i32, String, String) {
    let outcome = host.run(&client.program(), words.iter().copied());
    let alike = |text: &str| {
        let mut parts = text.split("0x");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + "0x" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit())).replace("rdocker", "docker")
    };
    (outcome.code, alike(&outcome.stdout), alike(&outcome.stderr))
}

/// Runs all of them with both clients, a few at a time, and tells what differs; what changes by itself gets a second chance.
fn compare(host: &TestHost, commands: &[Vec<String>]) {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut different = Vec::new();
        while let Some(command) = commands.get(next.fetch_add(1, Ordering::Relaxed)) {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let pair = || (said(host, Client::Ours, &words), said(host, Client::Docker28, &words));
            let same = |(ours, theirs): &(_, _)| ours == theirs;
            let mut last = pair();
            for _ in 0..3 {
                if same(&last) {
                    break;
                }
                last = pair();
            }
            if !same(&last) {
                different.push(format!("{words:?}\n  ours   {:?}\n  docker {:?}", last.0, last.1));
            }
        }
        different
    };
    let different: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    assert!(different.is_empty(), "{} of {} differ:\n{}", different.len(), commands.len(), different.join("\n"));
}

fn each_field(objects: &Objects, object: &str, command: &str, deep: bool, without: &[&str]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    paths(objects, object, "", deep, &mut found);
    assert!(found.len() >= 5, "{object}: {found:?}");
    let wanted = found.into_iter().chain([".NoSuchField".to_owned(), "foo".to_owned(), ".Name | upper | nothing".to_owned()]);
    let templates = wanted.filter(|path| !without.contains(&path.as_str())).map(|path| {
        let template =
            format!("{{{{{path}}}}}|{{{{json {path}}}}}|{{{{if {path}}}}}t{{{{else}}}}f{{{{end}}}}|{{{{printf \"%v\" {path}}}}}");
        command.split(' ').map(str::to_owned).chain(["--format".to_owned(), template]).collect()
    });
    templates.collect()
}

/// One that has all that can be asked for, and one that has nothing.
fn host_with_things() -> TestHost {
    let host = TestHost::with_busybox();
    host.rdocker(["volume", "create", "--label", "a=b", "vol"]).success();
    host.rdocker(["network", "create", "--subnet", "10.97.3.0/24", "--label", "x=<y>", "net"]).success();
    host.rdocker(["create", "--name", "plain", "--network", "none", "busybox", "true"]).success();
    let words = "create --name rich --network net --ip 10.97.3.9 --health-cmd true --health-interval 1h -p 127.0.0.1:8123:80 -e A=B \
        --label l=1 --label m=<x> -v vol:/v --mount type=tmpfs,dst=/t,tmpfs-mode=640,tmpfs-size=1m --mount type=bind,src=/tmp,dst=/b,ro \
        --ulimit nofile=100:200 --device-read-bps /dev/null:1mb --cap-add NET_ADMIN --init --stop-timeout 3 --stop-signal SIGINT \
        --restart on-failure:2 --add-host a:1.2.3.4 --dns 1.1.1.1 --sysctl net.ipv4.ip_forward=1 --annotation q=r --log-opt max-size=1m \
        --device /dev/null:/dev/n --shm-size 1m --memory 100m --pids-limit 50 --oom-kill-disable --tmpfs /t2 --expose 99 busybox sleep 9";
    host.rdocker(words.split_whitespace()).success();
    host
}

#[test]
fn templates_see_every_field_that_docker_s_see() {
    let host = host_with_things();
    let objects = objects();
    let mut commands = Vec::new();
    for (object, command, deep) in [
        ("container.InspectResponse", "inspect plain", false),
        ("container.InspectResponse", "container inspect rich", true),
        ("image.InspectResponse", "inspect busybox", false),
        ("image.InspectResponse", "image inspect rcontainerd/hello", false),
        ("network.Inspect", "network inspect net", true),
        ("network.Inspect", "inspect bridge", false),
        ("volume.Volume", "volume inspect vol", false),
        ("volume.Volume", "inspect vol", false),
        ("context.contextWithTLSListing", "context inspect", true),
        ("events.Message", "events --since 0 --until 1s", false),
    ] {
        commands.extend(each_field(&objects, object, command, deep, &[]));
    }
    // Who the client is, and what changes while it is asked.
    let own = [".Info", ".SystemTime", ".NFd", ".NGoroutines", ".NEventsListener", ".ClientInfo", ".RegistryConfig", ".ServerErrors"];
    let info = each_field(&objects, "system.dockerInfo", "info", true, &own);
    commands.extend(info.into_iter().filter(|words| !words[2].contains(".ClientInfo.") && !words[2].contains(".RegistryConfig.")));
    let version = each_field(&objects, "system.versionInfo", "version", true, &[".Client"]);
    commands.extend(version.into_iter().filter(|words| !words[2].contains(".Client.")));
    compare(&host, &commands);
}

#[test]
fn columns_of_listings_are_docker_s() {
    let host = host_with_things();
    host.rdocker(["tag", "busybox", "busybox:two"]).success();
    let listings = [
        "ps -a",
        "ps -a --no-trunc -s",
        "images",
        "images --digests",
        "network ls",
        "volume ls",
        "context ls",
        "history busybox",
        "system df",
    ];
    let mut commands = Vec::new();
    for listing in listings {
        let words: Vec<&str> = listing.split(' ').collect();
        let json = host.run(&Client::Docker28.program(), words.iter().copied().chain(["--format", "json"])).success().stdout;
        let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap_or_default()).expect("a line of JSON");
        let fields: Vec<&String> = first.as_object().expect("an object").keys().collect();
        assert!(fields.len() >= 4, "{listing}: {fields:?}");
        let named = fields.iter().flat_map(|field| {
            [format!("{{{{.{field}}}}}"), format!("{{{{json .{field}}}}}"), format!(r"table {{{{.{field}}}}}\t{{{{.{field}}}}}")]
        });
        let others = [
            "json",
            "table",
            "{{.Foo}}",
            "table {{.Foo}}",
            "{{upper 1}}",
            "{{truncate .ID \"x\"}}",
            "{{foo}}",
            "{{.ID",
            "{{.ID.Foo}}",
            r"{{.ID}}\n\t",
            "table {{json .ID}}",
        ];
        let functions = ["{{upper .ID}}", "table {{lower .ID}}", "{{truncate .ID 3}}", "{{pad .ID 1 2}}|", "{{len .ID}}", "{{upper 1}}"];
        for format in named.chain(others.into_iter().chain(functions).map(str::to_owned)) {
            commands.push(words.iter().map(|word| (*word).to_owned()).chain(["--format".to_owned(), format]).collect());
        }
    }
    for format in [r#"{{.Label "l"}}"#, r#"table {{.Names}}\t{{.Label "a.b-c"}}"#, "{{.Label}}", "{{.Label 1}}", r#"{{.ID "x"}}"#] {
        commands.push(["ps", "-a", "--format", format].map(str::to_owned).to_vec());
    }
    compare(&host, &commands);
}
