//! The real binary, as root, on bundles made of busybox-static: what it promises, and that nothing stays behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

mod support;
use support::{Host, text};

#[test]
fn run_passes_output_and_exit_code_and_leaves_nothing() {
    let host = Host::new("run");
    let output = host.run(&["sh", "-c", "echo out; echo err >&2; exit 7"], |_| {});
    assert_eq!((output.status.code(), output.stdout.as_slice(), output.stderr.as_slice()), (Some(7), &b"out\n"[..], &b"err\n"[..]));
    host.assert_clean();
}

#[test]
fn create_start_exec_kill_delete() {
    let host = Host::new("cycle");
    let id = host.id(0);
    host.configure(&["sleep", "1000"], |_| {});
    let status = || serde_json::from_slice::<Value>(&host.rrun(&["state", &id]).stdout).unwrap()["status"].clone();
    assert!(host.quiet(&["create", "--pid-file", "pid", &id]));
    assert_eq!(status(), "created");
    assert!(text(&host.rrun(&["run", &id])).contains("container with given ID already exists"));
    assert!(host.quiet(&["start", &id]));
    assert_eq!(status(), "running");
    let twice = host.rrun(&["start", &id]);
    assert!(text(&twice).contains("cannot start an already running container"), "{}", text(&twice));
    let exec = host.rrun(&["exec", "-u", "5:6", "-e", "A=b", "--cwd", "/bin", &id, "sh", "-c", "id -u; id -g; echo $A; pwd; exit 9"]);
    assert_eq!((exec.status.code(), text(&exec).as_str()), (Some(9), "5\n6\nb\n/bin\n"));
    assert!(host.quiet(&["pause", &id]));
    assert_eq!(status(), "paused");
    assert!(!host.quiet(&["exec", &id, "true"]));
    assert!(host.quiet(&["resume", &id]));
    assert!(!host.quiet(&["delete", &id]), "a running container is not deleted without force");
    assert!(host.quiet(&["kill", &id, "KILL"]));
    assert!(host.quiet(&["delete", "--force", &id]));
    assert!(text(&host.rrun(&["state", &id])).contains("container does not exist"));
    host.assert_clean();
}

#[test]
fn what_cannot_be_run_is_told_in_the_fields_words_and_leaves_nothing() {
    let host = Host::new("words");
    let bin = host.dir.path().join("rootfs/bin");
    let write = |name: &str, content: &[u8], mode| {
        fs::write(bin.join(name), content).unwrap();
        fs::set_permissions(bin.join(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    write("garbage", b"\x01\x02\x03\x04", 0o755);
    write("orphan", b"#!/no/such/interpreter\n", 0o755);
    write("data", b"", 0o644);
    let table = [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("/nosuch", "exec: \"/nosuch\": stat /nosuch: no such file or directory"),
        ("/bin/data", "exec: \"/bin/data\": permission denied"),
        ("/bin/garbage", "exec /bin/garbage: exec format error"),
        ("/bin/orphan", "exec /bin/orphan: no such file or directory"),
        ("/bin", "exec: \"/bin\": stat /bin: is a directory"),
    ];
    for (program, words) in table {
        let output = host.run(&[program], |_| {});
        assert_eq!(output.status.code(), Some(1), "{program}");
        let said = text(&output);
        if words.starts_with("exec /") {
            assert_eq!(said, format!("{words}\n"));
        } else {
            assert!(said.contains("unable to start container process: ") && said.contains(&words.replace('"', "\\\"")), "{said}");
        }
        host.assert_clean();
    }
}

#[test]
fn start_tells_why_the_program_cannot_be_run() {
    let host = Host::new("start");
    let id = host.id(0);
    fs::write(host.dir.path().join("rootfs/bin/garbage"), b"\x01").unwrap();
    fs::set_permissions(host.dir.path().join("rootfs/bin/garbage"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    host.configure(&["/bin/garbage"], |_| {});
    assert!(host.quiet(&["create", &id]));
    let output = host.rrun(&["start", &id]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("exec format error"), "{}", text(&output));
}

#[test]
fn identity_limits_and_privileges_are_as_configured() {
    let host = Host::new("identity");
    let script = "id -u; id -g; id -G; ulimit -n; grep -E 'CapInh|CapEff|CapBnd|NoNewPrivs' /proc/self/status | cat";
    let output = host.run(&["sh", "-c", script], |c| {
        c["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7]});
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 400, "hard": 500}]);
        let kill = json!(["CAP_KILL", "CAP_UNHEARD_OF"]);
        c["process"]["capabilities"] = json!({"bounding": kill, "effective": kill, "permitted": kill});
    });
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.starts_with("5\n6\n6 7\n400\n"), "{}", text(&output));
    assert!(
        out.contains("CapInh:\t0000000000000000") && out.contains("CapBnd:\t0000000000000020") && out.contains("NoNewPrivs:\t1"),
        "{out}"
    );
    assert!(text(&output).contains("ignoring unknown capability"));
    host.assert_clean();
}

#[test]
fn a_user_namespace_maps_root() {
    let host = Host::new("userns");
    // The mapped root owns nothing here, so it cannot make mount points.
    for dir in ["proc", "sys", "dev"] {
        fs::create_dir(host.dir.path().join("rootfs").join(dir)).unwrap();
    }
    let output = host.run(&["sh", "-c", "id -u; cat /proc/self/uid_map; echo x > /dev/null && echo null-works"], |c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
    });
    let out = text(&output);
    assert!(out.starts_with("0\n") && out.contains("100000") && out.contains("null-works"), "{out}");
    host.assert_clean();
}

#[test]
fn a_time_namespace_is_offset_before_anybody_is_in_it() {
    let host = Host::new("timens");
    let output = host.run(&["cat", "/proc/uptime"], |c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 50_000_000}});
    });
    let uptime: f64 = text(&output).split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{}", text(&output)));
    assert!(uptime >= 50_000_000.0);
    host.assert_clean();
}

