//! What the runtime writes to procfs reaches the kernel, whatever lies over the host's /proc.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

mod support;
use support::{Host, text};

/// Runs the container where a tmpfs with files of the expected names lies over the host's /proc/sys/net, as a neighbour in the same
/// mount namespace could have put it.
fn run_with_covered_settings(host: &Host, change: impl FnOnce(&mut Value)) -> String {
    host.configure(&["sh", "-c", "cat /proc/sys/net/core/somaxconn /proc/self/uid_map"], change);
    let fake = host.dir.path().join("fake");
    fs::create_dir_all(fake.join("core")).unwrap();
    fs::write(fake.join("core/somaxconn"), "").unwrap();
    let run = host.command(&["run", &host.id(0)]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", "mount --bind \"$0\" /proc/sys/net && exec \"$@\""]).arg(&fake);
    command.arg(run.get_program()).args(run.get_args()).current_dir(host.dir.path());
    let said = text(&command.output().unwrap());
    assert_eq!(fs::read_to_string(fake.join("core/somaxconn")).unwrap(), "", "the neighbour's file was written: {said}");
    said
}

#[test]
fn a_sysctl_is_set_though_the_hosts_proc_is_covered() {
    let host = Host::new("covered-sys");
    let said = run_with_covered_settings(&host, |c| c["linux"]["sysctl"] = json!({"net.core.somaxconn": "77"}));
    assert!(said.starts_with("77\n"), "{said}");
    // The container's own procfs cannot serve for it when nobody may write to it.
    let said = run_with_covered_settings(&host, |c| {
        c["linux"]["sysctl"] = json!({"net.core.somaxconn": "78"});
        c["mounts"][0]["options"] = json!(["ro"]);
        c["process"]["args"][2] = "cat /proc/sys/net/core/somaxconn; echo 5 >/proc/self/oom_score_adj".into();
    });
    assert!(said.starts_with("78\n") && said.contains("Read-only"), "{said}");
    host.assert_clean();
}

/// A user namespace may mount no procfs where the host's has parts covered: what it may have serves as well.
#[test]
fn a_user_namespace_is_mapped_though_the_hosts_proc_is_covered() {
    let host = Host::new("covered-user");
    for dir in ["proc", "sys", "dev"] {
        fs::create_dir(host.dir.path().join("rootfs").join(dir)).unwrap();
    }
    let said = run_with_covered_settings(&host, |c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        c["process"]["oomScoreAdj"] = 5.into();
        c["mounts"][0] = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
    });
    assert!(said.contains("100000"), "{said}");
    host.assert_clean();
}

/// Scripts read the first line of `mount` as the root: the mounts are told in the order in which they were made (Linux 6.8).
#[test]
fn the_root_is_the_first_of_the_containers_mounts() {
    let host = Host::new("first-mount");
    let mut said = Vec::new();
    for score in [Value::Null, json!(5)] {
        let run = host.run(&["sh", "-c", "cut -d' ' -f2 /proc/mounts"], |c| {
            if !score.is_null() {
                c["process"]["oomScoreAdj"] = score;
                c["linux"]["sysctl"] = json!({"net.core.somaxconn": "77"});
            }
        });
        said.push(text(&run));
    }
    assert!(said[0].starts_with("/\n/proc\n"), "{said:?}");
    assert_eq!(said[0], said[1], "whatever is written to procfs");
    host.assert_clean();
}
