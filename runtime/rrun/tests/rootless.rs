//! The real binary as an ordinary user of this machine: with a single id and with granted ones, without a cgroup of its own. (With
//! a user's systemd: tests/vm.)
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

mod support;
use support::{copy_program, text};

/// Has no entry in /etc/passwd.
const NOBODY_SPECIAL: u32 = 61_234;

/// A user with a home: bundle, runtime directory and a copy of the runtime that others may execute.
struct User {
    dir: tempfile::TempDir,
    uid: u32,
    /// Whether newuidmap(1) knows the user: /etc/passwd, subuid and subgid are replaced for its commands.
    granted: bool,
}

impl User {
    fn new(uid: u32) -> User {
        let dir = tempfile::Builder::new().prefix("rrun-rootless-").tempdir().unwrap();
        let user = User { dir, uid, granted: false };
        copy_program(env!("CARGO_BIN_EXE_rrun"), &user.path("rrun"));
        fs::create_dir_all(user.path("bundle/rootfs/bin")).unwrap();
        copy_program("/usr/bin/busybox", &user.path("bundle/rootfs/bin/busybox"));
        for applet in ["sh", "cat", "id", "sleep", "ls", "stat", "cp", "tty"] {
            std::os::unix::fs::symlink("busybox", user.path("bundle/rootfs/bin").join(applet)).unwrap();
        }
        fs::create_dir(user.path("run")).unwrap();
        for path in [".", "rrun", "bundle", "bundle/rootfs", "run"] {
            chown(user.path(path), Some(uid), Some(uid)).unwrap();
            fs::set_permissions(user.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        user
    }

    /// One whom /etc/subuid grants 1000 ids from 700000 on.
    fn granted(uid: u32) -> User {
        let user = User { granted: true, ..User::new(uid) };
        fs::write(user.path("passwd"), format!("root:x:0:0::/:/bin/sh\ngrantee:x:{uid}:{uid}::/:/bin/sh\n")).unwrap();
        fs::write(user.path("subids"), "grantee:700000:1000\n").unwrap();
        user
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = match self.granted {
            true => {
                let script = "mount --bind $0/passwd /etc/passwd && mount --bind $0/subids /etc/subuid && mount --bind $0/subids /etc/subgid && \
                    exec setpriv --reuid $1 --regid $1 --clear-groups -- \"${@:2}\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "bash", "-c", script]).arg(self.dir.path()).args([&self.uid.to_string(), program]);
                command
            }
            false => {
                let mut command = Command::new(program);
                command.uid(self.uid).gid(self.uid);
                command
            }
        };
        command.current_dir(self.path("bundle")).stdin(Stdio::null()).env("XDG_RUNTIME_DIR", self.path("run"));
        for variable in ["DBUS_SESSION_BUS_ADDRESS", "NOTIFY_SOCKET"] {
            command.env_remove(variable);
        }
        command
    }

    fn rrun(&self, args: &[&str]) -> Output {
        self.command(self.path("rrun").to_str().unwrap()).args(args).output().unwrap()
    }

    /// What `spec --rootless` writes, with another program and what else is to be changed.
    fn configure(&self, args: &[&str], change: impl FnOnce(&mut Value)) {
        let path = self.path("bundle/config.json");
        fs::remove_file(&path).unwrap_or_default();
        let spec = self.rrun(&["spec", "--rootless"]);
        assert!(spec.status.success(), "{}", text(&spec));
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(args);
        change(&mut config);
        fs::write(&path, config.to_string()).unwrap();
    }

    /// Standard output of a run that must succeed.
    fn run(&self, args: &[&str], change: impl FnOnce(&mut Value)) -> String {
        self.configure(args, change);
        let output = self.rrun(&["run", "c"]);
        assert!(output.status.success(), "{}: {}", output.status, text(&output));
        self.assert_clean();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The error of a run that must fail and leave nothing.
    fn refused(&self, args: &[&str], change: impl FnOnce(&mut Value)) -> String {
        self.configure(&["id"], change);
        let output = self.rrun(&[args, &["run", "c"]].concat());
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        self.assert_clean();
        text(&output)
    }

    fn assert_clean(&self) {
        let left: Vec<_> = match fs::read_dir(self.path("run/rrun")) {
            Ok(entries) => entries.map(|e| e.unwrap().file_name()).filter(|name| name != ".seccomp").collect(),
            Err(_) => Vec::new(),
        };
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

fn map(ranges: &[(u32, u32, u32)]) -> Value {
    ranges.iter().map(|(container, host, size)| json!({"containerID": container, "hostID": host, "size": size})).collect()
}

fn map_both(config: &mut Value, ranges: &[(u32, u32, u32)]) {
    config["linux"]["uidMappings"] = map(ranges);
    config["linux"]["gidMappings"] = map(ranges);
}

#[test]
fn the_users_own_id_is_root_without_any_helper() {
    let user = User::new(NOBODY_SPECIAL);
    let said = user.run(
        &["sh", "-c", "id -u; id -g; cat /proc/self/uid_map /proc/self/setgroups; stat -c %t:%T /dev/null; ls /sys/fs/cgroup"],
        |_| {},
    );
    let mut lines = said.lines();
    assert_eq!((lines.next(), lines.next()), (Some("0"), Some("0")), "{said}");
    assert_eq!(lines.next().unwrap().split_whitespace().collect::<Vec<_>>(), ["0", "61234", "1"]);
    assert_eq!((lines.next(), lines.next()), (Some("deny"), Some("1:3")), "{said}");
    assert!(lines.next().is_some(), "the cgroup file systems are there: {said}");
}

#[test]
fn a_whole_life_in_the_users_own_state_directory() {
    let user = User::new(NOBODY_SPECIAL + 1);
    user.configure(&["sleep", "1000"], |_| {});
    let quiet = |args: &[&str]| {
        user.command(user.path("rrun").to_str().unwrap()).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
    };
    assert!(quiet(&["create", "c"]).success());
    let mode = fs::metadata(user.path("run/rrun")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1700, "kept from the cleaner, and private");
    assert!(quiet(&["start", "c"]).success());
    let exec = user.rrun(&["exec", "c", "sh", "-c", "id -u; cat /proc/1/cmdline; exit 9"]);
    assert_eq!((exec.status.code(), text(&exec).replace('\0', " ").as_str()), (Some(9), "0\nsleep 1000 "));
    for command in ["pause", "ps"] {
        let output = user.rrun(&[command, "c"]);
        assert!(!output.status.success() && text(&output).contains("has no cgroup"), "{}", text(&output));
    }
    assert!(text(&user.rrun(&["list"])).contains("running"));
    assert!(quiet(&["delete", "--force", "c"]).success());
    user.assert_clean();
}

#[test]
fn granted_ids_are_mapped_by_the_helpers_and_groups_can_be_set() {
    let user = User::granted(NOBODY_SPECIAL + 2);
    let said = user.run(&["sh", "-c", "id -u; id -g; id -G; cat /proc/self/setgroups"], |config| {
        map_both(config, &[(0, user.uid, 1), (1, 700_000, 999)]);
        config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]});
    });
    assert_eq!(said, "5\n6\n6 7 8\nallow\n");
}

#[test]
fn a_single_range_that_is_not_the_own_id_goes_through_the_helpers_too() {
    let user = User::granted(NOBODY_SPECIAL + 3);
    chown(user.path("bundle/rootfs"), Some(700_000), Some(700_000)).unwrap();
    let said = user.run(&["cat", "/proc/self/uid_map"], |config| map_both(config, &[(0, 700_000, 1000)]));
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["0", "700000", "1000"]);
}

#[test]
fn ids_that_were_not_granted_are_refused_in_the_helpers_words() {
    let user = User::granted(NOBODY_SPECIAL + 4);
    let said = user.refused(&[], |config| map_both(config, &[(0, 0, 2)]));
    assert!(said.contains("newuidmap") && said.contains("not allowed"), "{said}");
}

#[test]
fn a_limit_or_a_place_that_cannot_be_had_is_refused_not_left_out() {
    let user = User::new(NOBODY_SPECIAL + 5);
    let limit = ("resources", json!({"pids": {"limit": 5}}), "rootless needs no limits + no cgrouppath");
    for (key, value, words) in [limit, ("cgroupsPath", json!("/some/where"), "unable to apply cgroup configuration")] {
        let said = user.refused(&[], |config| config["linux"][key] = value);
        assert!(said.contains(words) && said.contains("permission denied"), "{said}");
    }
}

#[test]
fn systemd_that_is_not_there_is_told_in_one_line() {
    let user = User::new(NOBODY_SPECIAL + 6);
    let said = user.refused(&["--systemd-cgroup"], |_| {});
    assert!(
        said.contains("the user's systemd cannot be reached") && said.contains("/run/bus") && said.trim().lines().count() == 1,
        "{said}"
    );
}

#[test]
fn root_of_a_user_namespace_is_a_user() {
    let user = User::new(NOBODY_SPECIAL + 7);
    user.configure(&["sh", "-c", "id -u; stat -c %t:%T /dev/null"], |config| {
        // As rootless engines run it: they have made the user namespace.
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "user");
        for key in ["uidMappings", "gidMappings"] {
            config["linux"].as_object_mut().unwrap().remove(key);
        }
    });
    let output = user.command("unshare").args(["--user", "--map-root-user"]).arg(user.path("rrun")).args(["run", "c"]).output().unwrap();
    assert_eq!(text(&output), "0\n1:3\n");
    user.assert_clean();
    // It may join the container's pid namespace, but not go back to one that belongs to the user namespace above.
    fs::write(
        user.path("bundle/config.json"),
        fs::read_to_string(user.path("bundle/config.json")).unwrap().replace("id -u; stat -c %t:%T /dev/null", "sleep 1000"),
    )
    .unwrap();
    let life = "$0 run -d c >out 2>&1; $0 exec c sh -c 'id -u; cat /proc/1/comm' 2>&1; $0 delete -f c 2>&1";
    let output = user.command("unshare").args(["--user", "--map-root-user", "sh", "-c", life]).arg(user.path("rrun")).output().unwrap();
    assert_eq!(text(&output), "0\nsleep\n", "{}", fs::read_to_string(user.path("bundle/out")).unwrap());
    user.assert_clean();
}