#[test]
fn masked_and_readonly_paths_hold() {
    let host = Host::new("masked");
    let secret = host.dir.path().join("rootfs/secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "k").unwrap();
    fs::write(host.dir.path().join("rootfs/file"), "contents").unwrap();
    let output = host.run(
        &["sh", "-c", "ls /secret; cat /file; echo x > /file; cat /file; echo 1 > /proc/sys/kernel/domainname || echo refused"],
        |c| {
            c["root"]["readonly"] = false.into();
            c["linux"]["maskedPaths"] = json!(["/secret", "/file", "/not/there"]);
        },
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "refused\n", "{}", text(&output));
    assert_eq!(fs::read_to_string(host.dir.path().join("rootfs/file")).unwrap(), "contents");
    host.assert_clean();
}

#[test]
fn a_mask_over_a_null_device_that_an_image_faked_is_refused() {
    let host = Host::new("fakenull");
    fs::create_dir(host.dir.path().join("rootfs/dev")).unwrap();
    fs::write(host.dir.path().join("rootfs/dev/null"), "").unwrap();
    let output = host.run(&["true"], |c| {
        c["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    });
    assert!(!output.status.success() && text(&output).contains("/dev/null"), "{}", text(&output));
    host.assert_clean();
}

#[test]
fn proc_through_a_symlink_of_the_image_is_refused() {
    let host = Host::new("proclink");
    fs::create_dir(host.dir.path().join("rootfs/elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", host.dir.path().join("rootfs/proc")).unwrap();
    let output = host.run(&["true"], |_| {});
    assert!(text(&output).contains("must be mounted on ordinary directory"), "{}", text(&output));
    host.assert_clean();
}

#[test]
fn a_mount_target_that_is_an_absolute_symlink_stays_inside_the_root() {
    let host = Host::new("escape");
    let outside = host.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(host.dir.path().join("volume")).unwrap();
    fs::write(host.dir.path().join("volume/mark"), "inside").unwrap();
    std::os::unix::fs::symlink(&outside, host.dir.path().join("rootfs/link")).unwrap();
    let output = host.run(&["cat", "/link/mark"], |c| {
        c["root"]["readonly"] = false.into();
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/link", "type": "bind", "source": "volume", "options": ["rbind", "rprivate"]}));
    });
    assert_eq!(text(&output), "inside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "the host's directory of that name is untouched");
}

#[test]
fn hooks_run_in_order_with_the_state_and_a_failing_or_slow_one_undoes_all() {
    let host = Host::new("hooks");
    let log = host.dir.path().join("hooks.log");
    let hook =
        |kind: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {kind} $(cat | tr -d ' ') >> {}", log.display())]}]);
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    host.run(&["true"], |c| c["hooks"] = kinds.iter().map(|k| ((*k).to_string(), hook(k))).collect::<serde_json::Map<_, _>>().into());
    let said = fs::read_to_string(&log).unwrap();
    let order: Vec<&str> = said.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(order, kinds);
    assert!(said.contains(&format!("\"bundle\":\"{}\"", host.bundle())), "{said}");
    for (args, words) in [("echo why >&2; exit 3", "exit status: 3, stdout: , stderr: why"), ("exec sleep 30", "timed out after 1 s")] {
        let output =
            host.run(&["true"], |c| c["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", args], "timeout": 1}]}));
        assert!(text(&output).contains(words), "{}", text(&output));
        host.assert_clean();
    }
}

#[test]
fn seccomp_applies_with_and_without_no_new_privileges() {
    let host = Host::new("seccomp");
    for nnp in [true, false] {
        let output = host.run(&["mkdir", "/made"], |c| {
            c["root"]["readonly"] = false.into();
            c["process"]["noNewPrivileges"] = nnp.into();
            c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]});
        });
        assert!(!output.status.success() && text(&output).contains("Permission denied"), "{}", text(&output));
        assert!(!Path::new(&host.dir.path().join("rootfs/made")).exists());
    }
    host.assert_clean();
}

