//! The command line of the real binary: what its commands promise beyond a container's plain life.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

mod support;
use support::{Host, text};

fn status(host: &Host, id: &str) -> Value {
    serde_json::from_slice::<Value>(&host.rrun(&["state", id]).stdout).unwrap()["status"].clone()
}

/// The command by way of bash, for descriptors and variables that are its own.
fn by_bash(host: &Host, line: &str, args: &[&str]) -> String {
    let rrun = host.command(args);
    let output =
        Command::new("bash").args(["-c", line]).arg(rrun.get_program()).args(rrun.get_args()).current_dir(host.bundle()).output().unwrap();
    text(&output)
}

#[test]
fn a_container_can_be_paused_before_its_start_and_resumed() {
    let host = Host::new("pausecreated");
    let id = host.id(0);
    host.configure(&["sleep", "1000"], |_| {});
    assert!(host.quiet(&["create", &id]));
    assert!(host.quiet(&["pause", &id]));
    assert_eq!(status(&host, &id), "paused");
    let start = host.rrun(&["start", &id]);
    assert!(text(&start).contains("cannot start a container in the paused state"), "{}", text(&start));
    assert!(host.quiet(&["resume", &id]));
    assert_eq!(status(&host, &id), "created");
    assert!(host.quiet(&["start", &id]));
    assert_eq!(status(&host, &id), "running");
    assert!(host.quiet(&["delete", "--force", &id]));
    host.assert_clean();
}

