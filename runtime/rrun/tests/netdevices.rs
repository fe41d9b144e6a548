//! linux.netDevices, with ends of veth pairs in network namespaces of the test's own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::process::Command;

use serde_json::{Value, json};

mod support;
use support::{Host, text};

/// A network namespace that stands for the host's: a process that sleeps in it, found by its pid.
struct Net {
    sleeper: std::process::Child,
}

impl Net {
    fn new() -> Net {
        let sleeper = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let net = Net { sleeper };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        while std::fs::read_link(net.path()).unwrap() == own {
            std::thread::yield_now();
        }
        net
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.sleeper.id())
    }

    /// Runs a shell script in it.
    fn sh(&self, script: &str) -> String {
        let net = format!("--net={}", self.path());
        text(&Command::new("nsenter").args([net.as_str(), "sh", "-ec", script]).output().unwrap())
    }

    fn rrun(&self, host: &Host, args: &[&str]) -> String {
        let inner = host.command(args);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(inner.get_program()).args(inner.get_args()).current_dir(host.dir.path());
        text(&command.stdin(std::process::Stdio::null()).output().unwrap())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.sleeper.kill().unwrap();
        self.sleeper.wait().unwrap();
    }
}

const MAKE: &str = "ip link set lo up; ip link add one type veth peer name peer; ip link set peer up; ip link set one mtu 1789 address 00:11:22:33:44:55 up; \
    ip addr add 192.0.2.5/24 dev one; ip addr add 2001:db8::5/64 dev one nodad; ip addr add 127.0.0.33/32 scope host dev one";

fn host(name: &str) -> Host {
    let host = Host::new(name);
    let bin = host.dir.path().join("rootfs/bin/ip");
    std::os::unix::fs::symlink("busybox", bin).unwrap();
    host
}

fn give(config: &mut Value, device: &str, name: &str, path: Option<String>) {
    config["linux"]["netDevices"] = json!({device: {"name": name}});
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|n| n["type"] != "network");
    namespaces.push(path.map_or(json!({"type": "network"}), |path| json!({"type": "network", "path": path})));
}

#[test]
fn a_device_is_moved_renamed_keeps_what_it_was_and_is_up() {
    let (host, net) = (host("netdev"), Net::new());
    assert_eq!(net.sh(MAKE), "");
    host.configure(&["ip", "addr", "show", "dev", "given"], |c| give(c, "one", "given", None));
    let said = net.rrun(&host, &["run", &host.id(0)]);
    for part in ["given", "mtu 1789", "00:11:22:33:44:55", "192.0.2.5/24", "2001:db8::5/64", ",UP"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("127.0.0.33"), "an address of the host alone was taken along: {said}");
    host.assert_clean();
}

#[test]
fn a_device_goes_into_a_joined_namespace_and_stays_there() {
    let (host, net, other) = (host("netdev-joined"), Net::new(), Net::new());
    assert_eq!(net.sh(MAKE), "");
    host.configure(&["ip", "addr", "show", "dev", "one"], |c| give(c, "one", "", Some(other.path())));
    let said = net.rrun(&host, &["run", &host.id(0)]);
    assert!(said.contains("192.0.2.5/24"), "{said}");
    assert!(other.sh("ip addr show dev one").contains("192.0.2.5/24"));
    host.assert_clean();
}

#[test]
fn a_device_that_is_not_there_or_whose_name_is_taken_fails_the_create() {
    let (host, net, other) = (host("netdev-bad"), Net::new(), Net::new());
    assert_eq!(net.sh(MAKE), "");
    assert_eq!(other.sh("ip link add taken type veth peer name peer2"), "");
    host.configure(&["true"], |c| give(c, "nosuch", "", None));
    let said = net.rrun(&host, &["run", &host.id(0)]);
    assert!(said.contains("move network device") && said.contains("nosuch") && said.matches("no such device").count() == 1, "{said}");
    host.configure(&["true"], |c| give(c, "one", "taken", Some(other.path())));
    let said = net.rrun(&host, &["run", &host.id(0)]);
    assert!(said.contains("move network device") && said.contains("has a device of that name"), "{said}");
    let left = net.sh("ip addr show dev one");
    assert!(left.contains("192.0.2.5/24") && left.contains(",UP"), "{left}");
    host.assert_clean();
}

#[test]
fn a_create_that_fails_later_returns_the_device() {
    let (host, net) = (host("netdev-undo"), Net::new());
    assert_eq!(net.sh(MAKE), "");
    host.configure(&["/nosuch"], |c| give(c, "one", "given", None));
    let said = net.rrun(&host, &["run", &host.id(0)]);
    assert!(said.contains("/nosuch"), "{said}");
    let left = net.sh("ip addr show dev one");
    assert!(left.contains("192.0.2.5/24") && left.contains("2001:db8::5/64") && left.contains(",UP"), "{left}");
    host.assert_clean();
}
