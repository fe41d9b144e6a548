//! Log drivers and their options.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rcontainerd_tests::{Client, TestHost, each_client};

each_client!(
    local_is_small_and_compressed,
    syslog_gets_the_output_and_logs_shows_it,
    a_syslog_server_that_goes_and_comes_back_loses_nothing,
    options_that_a_driver_does_not_have_are_refused,
    what_the_runtime_says_is_not_the_container_s,
);

const PATIENCE: Duration = Duration::from_secs(30);

fn local_is_small_and_compressed(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let options = ["--log-driver", "local", "--log-opt", "max-size=10k", "--log-opt", "max-file=3"];
    let script = "i=0; while [ $i -lt 600 ]; do echo line $i; i=$((i+1)); done";
    let args = ["run", "--name", "talks", "--network", "none"].into_iter().chain(options).chain(["busybox", "sh", "-c", script]);
    host.docker(args).success();
    // As dockerd has it: its form is nobody else's business.
    host.docker(["inspect", "-f", "{{.HostConfig.LogConfig.Type}} <{{.LogPath}}>", "talks"]).success().stdout("local <>\n");
    let id = host.docker(["inspect", "-f", "{{.Id}}", "talks"]).success().word();
    let log = host.root().join("containers").join(&id).join(format!("{id}-json.log.1.gz"));
    assert!(log.exists(), "{} is not there", log.display());
    let shown = host.docker(["logs", "talks"]).success().stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.len() > 200 && lines.len() < 600, "{} lines", lines.len());
    let expected: Vec<String> = (600 - lines.len()..600).map(|n| format!("line {n}")).collect();
    assert_eq!(lines, expected);
    host.docker(["logs", "-n", "300", "talks"]).success().stdout(&(300..600).map(|n| format!("line {n}\n")).collect::<String>());
}

fn syslog_gets_the_output_and_logs_shows_it(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let path = host.path().join("log");
    let server = UnixDatagram::bind(&path).expect("bind");
    server.set_read_timeout(Some(PATIENCE)).expect("set");
    let address = format!("syslog-address=unixgram://{}", path.display());
    let options = ["--log-driver", "syslog", "--log-opt", &address, "--log-opt", "tag={{.Name}}", "--log-opt", "syslog-facility=local1"];
    let script = "echo to stdout; echo to stderr >&2; printf unfinished";
    let run = |name, more: &[&str]| {
        let args: Vec<&str> = ["run", "--name", name, "--network", "none"].iter().chain(&options).chain(more).copied().collect();
        host.docker(args.into_iter().chain(["busybox", "sh", "-c", script])).success()
    };
    run("said", &["--log-opt", "syslog-format=rfc3164"]);
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut found = receive(&server, 3);
    // Two pipes: nothing says which is read first.
    found.sort();
    // local1 is 17: 17 * 8 + 3 and + 6.
    for (line, (priority, text)) in found.iter().zip([(139, "to stderr"), (142, "to stdout"), (142, "unfinished")]) {
        assert!(line.starts_with(&format!("<{priority}>")) && line.contains(&format!(" {name} said[")), "{line}");
        assert!(line.ends_with(&format!("]: {text}\n")), "{line}");
    }
    host.docker(["logs", "said"]).success().stdout("to stdout\nunfinished");
    // Without a copy of its own there is nothing to show.
    run("unkept", &["--log-opt", "cache-disabled=true"]);
    assert_eq!(receive(&server, 3).len(), 3);
    host.docker(["logs", "unkept"]).code(1).stderr_has("configured logging driver does not support reading");
}

fn receive(server: &UnixDatagram, count: usize) -> Vec<String> {
    let mut buffer = [0; 4096];
    let mut one = || {
        let length = server.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    };
    (0..count).map(|_| one()).collect()
}

