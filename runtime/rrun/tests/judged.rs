//! What is wrong in config.json and only the kernel knows: told with its place, and nothing is made or stays.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

mod support;
use support::{Host, text};

/// The names of everything below the test's directory and of cgroups with its name.
fn seen(host: &Host) -> Vec<String> {
    let state = fs::read_dir(host.dir.path().join("state")).map(|d| d.map(|e| e.unwrap().file_name().into_string().unwrap()).collect());
    let mut all: Vec<String> = state.unwrap_or_default();
    all.extend(host.leftovers().iter().map(|l| l.display().to_string()));
    all
}

/// As it was meant, without the quoting of the log's format.
fn unescaped(output: &Output) -> String {
    text(output).replace("\\\"", "\"")
}

/// Refused before there was anything to take back: not even the directory of its state.
fn refused_early(host: &Host, change: impl FnOnce(&mut Value)) -> String {
    assert_eq!(seen(host), Vec::<String>::new());
    let output = host.run(&["true"], change);
    assert_eq!(seen(host), Vec::<String>::new());
    assert!(!output.status.success());
    unescaped(&output)
}

#[test]
fn what_can_be_asked_is_refused_before_anything_is_made() {
    let host = Host::new("judged");
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Value));
    let cases: [Case<'_>; 5] = [
        ("config.json: linux.sysctl.net.ipv4.ip_forward: \"yes\": the kernel refuses it", &|c| {
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "yes"});
        }),
        ("config.json: linux.sysctl.net.ipv4.ip_default_ttl: \"300\": the kernel refuses it", &|c| {
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "300", "net.ipv4.ip_forward": "1"});
        }),
        ("config.json: mounts[7].source: \"/nothing/here\": must be there", &|c| {
            c["mounts"].as_array_mut().unwrap().push(json!({"destination": "/x", "type": "bind", "source": "/nothing/here"}));
        }),
        ("config.json: process.rlimits[0].hard: 18446744073709551615: is above", &|c| {
            c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": u64::MAX}]);
        }),
        ("config.json: linux.timeOffsets.boottime.secs: -999999999: the clock is at", &|c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
            c["linux"]["timeOffsets"] = json!({"boottime": {"secs": -999_999_999}});
        }),
    ];
    let good = fs::read(host.dir.path().join("config.json")).unwrap();
    for (expected, change) in cases {
        fs::write(host.dir.path().join("config.json"), &good).unwrap();
        let said = refused_early(&host, change);
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
    }
}

/// A setting of the user namespace cannot be tried ahead: the host's own would be changed.
#[test]
fn a_setting_that_is_refused_late_is_told_the_same_way_and_leaves_nothing() {
    let host = Host::new("judged-late");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let output = host.run(&["true"], |c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        c["linux"]["sysctl"] = json!({"user.max_cgroup_namespaces": "many"});
    });
    let said = unescaped(&output);
    assert!(!output.status.success());
    assert!(said.contains(r#"config.json: linux.sysctl.user.max_cgroup_namespaces: "many": the kernel refuses it"#), "{said}");
    host.assert_clean();
}
