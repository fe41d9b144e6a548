//! sd_notify(3) through the real binary: a program in a container notifies, a service manager outside hears it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

mod support;
use support::{Host, text};

/// Perl, since busybox cannot send to a datagram socket.
const SAY: &str = "use Socket; socket(my $s, AF_UNIX, SOCK_DGRAM, 0); \
    for (@ARGV) { send($s, $_, 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or die $! } sleep 1000 if $ENV{STAY}";

struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn new(host: &Host) -> Manager {
        let name = host.dir.path().join("manager.sock").to_str().unwrap().to_string();
        let socket = UnixDatagram::bind(&name).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Manager { socket, name }
    }

    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        // Without room for descriptors the kernel drops the one that comes with a barrier, which is the answer to it.
        let n = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }
}

/// A container as an unprivileged user that says these messages, one by one.
fn says(host: &Host, messages: &[&str], stay: bool) {
    for dir in ["usr", "lib", "lib64", "proc", "sys", "dev"] {
        fs::create_dir_all(host.dir.path().join("rootfs").join(dir)).unwrap();
    }
    let args = [&["/usr/bin/perl", "-e", SAY], messages].concat();
    host.configure(&args, |c| {
        let bind = |dir: &str| json!({"destination": dir, "type": "bind", "source": dir, "options": ["rbind", "ro"]});
        c["mounts"].as_array_mut().unwrap().extend(["/usr", "/lib", "/lib64"].map(bind));
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        c["process"]["env"] = json!([if stay { "STAY=1" } else { "STAY=" }]);
    });
}

fn pid(host: &Host, id: &str) -> Value {
    serde_json::from_slice::<Value>(&host.rrun(&["state", id]).stdout).unwrap()["pid"].clone()
}

fn background(host: &Host, manager: &Manager, args: &[&str]) -> Child {
    host.command(args).env("NOTIFY_SOCKET", &manager.name).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn run_and_start_wait_until_the_container_is_ready_and_tell_its_pid() {
    let host = Host::new("notify");
    let manager = Manager::new(&host);
    let id = host.id(0);
    says(&host, &["STATUS=soon", "READY=1\nMAINPID=1"], true);
    for commands in [&[&["run", "-d", &id][..]][..], &[&["create", &id][..], &["start", &id][..]][..]] {
        let (last, first) = commands.split_last().unwrap();
        for args in first {
            assert!(background(&host, &manager, args).wait().unwrap().success(), "create waits for nobody");
        }
        let mut waiting = background(&host, &manager, last);
        assert_eq!(manager.hears(), "STATUS=soon");
        assert_eq!(manager.hears(), format!("READY=1\nMAINPID={}", pid(&host, &id)), "its pid is the host's");
        assert!(waiting.try_wait().unwrap().is_none(), "the manager has not answered the barrier yet");
        assert_eq!(manager.hears(), "BARRIER=1");
        assert!(waiting.wait().unwrap().success());
        assert!(host.quiet(&["delete", "--force", &id]));
        host.assert_clean();
    }
}

#[test]
fn in_the_foreground_the_runtime_is_what_the_manager_watches() {
    let host = Host::new("notifyfg");
    let manager = Manager::new(&host);
    says(&host, &["READY=1", "FDSTORE=1", "STOPPING=1"], false);
    let mut run = background(&host, &manager, &["run", &host.id(0)]);
    assert_eq!(manager.hears(), format!("READY=1\nMAINPID={}", run.id()));
    assert_eq!(manager.hears(), "BARRIER=1");
    assert_eq!(manager.hears(), "STOPPING=1", "what is the host's business is not passed on");
    assert!(run.wait().unwrap().success());
    host.assert_clean();
}

#[test]
fn a_container_that_ends_without_a_word_is_waited_for_no_longer() {
    let host = Host::new("notifyend");
    let manager = Manager::new(&host);
    says(&host, &[], false);
    let mut run = background(&host, &manager, &["run", "-d", &host.id(0)]);
    assert!(run.wait().unwrap().success());
    assert!(host.quiet(&["delete", &host.id(0)]));
    // Without a manager nothing is offered.
    let output = host.run(&["sh", "-c", "echo \"[$NOTIFY_SOCKET]\"; grep -c notify /proc/self/mounts"], |c| {
        c["process"]["env"] = json!(["PATH=/bin"]);
    });
    assert_eq!(text(&output), "[]\n0\n");
    host.assert_clean();
}