#[test]
fn no_descriptor_leaks_into_the_container() {
    let host = Host::new("fds");
    let output = host.run(&["ls", "/proc/self/fd"], |_| {});
    // 3 is ls's own, of the directory.
    assert_eq!(text(&output), "0\n1\n2\n3\n");
}

#[test]
fn a_file_on_a_directory_and_the_other_way_round_are_told_apart_from_other_bad_mounts() {
    let host = Host::new("misfit");
    fs::write(host.dir.path().join("file"), "").unwrap();
    fs::create_dir(host.dir.path().join("dir")).unwrap();
    for (source, to, said) in [
        (Some("file"), "/bin", "the source is a file, the destination a directory"),
        (Some("dir"), "/bin/busybox", "the source is a directory, the destination a file"),
        (None, "/bin/busybox", "the source is a directory, the destination a file"),
    ] {
        let output = host.run(&["true"], |config| {
            let mount = match source {
                Some(name) => json!({"source": host.dir.path().join(name), "destination": to, "options": ["bind"]}),
                None => json!({"type": "tmpfs", "source": "tmpfs", "destination": to}),
            };
            config["mounts"].as_array_mut().unwrap().push(mount);
        });
        let told = text(&output);
        assert!(told.contains(&format!("not a directory: {said}")), "{told}");
        host.configure(&["true"], |config| drop(config["mounts"].as_array_mut().unwrap().pop()));
        host.assert_clean();
    }
}

#[test]
fn the_program_starts_with_default_signals_whatever_the_caller_ignores() {
    let host = Host::new("signals");
    host.configure(&["grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status"], |_| {});
    let line = "trap '' HUP INT PIPE USR1 RTMIN RTMAX; exec \"$0\" \"$@\"";
    let rrun = host.command(&["run", &host.id(0)]);
    let output =
        Command::new("bash").args(["-c", line]).arg(rrun.get_program()).args(rrun.get_args()).current_dir(host.bundle()).output().unwrap();
    let none = "0000000000000000";
    assert_eq!(text(&output), format!("SigBlk:\t{none}\nSigIgn:\t{none}\nSigCgt:\t{none}\n"));
}

#[test]
fn the_runtimes_executable_cannot_be_written_from_inside() {
    let host = Host::new("exe");
    // A copy, which no other test runs: ETXTBSY would hide what is asked here.
    let own = host.dir.path().join("rrun-copy");
    support::copy_program(env!("CARGO_BIN_EXE_rrun"), &own);
    let run = |args: &[&str]| {
        let mut command = Command::new(&own);
        command.arg("--root").arg(host.dir.path().join("state")).args(args).current_dir(host.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    let id = host.id(0);
    host.configure(&["sleep", "1000"], |_| {});
    assert!(run(&["create", &id]));
    let state: Value = serde_json::from_slice(&host.rrun(&["state", &id]).stdout).unwrap();
    // The waiting first process runs the runtime's file: the attack keeps a descriptor of it and writes when nobody runs it.
    let exe = fs::File::open(format!("/proc/{}/exe", state["pid"])).unwrap();
    assert!(run(&["delete", "--force", &id]));
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&exe));
    let e = fs::OpenOptions::new().write(true).open(again).unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{e}");
}