#[test]
fn pid_files_have_the_callers_umask() {
    let host = Host::new("pidfile");
    let id = host.id(0);
    host.configure(&["sleep", "1000"], |_| {});
    let mode = |name: &str| fs::metadata(host.dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    by_bash(&host, "umask 027; \"$0\" \"$@\" </dev/null &>/dev/null", &["create", "--pid-file", "pid", &id]);
    assert!(host.quiet(&["start", &id]));
    by_bash(&host, "umask 022; \"$0\" \"$@\" </dev/null &>/dev/null", &["exec", "-d", "--pid-file", "exec.pid", &id, "sleep", "100"]);
    assert_eq!((mode("pid"), mode("exec.pid")), (0o640, 0o644), "nobody else may write a pid that somebody will signal");
}

#[test]
fn sockets_of_systemd_are_the_containers_only_if_they_were_meant_for_the_runtime() {
    let host = Host::new("listenfds");
    host.configure(&["sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | wc -l"], |_| {});
    fs::remove_file(host.dir.path().join("rootfs/bin/true")).unwrap();
    std::os::unix::fs::symlink("busybox", host.dir.path().join("rootfs/bin/wc")).unwrap();
    let run = |pid: &str| {
        by_bash(&host, &format!("LISTEN_FDS=1 LISTEN_PID={pid} exec \"$0\" \"$@\" 3</dev/null </dev/null"), &["run", &host.id(0)])
    };
    assert_eq!(run("$$"), "1 1\n5\n");
    assert_eq!(run("1"), "\n4\n");
    host.assert_clean();
}

#[test]
fn a_descriptor_that_is_to_be_preserved_must_be_there() {
    let host = Host::new("preserve");
    host.configure(&["true"], |_| {});
    let said = by_bash(&host, "exec \"$0\" \"$@\" 3</dev/null </dev/null", &["run", "--preserve-fds", "2", &host.id(0)]);
    assert!(said.contains("--preserve-fds 2: descriptor 4 is not open"), "{said}");
    assert_eq!(by_bash(&host, "exec \"$0\" \"$@\" 3</dev/null 4</dev/null </dev/null", &["run", "--preserve-fds", "2", &host.id(0)]), "");
    host.assert_clean();
}

/// Else the first files that the runtime opens would be the container's stdio.
#[test]
fn what_the_caller_has_closed_is_no_file_of_the_runtimes() {
    let host = Host::new("closedstdio");
    host.configure(&["sh", "-c", "for n in 0 1 2; do [ -c /proc/self/fd/$n ] || exit 1; done; exit 7"], |_| {});
    let said = by_bash(&host, "\"$0\" \"$@\" <&- >&- 2>&-; echo $?", &["run", &host.id(0)]);
    assert_eq!(said, "7\n");
    host.assert_clean();
}

/// By the v2 tree where there is one, by the v1 hierarchy where that is all.
#[test]
fn events_tell_of_memory_pressure() {
    use std::io::{BufRead, BufReader};
    for view in ["", "umount /sys/fs/cgroup/unified;"] {
        let host = Host::new("pressure");
        let id = host.id(0);
        // Until the test has heard of it, or a minute is over.
        host.configure(&["sh", "-c", "n=0; while [ $n -lt 60 ] && [ ! -e /heard ]; do timeout 1 sh -c 'while :; do head -c 64000000 /dev/zero >/large; done'; n=$((n+1)); done"], |c| {
            c["root"]["readonly"] = false.into();
            c["linux"]["resources"]["memory"] = serde_json::json!({"limit": 8 << 20});
        });
        for applet in ["timeout", "head"] {
            std::os::unix::fs::symlink("busybox", host.dir.path().join("rootfs/bin").join(applet)).unwrap();
        }
        let line = format!("{view} \"$0\" \"$@\"");
        let in_view = |args: &[&str]| {
            let rrun = host.command(args);
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "bash", "-c", &line]).arg(rrun.get_program()).args(rrun.get_args());
            command.current_dir(host.bundle()).stdin(std::process::Stdio::null());
            command
        };
        let quiet = in_view(&["run", "-d", &id]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
        assert!(quiet.unwrap().success());
        let mut events = in_view(&["events", "--interval", "1h", &id]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(events.stdout.take().unwrap()).lines().map(Result::unwrap);
        let heard: Value =
            serde_json::from_str(&said.find(|line| line.contains("pressure\",\"id")).expect("it is told before the container ends"))
                .unwrap();
        assert_eq!((&heard["type"], &heard["id"]), (&"pressure".into(), &id.as_str().into()));
        assert!(heard["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 1 << 20, "{heard}");
        assert!(in_view(&["delete", "--force", &id]).status().unwrap().success());
        // The container's end ends it.
        drop(said);
        events.wait().unwrap();
        host.assert_clean();
    }
}

#[test]
fn features_names_what_config_json_may_ask_for() {
    let host = Host::new("features");
    let features: Value = serde_json::from_slice(&host.rrun(&["features"]).stdout).unwrap();
    assert_eq!(features["potentiallyUnsafeConfigAnnotations"], serde_json::json!(["org.systemd.property."]));
    // Each architecture that is told can be used, and one of the other byte order is not told.
    let architectures: Vec<&str> = features["linux"]["seccomp"]["archs"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert!(architectures.contains(&"SCMP_ARCH_X86_64") && architectures.contains(&"SCMP_ARCH_RISCV64"), "{architectures:?}");
    assert!(!architectures.contains(&"SCMP_ARCH_S390X"), "{architectures:?}");
    let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures});
    let output = host.run(&["true"], |c| c["linux"]["seccomp"] = profile);
    assert_eq!(text(&output), "");
    host.assert_clean();
}

#[test]
fn kernel_memory_is_a_flag_that_only_warns() {
    let host = Host::new("kmem");
    let id = host.id(0);
    host.configure(&["sleep", "1000"], |_| {});
    assert!(host.quiet(&["run", "-d", &id]));
    for flag in ["--kernel-memory", "--kernel-memory-tcp"] {
        let output = host.rrun(&["update", flag, "50M", &id]);
        assert!(output.status.success() && text(&output).contains("Kernel memory settings are ignored"), "{}", text(&output));
    }
}

/// Beside v1 hierarchies the v2 tree has what those leave to it: here huge pages, everywhere its own files.
#[test]
fn unified_keys_reach_the_v2_tree_beside_v1() {
    let host = Host::new("unified");
    let id = host.id(0);
    host.configure(&["sleep", "1000"], |c| {
        c["linux"]["resources"]["unified"] = serde_json::json!({"hugetlb.2MB.max": "4194304", "cgroup.max.depth": "3"});
    });
    assert!(host.quiet(&["run", "-d", &id]));
    let read = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/unified/{}/{file}", host.prefix)).unwrap().trim().to_string();
    assert_eq!((read("hugetlb.2MB.max").as_str(), read("cgroup.max.depth").as_str()), ("4194304", "3"));
    assert!(host.quiet(&["delete", "--force", &id]));
    let refused = host.run(&["true"], |c| c["linux"]["resources"]["unified"] = serde_json::json!({"memory.max": "5"}));
    assert!(text(&refused).contains("memory is in the cgroup v1 hierarchy"), "{}", text(&refused));
    host.assert_clean();
}
