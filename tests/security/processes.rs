//! Who the container's processes are, and what they can do to the runtime.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::arena::{Arena, Runtime, copy_program, first_process_below, naive, text, unless, withstands};

const ALL: [&str; 8] =
    ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_KILL", "CAP_SYS_PTRACE", "CAP_SYS_CHROOT", "CAP_SETUID"];

/// CVE-2019-5736: a container opens the executable of a runtime that enters it, and writes once it is idle.
#[test]
fn the_runtimes_executable_is_overwritten() {
    withstands("self-exe", |arena| {
        let binary = arena.dir.path().join("runtime-binary");
        let original: std::path::PathBuf = match arena.runtime {
            Runtime::Rrun => rcontainerd_tests::host::programs().join("rrun"),
            Runtime::Naive => "/usr/bin/busybox".into(),
        };
        copy_program(&original, &binary);
        let before = fs::read(&binary).unwrap();
        // Opened for reading as soon as it shows, written through the descriptor again and again until nobody runs it.
        let writer = "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || { exec 3<$p/exe && for n in $(seq 60); do echo PWNED 2>/dev/null >/proc/self/fd/3 && break; done; exec 3<&-; } 2>/dev/null; done; done";
        arena.configure(&["sh", "-c", writer], |c| {
            let all = json!(ALL);
            c["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
        });
        let state = arena.dir.path().join("state");
        let rrun = |args: &[&str]| Command::new(&binary).arg("--root").arg(&state).args(args).stdin(Stdio::null()).output();
        let mut container = match arena.runtime {
            Runtime::Rrun => {
                let bundle = arena.dir.path().join("bundle");
                let mut run = Command::new(&binary);
                run.arg("--root").arg(&state).args(["run", "--bundle"]).arg(bundle).arg(arena.id());
                run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            }
            Runtime::Naive => arena.run_command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap(),
        };
        for _ in 0..40 {
            match arena.runtime {
                // An error is as good as none: what counts is the file.
                Runtime::Rrun => drop(rrun(&["exec", arena.id(), "/proc/self/exe"])),
                Runtime::Naive => {
                    let Some(pid) = first_process_below(container.id()) else { continue };
                    let mut exec = Command::new("bash");
                    exec.arg(naive()).args(["exec", &pid.to_string(), "/proc/self/exe", "sleep", "0.1"]).env("NAIVE_BINARY", &binary);
                    drop(exec.stdin(Stdio::null()).output());
                }
            }
            if fs::read(&binary).unwrap() != before {
                break;
            }
        }
        match arena.runtime {
            Runtime::Rrun => drop(arena.rrun().args(["delete", "--force", arena.id()]).output()),
            Runtime::Naive => {
                let Some(pid) = first_process_below(container.id()) else { return Err("no container".into()) };
                drop(Command::new("kill").args(["-9", &pid.to_string()]).status());
            }
        }
        container.wait().unwrap();
        unless(fs::read(&binary).unwrap() != before, "the runtime's executable was overwritten")
    });
}

/// CVE-2022-29162 and kin: inheritable capabilities that nobody asked for.
#[test]
fn nothing_is_inheritable() {
    withstands("capinh", |arena| {
        arena.configure(&["grep", "CapInh", "/proc/self/status"], |c| {
            c["process"]["capabilities"] = json!({"bounding": ALL, "effective": ALL, "permitted": ALL});
        });
        let output = arena.run();
        unless(!text(&output).contains("0000000000000000"), text(&output))
    });
}

/// CVE-2022-36109, CVE-2023-25173, CVE-2022-2989: groups of the caller.
#[test]
fn the_callers_groups_stay_out() {
    withstands("groups", |arena| {
        arena.configure(&["grep", "Groups:", "/proc/self/status"], |_| {});
        let inner = arena.run_command();
        let mut command = Command::new("setpriv");
        command.args(["--groups", "4242,4243"]).arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(text(&output).contains("Groups:"), "{}", text(&output));
        unless(text(&output).contains("4242"), text(&output))
    });
}

/// CVE-2024-40635, CVE-2026-46680: ids that wrap, or are no ids, must not become root.
#[test]
fn ids_out_of_range_are_refused() {
    for user in [
        json!({"uid": 4294967295u32}),
        json!({"uid": 4294967296u64}),
        json!({"uid": -4294967296i64}),
        json!({"uid": -1}),
        json!({"uid": 1, "additionalGids": [4294967295u32]}),
    ] {
        let wraps = [json!(4294967296u64), json!(-4294967296i64)].contains(&user["uid"]);
        withstands("ids", |arena| {
            arena.configure(&["id"], |c| c["process"]["user"] = user.clone());
            let output = arena.run();
            unless(text(&output).contains("uid=") || (arena.runtime == Runtime::Naive && !wraps), format!("{user}: {}", text(&output)))
        });
    }
}

/// CVE-2021-43784: so many id mappings that a length wraps, the last of which would map the host's root.
#[test]
fn mappings_that_are_too_many_are_refused() {
    let arena = Arena::quiet("mappings");
    let mut mappings: Vec<_> = (0..70_000u32).map(|n| json!({"containerID": n + 1, "hostID": 100_000 + n, "size": 1})).collect();
    mappings.push(json!({"containerID": 0, "hostID": 0, "size": 1}));
    arena.configure(&["cat", "/proc/self/uid_map"], |c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        c["linux"]["uidMappings"] = json!(mappings);
        c["linux"]["gidMappings"] = json!(mappings);
    });
    let output = arena.run();
    assert!(!output.status.success() && !text(&output).contains("         0          0"), "{}", text(&output));
}
