//! Bad input: one clear line, the right code, nothing left.

use std::path::Path;

use rcontainerd_tests::liar::{Liar, Lie};
use rcontainerd_tests::{Client, Outcome, Registry, TestHost, each_client, image};
use serde_json::json;

each_client!(
    commands_that_cannot_be_understood,
    objects_that_are_not_there,
    programs_that_cannot_run,
    names_that_say_too_little_or_are_taken,
    places_that_do_not_fit,
    a_registry_that_lies,
    a_registry_that_is_gone,
    a_disk_that_is_full,
);

/// What docker 20.10 adds to every failed start.
const OLD_CLIENT_S_OWN: &str = "time=\"";

/// Says `wanted` in one line of its own: what follows is docker's hint at the help, or the usage.
fn clear(outcome: Outcome, code: i32, wanted: &str) {
    let outcome = outcome.code(code);
    let lines: Vec<&str> =
        outcome.stderr.lines().filter(|line| !line.starts_with("Unable to find image") && !line.starts_with(OLD_CLIENT_S_OWN)).collect();
    assert!(lines.first().is_some_and(|line| line.contains(wanted)), "{wanted:?} is not in the first line: {outcome}");
    let hints = ["See '", "Run '", "Usage:", "Did you mean", ""];
    let more = lines
        .iter()
        .skip(1)
        .filter(|line| !hints.iter().any(|hint| line.trim_start().starts_with(hint) && (!hint.is_empty() || line.is_empty())));
    let more: Vec<_> = more.filter(|line| !line.contains("failed to start containers") && !line.starts_with('"')).collect();
    assert!(more.is_empty(), "more than one line: {outcome}");
}

/// No container, no process, no mount; what clients leave on purpose (a created container whose start failed) is removed first.
fn nothing_left(host: &TestHost) {
    for id in host.rdocker(["ps", "-aq"]).success().stdout.split_whitespace() {
        host.rdocker(["rm", "-f", id]).success();
    }
    host.eventually("nothing is left", || host.leftovers().is_empty());
}

fn commands_that_cannot_be_understood(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["run", "--cpu", "1", "busybox"], 125, "unknown flag: --cpu"),
        (&["run", "--memory", "lots", "busybox"], 125, "invalid"),
        (&["run", "--cpus", "many", "busybox"], 125, "invalid"),
        (&["run", "--ulimit", "nofile=x", "busybox"], 125, "invalid"),
        (&["run", "-e", "=x", "busybox"], 125, "invalid environment variable"),
        (&["run", "-p", "80:x", "busybox"], 125, "nvalid containerPort: x"),
        (&["run", "-p", "70000:80", "busybox"], 125, "nvalid hostPort: 70000"),
        (&["run", "-p", "1.2.3:80:80", "busybox"], 125, "1.2.3"),
        (&["run", "BusyBox"], 125, "invalid reference format: repository name"),
        (&["ps", "--filter", "nonsense=1"], 1, "nonsense"),
        (&["logs", "--since", "yesterday-ish", "x"], 1, ""),
    ];
    for (args, code, message) in cases {
        clear(host.docker(args.iter().copied()), *code, message);
    }
    if client == Client::Ours {
        host.docker(["run", "--cpu", "1", "busybox"]).code(125).stderr_has("Did you mean --cpus?");
        host.docker(["rnu"]).code(1).stderr_has("\trun\n");
    }
    nothing_left(&host);
}

fn objects_that_are_not_there(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let registry = Registry::start(&host);
    let missing = format!("{}/nothing:1", registry.address);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["start", "nobody"], 1, "No such container: nobody"),
        (&["logs", "nobody"], 1, "No such container: nobody"),
        (&["exec", "nobody", "true"], 1, "No such container: nobody"),
        (&["attach", "nobody"], 1, "No such container: nobody"),
        (&["stop", "nobody"], 1, "No such container: nobody"),
        (&["rm", "nobody"], 1, "No such container: nobody"),
        (&["top", "nobody"], 1, "No such container: nobody"),
        (&["inspect", "nobody"], 1, "No such object: nobody"),
        (&["rmi", "nobody"], 1, "No such image: nobody"),
        (&["rmi", "busybox:other"], 1, "No such image: busybox:other"),
        (&["history", "nobody"], 1, "No such image: nobody"),
        (&["tag", "nobody", "x"], 1, "No such image: nobody:latest"),
        (&["volume", "rm", "nobody"], 1, "o such volume"),
        (&["network", "inspect", "nobody"], 1, "nobody"),
        (&["run", "--pull", "never", "nobody"], 125, "No such image: nobody"),
        (&["run", "--network", "nobody", "busybox"], 125, "network nobody not found"),
        (&["pull", &missing], 1, "manifest unknown"),
        (&["run", &missing], 125, "manifest unknown"),
        (&["rm", "busybox"], 1, "No such container: busybox"),
    ];
    for (args, code, message) in cases {
        clear(host.docker(args.iter().copied()), *code, message);
    }
    if client == Client::Ours {
        host.docker(["rm", "busybox"]).code(1).stderr_has("\"busybox\" is an image, not a container");
    }
    drop(registry);
    nothing_left(&host);
}