#[test]
fn bad_configurations_are_refused_before_anything_is_made() {
    let host = Host::new("bad");
    let table = [
        ("/process/cwd", json!("relative"), "config.json: process.cwd"),
        ("/process/args", json!([]), "config.json: process.args"),
        ("/linux/namespaces/0/type", json!("nonsense"), "config.json: linux.namespaces[0].type"),
        ("/root/path", json!("missing"), "config.json: root.path"),
        ("/process/user/uid", json!("root"), "config.json: process.user.uid: invalid type"),
        ("/process/cwd", json!("/a\0b"), "config.json: process.cwd: "),
        ("/process/apparmorProfile", json!("p"), "config.json: process.apparmorProfile: "),
        ("/mounts/0/options", json!(["bind", "size=1"]), "config.json: mounts[0]: /proc: "),
        ("/linux/namespaces/0/path", json!("/nosuch"), "config.json: linux.namespaces[0].path: "),
        ("/linux/namespaces/0/path", json!("/proc/self/ns/uts"), "is no pid namespace"),
        ("/linux/namespaces/0/path", json!("/etc/hostname"), "is no pid namespace"),
        ("/linux/resources", json!({"memory": {"limit": -5}}), "config.json: linux.resources: cgroup: memory.limit: -5: must be"),
        ("/linux/resources", json!({"devices": [{"allow": true, "access": "x"}]}), "linux.resources: cgroup: devices[0].access: "),
    ];
    let set = |config: &mut Value, pointer: &str, value: Value| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match config.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
            object => object[name] = value,
        }
    };
    let good = fs::read(host.dir.path().join("config.json")).unwrap();
    for (pointer, value, words) in table {
        fs::write(host.dir.path().join("config.json"), &good).unwrap();
        let output = host.run(&["true"], |c| set(c, pointer, value));
        // Text of the log, where quotes are escaped.
        assert!(!output.status.success() && text(&output).contains(&words.replace('"', "\\\"")), "{}", text(&output));
        assert!(!host.dir.path().join("state").exists(), "nothing is made before all is judged");
    }
}

#[test]
fn regression_a_tmpfs_on_a_new_directory_is_writable_for_every_user_one_on_an_old_keeps_its_mode() {
    let host = Host::new("tmpfs");
    let old = host.dir.path().join("rootfs/old");
    fs::create_dir(&old).unwrap();
    fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o710)).unwrap();
    let output = host.run(&["ls", "-ld", "/new", "/old"], |c| {
        for destination in ["/new", "/old"] {
            c["mounts"].as_array_mut().unwrap().push(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
        }
    });
    let modes: Vec<String> = text(&output).lines().map(|l| l[..10].to_string()).collect();
    assert_eq!(modes, ["drwxrwxrwt", "drwx--x---"], "{}", text(&output));
}