#[test]
fn without_a_runtime_directory_the_remedy_is_told() {
    let user = User::new(NOBODY_SPECIAL + 8);
    user.configure(&["id"], |_| {});
    let output = user.command(user.path("rrun").to_str().unwrap()).env_remove("XDG_RUNTIME_DIR").args(["run", "c"]).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("XDG_RUNTIME_DIR"), "{}", text(&output));
}

/// The container's root owns the runtime's file then, and could write to it through /proc/PID/exe (CVE-2019-5736).
#[test]
fn a_runtime_that_is_the_users_own_file_runs_from_a_sealed_copy() {
    let user = User::new(NOBODY_SPECIAL + 9);
    user.configure(&["sleep", "1000"], |_| {});
    let status =
        user.command(user.path("rrun").to_str().unwrap()).args(["create", "c"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success());
    let state: Value = serde_json::from_slice(&user.rrun(&["state", "c"]).stdout).unwrap();
    let running = fs::read_link(format!("/proc/{}/exe", state["pid"])).unwrap();
    assert!(running.to_string_lossy().contains("memfd:"), "{}", running.display());
    assert!(user.rrun(&["delete", "--force", "c"]).status.success());
    user.assert_clean();
}

/// The listener of a profile goes to the supervisor whatever the profile says of the calls that send it.
#[test]
fn a_supervisor_gets_the_listener_of_create_and_exec() {
    let user = User::new(NOBODY_SPECIAL + 11);
    let path = user.path("run/agent.sock");
    let agent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    chown(&path, Some(user.uid), Some(user.uid)).unwrap();
    let heard = std::thread::spawn(move || {
        let told = |connection: std::os::unix::net::UnixStream| {
            let (bytes, listener) = rrun_sys::socket::receive_fd(&connection).unwrap();
            let state: Value = serde_json::from_slice(&bytes).unwrap();
            let listener = listener.unwrap();
            let kind = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener))).unwrap();
            (state["state"]["status"].as_str().unwrap().to_string(), kind.to_string_lossy().into_owned())
        };
        [told(agent.accept().unwrap().0), told(agent.accept().unwrap().0)]
    });
    user.configure(&["sleep", "1000"], |c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}, {"names": ["sendmsg", "sendto"], "action": "SCMP_ACT_ERRNO"}]});
    });
    let quiet = |args: &[&str]| {
        let mut command = user.command(user.path("rrun").to_str().unwrap());
        command.args(args).stdout(Stdio::null()).stderr(fs::File::create(user.path("err")).unwrap()).status().unwrap().success()
    };
    assert!(quiet(&["run", "-d", "c"]), "{}", fs::read_to_string(user.path("err")).unwrap());
    assert!(quiet(&["exec", "c", "ls"]), "{}", fs::read_to_string(user.path("err")).unwrap());
    assert!(quiet(&["delete", "--force", "c"]));
    let listener = "anon_inode:seccomp notify".to_string();
    assert_eq!(heard.join().unwrap(), [("creating".to_string(), listener.clone()), ("running".to_string(), listener)]);
    user.assert_clean();
}