/// A layer with programs that this machine cannot run.
fn broken_programs(host: &TestHost) {
    let mut layer = tar::Builder::new(Vec::new());
    let mut elf = vec![0u8; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    // EM_S390, big for no machine that runs this test; ET_EXEC.
    (elf[16], elf[18]) = (2, 22);
    let files: [(&str, u32, &[u8]); 6] = [
        ("bin/busybox", 0o755, &std::fs::read("/bin/busybox").expect("busybox-static must be installed")),
        ("bin/other-arch", 0o755, &elf),
        ("bin/no-interpreter", 0o755, b"#!/bin/nosuch\necho hi\n"),
        ("bin/crlf", 0o755, b"#!/bin/busybox sh\r\necho hi\r\n"),
        ("bin/no-shebang", 0o755, b"echo hi\n"),
        ("bin/plain", 0o644, b"text\n"),
    ];
    image::directory(&mut layer, "bin/", 0o755);
    for (name, mode, content) in files {
        image::append(&mut layer, name, mode, content);
    }
    let archive = host.path().join("broken.tar");
    let config = json!({"Cmd": ["/bin/busybox", "sleep", "1000"], "Env": ["PATH=/bin"]});
    image::archive(&archive, "broken:latest", &layer.into_inner().expect("ends"), &config);
    host.rdocker(["load", "-i", archive.to_str().expect("a path")]).success();
}

fn programs_that_cannot_run(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    broken_programs(&host);
    let run = |image: &str, program: &str| host.docker(["run", "--rm", "--network", "none", image, program]);
    clear(run("busybox", "no-such-command"), 127, "\"no-such-command\": executable file not found in $PATH");
    clear(run("busybox", "/no/such/command"), 127, "\"/no/such/command\"");
    clear(run("busybox", "/etc/passwd"), 126, "permission denied");
    clear(run("broken", "/bin/plain"), 126, "permission denied");
    // Old clients know neither of these texts; the code is theirs.
    let not_executable = |outcome: Outcome, text: &str| {
        let code = outcome.code;
        assert!([125, 126, 127].contains(&code), "{outcome}");
        clear(outcome, code, text);
    };
    not_executable(run("broken", "/bin/other-arch"), "exec format error");
    not_executable(run("broken", "/bin/no-shebang"), "exec format error");
    clear(run("broken", "/bin/no-interpreter"), 127, "no such file or directory");
    let crlf = run("broken", "/bin/crlf");
    assert_ne!(crlf.code, 0, "{crlf}");
    assert!(!crlf.stderr.is_empty(), "{crlf}");
    // The same in a running container.
    host.docker(["run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000"]).success();
    let exec = |program: &str| host.docker(["exec", "box", program]);
    let missing = exec("bash");
    assert!([126, 127].contains(&missing.code), "{missing}");
    let text = format!("{}{}", missing.stdout, missing.stderr);
    assert!(text.contains("\"bash\": executable file not found in $PATH") && text.trim().lines().count() == 1, "{missing}");
    let forbidden = exec("/etc/passwd");
    assert_eq!(forbidden.code, 126, "{forbidden}");
    nothing_left(&host);
}

fn names_that_say_too_little_or_are_taken(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let id = host.docker(["create", "--name", "one", "busybox"]).success().word();
    let taken = format!("The container name \"/one\" is already in use by container \"{id}\"");
    host.docker(["create", "--name", "one", "busybox"]).code(1).stderr_has(&taken);
    host.docker(["run", "--name", "one", "busybox"]).code(125).stderr_has(&taken);
    clear(host.docker(["create", "--name", "a b", "busybox"]), 1, "Invalid container name (a b)");
    // Seventeen ids begin with sixteen digits.
    for _ in 0..16 {
        host.docker(["create", "busybox"]).success();
    }
    let ids = host.docker(["ps", "-aq"]).success().stdout;
    let mut first: Vec<char> = ids.lines().filter_map(|id| id.chars().next()).collect();
    first.sort_unstable();
    let twice = first.windows(2).find(|pair| pair[0] == pair[1]).expect("seventeen ids")[0].to_string();
    clear(host.docker(["start", &twice]), 1, "ultiple");
    nothing_left(&host);
}

fn places_that_do_not_fit(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let file = host.path().join("file");
    std::fs::write(&file, "x").expect("write");
    let cases: &[(&[&str], &str)] = &[
        (&["-v", "/tmp:relative"], "relative"),
        (&["-v", "/tmp:/x:nonsense"], "nonsense"),
        (&["-v", "a/b:/x"], "a/b"),
        (&["--mount", "type=bind,src=/no/such/place,dst=/x"], "/no/such/place"),
        (&["--mount", "type=nonsense,dst=/x"], "nonsense"),
        (&["--device", "/dev/no-such-device"], "/dev/no-such-device"),
        (&["-w", "relative"], "relative"),
        (&["--user", "nobody-of-that-name"], "nobody-of-that-name"),
        (&["-v", &format!("{}:/etc", file.display())], "Are you trying to mount a directory onto a file (or vice-versa)?"),
    ];
    for (options, message) in cases {
        let args = [&["run", "--rm", "--network", "none"], *options, &["busybox", "true"]].concat();
        let outcome = host.docker(args);
        let code = outcome.code;
        assert!([125, 126, 127].contains(&code), "{outcome}");
        if client.is_old() && *options == ["-v", "a/b:/x"] {
            continue;
        }
        clear(outcome, code, message);
    }
    nothing_left(&host);
}

fn a_registry_that_lies(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    for lie in Lie::ALL {
        let liar = Liar::start(&host, lie);
        let since = std::time::Instant::now();
        let outcome = host.docker(["pull", &Liar::image()]).code(1);
        let lines = outcome.stderr.trim().lines().count();
        assert!(lines == 1 && outcome.stderr.len() < 1000, "{lie:?}: {outcome}");
        host.docker(["image", "inspect", &Liar::image()]).code(1);
        drop(liar);
        println!("{lie:?}: {:?}", since.elapsed());
    }
    host.docker(["images", "-q"]).success().stdout_has("\n");
    assert_eq!(blobs_under_way(&host), 0);
    nothing_left(&host);
    // The manager is well, and not large.
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.manager_pid())).expect("read the manager's status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("there is a peak");
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kilobytes < 400_000, "the manager grew to {kilobytes} kB");
}