#[test]
fn what_a_killed_create_left_is_removed_by_force() {
    let host = Host::new("killed");
    let id = host.id(0);
    host.configure(&["true"], |c| c["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]}));
    let mut create = host.command(&["create", &id]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The hook's process is the sign that everything before it is done.
    let children = format!("/proc/{0}/task/{0}/children", create.id());
    let hook = loop {
        let pids: Vec<i32> = fs::read_to_string(&children).unwrap().split_whitespace().map(|p| p.parse().unwrap()).collect();
        let is_hook = |pid: &&i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep");
        if let Some(hook) = pids.iter().find(is_hook) {
            break *hook;
        }
        std::thread::yield_now();
    };
    create.kill().unwrap();
    create.wait().unwrap();
    Command::new("kill").arg("-9").arg(hook.to_string()).status().unwrap();
    assert!(!host.leftovers().is_empty(), "this test is about leftovers");
    assert!(host.quiet(&["delete", "--force", &id]));
    host.assert_clean();
}

/// Needs `--features failpoints`: a failure at every single step, each of which must leave nothing.
#[cfg(feature = "failpoints")]
#[test]
fn a_failure_at_any_step_leaves_nothing() {
    let host = Host::new("failpoints");
    let steps = [
        "cgroup",
        "spawned",
        "EnterCgroups",
        "OpenProc",
        "OomScoreAdj",
        "Hide",
        "NewSession",
        "NewKeyring",
        "NewCgroupNamespace",
        "Hostname",
        "TreePropagation",
        "mounting /proc",
        "mounting /sys/fs/cgroup",
        "Devices",
        "DevLinks",
        "PivotRoot",
        "ReadonlyPaths",
        "MaskPaths",
        "ReadonlyRoot",
        "FindProgram",
        "CloseDescriptors",
        "BecomeUser",
        "AwaitStart",
        "ready",
        "Exec",
    ];
    // A process is cloned into its cgroup where there is the v2 tree alone.
    let pure_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for step in steps.into_iter().filter(|step| !(pure_v2 && *step == "EnterCgroups")) {
        host.configure(&["true"], |c| {
            c["process"]["oomScoreAdj"] = 5.into();
            let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|n| n["type"] != "cgroup");
            namespaces.push(json!({"type": "cgroup"}));
        });
        let output = host.command(&["run", &host.id(0)]).env("RRUN_FAILPOINT", step).output().unwrap();
        assert!(!output.status.success() && text(&output).contains(&format!("failpoint {step}")), "{step}: {}", text(&output));
        host.assert_clean();
    }
}

/// Needs `--features failpoints`.
#[cfg(feature = "failpoints")]
#[test]
fn a_failure_at_any_step_leaves_nothing_on_the_host() {
    let host = Host::new("hostroot-fail");
    for step in ["root", "cgroup", "spawned", "mounting /proc", "mounting /sys", "Devices", "ChangeRoot", "ReadonlyRoot", "ready", "Exec"] {
        host.configure(&["true"], support::bare);
        let output = host.command(&["run", &host.id(0)]).env("RRUN_FAILPOINT", step).output().unwrap();
        assert!(!output.status.success() && text(&output).contains(&format!("failpoint {step}")), "{step}: {}", text(&output));
        host.assert_clean();
    }
}

#[test]
fn a_container_in_the_foreground_can_be_paused_updated_and_deleted() {
    let host = Host::new("foreground");
    let id = host.id(0);
    host.configure(&["sleep", "1000"], |_| {});
    let mut run = host.command(&["run", &id]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = || serde_json::from_slice::<Value>(&host.rrun(&["state", &id]).stdout).map(|v| v["status"].clone()).unwrap_or_default();
    while status() != "running" {
        assert!(run.try_wait().unwrap().is_none(), "it ended early");
    }
    assert!(host.quiet(&["pause", &id]));
    assert_eq!(status(), "paused");
    assert!(host.quiet(&["resume", &id]));
    assert!(host.quiet(&["update", "--pids-limit", "100", &id]));
    assert!(host.quiet(&["delete", "--force", &id]));
    assert_eq!(run.wait().unwrap().code(), Some(137));
    host.assert_clean();
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let host = Host::new("pipe");
    for arguments in [vec!["features"], vec!["--help"], vec!["kill", "--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = host.command(&arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn exec_takes_the_cpus_and_the_memory_policy_that_it_is_given() {
    let host = Host::new("cpus");
    let id = host.id(0);
    host.configure(&["sleep", "1000"], |c| {
        c["process"]["execCPUAffinity"] = json!({"initial": "0-1", "final": "1"});
        c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    });
    assert!(host.quiet(&["run", "--detach", &id]));
    let cpus = |args: &[&str]| text(&host.rrun(&[&["exec"], args, &[&id, "grep", "Cpus_allowed_list", "/proc/self/status"]].concat()));
    assert_eq!(cpus(&[]).split_whitespace().last(), Some("1"));
    let policy = text(&host.rrun(&["exec", &id, "cat", "/proc/self/numa_maps"]));
    assert!(policy.contains(" bind=static:0 "), "{policy}");
    // The first process is not exec'd: it has every CPU, also where the runtime has not.
    assert!(host.quiet(&["delete", "--force", &id]));
    host.configure(&["grep", "Cpus_allowed_list", "/proc/self/status"], |_| {});
    let inner = host.command(&["run", &id]);
    let mut bound = Command::new("taskset");
    bound.args(["-c", "0"]).arg(inner.get_program()).args(inner.get_args()).current_dir(host.dir.path());
    let output = bound.output().unwrap();
    assert_eq!(text(&output).split_whitespace().last(), Some("0-1"), "{}", text(&output));
    host.assert_clean();
}

#[test]
fn ids_are_mapped_at_the_mount() {
    let host = Host::new("idmap");
    let volume = host.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    std::os::unix::fs::chown(volume.join("file"), Some(5), Some(6)).unwrap();
    let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1000}]);
    let mount = |extra: Value| {
        let mut mount = json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]});
        extra.as_object().unwrap().iter().for_each(|(key, value)| mount[key] = value.clone());
        mount
    };
    let seen = |mount: Value, user: bool| {
        let output = host.run(&["ls", "-ln", "/volume/file"], |c| {
            c["mounts"].as_array_mut().unwrap().push(mount);
            if user {
                c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
                c["linux"]["uidMappings"] = map(100_000);
                c["linux"]["gidMappings"] = map(100_000);
            }
        });
        text(&output).split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(":")
    };
    assert_eq!(seen(mount(json!({})), false), "5:6");
    assert_eq!(seen(mount(json!({"uidMappings": map(2000), "gidMappings": map(3000)})), false), "2005:3006");
    // Mapped as the container is: its ids are those on the disk.
    assert_eq!(seen(mount(json!({"options": ["rbind", "idmap"]})), true), "5:6");
    host.assert_clean();
}