fn a_syslog_server_that_goes_and_comes_back_loses_nothing(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let server = host.in_network(|| TcpListener::bind("127.0.0.1:0")).expect("bind");
    let address = server.local_addr().expect("an address");
    let option = format!("syslog-address=tcp://{address}");
    let script = "echo one; read x; echo two; read x; echo three";
    let options = ["--log-driver", "syslog", "--log-opt", &option, "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k"];
    let mut child = host.spawn(["run", "-i", "--network", "none"].into_iter().chain(options).chain(["busybox", "sh", "-c", script]));
    let mut keys = child.stdin.take().expect("piped");
    let (first, _) = server.accept().expect("accept");
    assert!(line(&first).ends_with(": one"));
    // Gone, with nobody who listens.
    drop((first, server));
    std::io::Write::write_all(&mut keys, b"\n").expect("type");
    let mut shown = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert_eq!(shown.by_ref().map(|line| line.expect("read")).take(2).collect::<Vec<_>>(), ["one", "two"]);
    let server = host.in_network(|| TcpListener::bind(address)).expect("bind again");
    let (second, _) = server.accept().expect("accept");
    assert!(line(&second).ends_with(": two"));
    std::io::Write::write_all(&mut keys, b"\n").expect("type");
    assert!(child.wait().expect("wait").success());
    assert!(line(&second).ends_with(": three"));
    // A name of a server that listens by UDP, which tells nobody whether it does.
    let server = host.in_network(|| UdpSocket::bind("127.0.0.1:0")).expect("bind");
    server.set_read_timeout(Some(PATIENCE)).expect("set");
    let option = format!("syslog-address=udp://localhost:{}", server.local_addr().expect("an address").port());
    host.docker(["run", "--rm", "--log-driver", "syslog", "--log-opt", &option, "--network", "none", "busybox", "echo", "hi"]).success();
    let mut buffer = [0; 1024];
    let length = server.recv(&mut buffer).expect("a message");
    assert!(buffer[..length].ends_with(b"]: hi\n"), "{:?}", String::from_utf8_lossy(&buffer[..length]));
}

/// One byte at a time: what follows is for the next.
fn line(stream: &std::net::TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut text = Vec::new();
    for byte in std::io::Read::bytes(stream) {
        match byte.expect("read") {
            b'\n' => break,
            byte => text.push(byte),
        }
    }
    String::from_utf8(text).expect("text")
}

fn options_that_a_driver_does_not_have_are_refused(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let refused = |options: &str, message: &str| {
        let words = format!("run --rm --network none --log-driver {options} busybox true");
        host.docker(words.split_whitespace()).code(125).stderr_has(message);
    };
    refused("local --log-opt labels=a", "unknown log opt 'labels' for local log driver");
    refused("syslog --log-opt max-size=1m", "unknown log opt 'max-size' for syslog log driver");
    refused("syslog --log-opt syslog-facility=lunch", "invalid syslog facility");
    refused("syslog --log-opt syslog-format=rfc1", "invalid syslog format");
    refused("syslog --log-opt syslog-address=tcp+tls://a:1", "TLS is not supported");
    refused("syslog --log-opt syslog-address=unixgram:///nowhere/log", "/nowhere/log: No such file or directory");
    refused("json-file --log-opt max-buffer-size=1m", "only supported with 'mode=non-blocking'");
    refused("json-file --log-opt mode=never", "logging mode not supported: never");
    refused("json-file --log-opt compress=true --log-opt max-file=1", "max-file is less than 2");
    refused("gelf", "no log driver named 'gelf' is registered");
    host.docker(["info", "-f", "{{json .Plugins.Log}}"]).success().stdout("[\"journald\",\"json-file\",\"local\",\"none\",\"syslog\"]\n");
    assert_eq!(host.docker(["ps", "-aq"]).success().stdout, "");
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

/// As with dockerd: the reason is in the answer and in the container's state, not in its log.
fn what_the_runtime_says_is_not_the_container_s(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let told = "exec: \"nosuch\": executable file not found";
    host.docker(["run", "--name", "bad", "--network", "none", "busybox", "nosuch"]).code(127).stderr_has(told);
    let logs = host.docker(["logs", "bad"]).success();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("", ""));
    let error = host.docker(["inspect", "-f", "{{.State.Error}}", "bad"]).success().stdout;
    assert!(error.contains(told), "{error}");
}