#[test]
fn a_time_namespace_belongs_to_the_user_namespace_that_gives_the_right_to_it() {
    let user = User::new(NOBODY_SPECIAL + 12);
    let offsets = |c: &mut Value| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5, "nanosecs": 7}});
    };
    let seen = user.run(&["cat", "/proc/self/timens_offsets", "/proc/self/uid_map"], offsets);
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "5", "7", "boottime", "1000000", "0", "0", &user.uid.to_string(), "1"]);
    // With ids that need the helpers, too.
    let granted = User::granted(NOBODY_SPECIAL + 13);
    let seen = granted.run(&["cat", "/proc/self/timens_offsets", "/proc/self/uid_map"], |c| {
        offsets(c);
        map_both(c, &[(0, granted.uid, 1), (1, 700_000, 10)]);
    });
    assert!(seen.contains("1000000") && seen.contains("700000"), "{seen}");
}

/// Root of a user namespace has no say over files of a group that it does not have.
#[test]
fn regression_a_working_directory_that_only_the_containers_user_may_enter() {
    let user = User::granted(NOBODY_SPECIAL + 14);
    let home = user.path("bundle/rootfs/home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(700_004), Some(0)).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let at_home = |uid: u32| {
        move |c: &mut Value| {
            map_both(c, &[(0, NOBODY_SPECIAL + 14, 1), (1, 700_000, 10)]);
            c["process"]["user"] = json!({"uid": uid, "gid": uid});
            c["process"]["cwd"] = json!("/home");
        }
    };
    assert_eq!(user.run(&["sh", "-c", "pwd; id -u"], at_home(5)), "/home\n5\n");
    let said = user.refused(&[], at_home(6));
    assert!(said.contains(r#"chdir to cwd (\"/home\") set in config.json failed: permission denied"#), "{said}");
}