/// Unfinished downloads in the store that no pull works on.
fn blobs_under_way(host: &TestHost) -> usize {
    std::fs::read_dir(host.root().join("content/ingest")).map_or(0, Iterator::count)
}

fn a_registry_that_is_gone(client: Client) {
    let host = TestHost::start().with_client(client);
    clear(host.docker(["pull", "127.0.0.1:9/nothing"]), 1, "connection refused");
    clear(host.docker(["run", "127.0.0.1:9/nothing"]), 125, "connection refused");
    clear(host.docker(["pull", "no-such-host.invalid/nothing"]), 1, "no-such-host.invalid");
    nothing_left(&host);
}

fn a_disk_that_is_full(client: Client) {
    let host = TestHost::start_on_small_disk(24).with_client(client);
    let registry = Registry::start(&host);
    let noise = noise(40 << 20);
    let push = |name: &str, content: &[u8]| {
        let mut layer = tar::Builder::new(Vec::new());
        image::append(&mut layer, "file", 0o644, content);
        let archive = host.path().join("image.tar");
        image::archive(&archive, &format!("{name}:latest"), &layer.into_inner().expect("ends"), &json!({"Cmd": ["/file"]}));
        registry.push(&host, &archive, &format!("{name}:1"), "v2s2");
        format!("{}/{name}:1", registry.address)
    };
    let (large, small) = (push("large", &noise), push("small", b"x"));
    clear(host.docker(["pull", &large]), 1, "o space left on device");
    assert_eq!(host.docker(["images", "-q", "127.0.0.1:5000/large"]).success().stdout, "");
    // What the failed pull took is given back: there is room for another.
    host.docker(["pull", &small]).success();
    host.docker(["image", "inspect", &small]).success();
    drop(registry);
    assert!(free(&host.root()) > 15 << 20, "{} bytes are free", free(&host.root()));
    nothing_left(&host);
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).take(length / 8).flat_map(u64::to_le_bytes).collect()
}

fn free(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).expect("statvfs");
    stat.f_bavail * stat.f_frsize
}

#[test]
fn a_second_manager_on_the_same_root_is_refused() {
    let host = TestHost::start();
    let programs = rcontainerd_tests::host::programs();
    let (root, state) = (host.root(), host.path().join("other"));
    let outcome =
        host.run(&programs.join("rcontainerd"), ["--root", root.to_str().expect("path"), "--state", state.to_str().expect("path")]);
    let pid = host.manager_pid().to_string();
    outcome.code(1).stderr_has(&pid);
    assert!(!state.exists(), "a refused manager makes nothing");
}

#[test]
fn a_second_manager_on_the_same_state_is_refused_and_makes_nothing() {
    let host = TestHost::start();
    let programs = rcontainerd_tests::host::programs();
    let (root, state) = (host.path().join("other"), host.state());
    let outcome =
        host.run(&programs.join("rcontainerd"), ["--root", root.to_str().expect("path"), "--state", state.to_str().expect("path")]);
    outcome.code(1).stderr_has("another manager answers");
    assert!(!root.exists(), "a refused manager makes nothing");
}
