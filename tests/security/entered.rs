//! Attacks on whoever enters a running container: `exec`.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::arena::{Arena, Runtime, text, unless, withstands};

const SECRET: &str = "the host's secret";
const IDLE: &str = "echo ready; exec sleep 1000";

/// CVE-2026-30892 and kin: what is no user's number becomes one, and that one is root.
#[test]
fn users_that_are_no_numbers_are_refused() {
    withstands("exec-user", |arena| {
        let container = arena.start(IDLE, |_| {});
        for user in ["4294967295", "4294967296", "-1", "", "root", "0x0", "1:", ":0", "1:2:3", "++0", "+", " 0", "0 ", "1:4294967295", "٠"]
        {
            let output = container.exec(&[&format!("--user={user}")], &[("NAIVE_USER", user)], &["id"]);
            unless(text(&output).contains("uid="), format!("{user:?}: {}", text(&output)))?;
        }
        Ok(())
    });
}

/// The property behind it: whatever is accepted as a user is the number that it says.
#[test]
fn a_user_that_is_accepted_is_who_it_says() {
    let arena = Arena::quiet("exec-user-says");
    let container = arena.start(IDLE, |_| {});
    for (user, shown) in [("0", "uid=0 gid=0"), ("5", "uid=5 gid=0"), ("+7:+8", "uid=7 gid=8"), ("007:010", "uid=7 gid=10")] {
        let output = container.exec(&["--user", user], &[], &["id"]);
        assert!(text(&output).starts_with(shown), "{user}: {}", text(&output));
    }
    for n in [1u32, 255, 65_535, 65_536, 99_999, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe] {
        let output = container.exec(&["--user", &n.to_string()], &[], &["id"]);
        assert!(text(&output).starts_with(&format!("uid={n} ")), "{n}: {}", text(&output));
    }
}

/// CVE-2024-21626 by exec: a descriptor of the host that the runtime has open as the working directory.
#[test]
fn a_leaked_descriptor_as_working_directory_of_exec() {
    withstands("exec-sweep", |arena| {
        let container = arena.start(IDLE, |_| {});
        let host = fs::File::open("/").unwrap();
        rustix::io::fcntl_setfd(&host, rustix::io::FdFlags::empty()).unwrap();
        let secret = format!("../../../../../../../..{}/secret", arena.canary().display());
        for n in (0..64).chain([host.as_raw_fd()]) {
            let path = format!("/proc/self/fd/{n}");
            let output = container.exec(&["--cwd", &path], &[("NAIVE_CWD", &path)], &["cat", &secret]);
            unless(text(&output).contains(SECRET), format!("descriptor {n} leads to the host"))?;
        }
        let output = container.exec(&[], &[("NAIVE_BINARY", "/usr/bin/env")], &["ls", "/proc/self/fd"]);
        unless(text(&output).split_whitespace().ne(["0", "1", "2", "3"]), format!("descriptors {}", text(&output)))
    });
}

/// CVE-2025-52881: the container replaces its own /proc by something that redirects: exec's writes still reach the kernel.
#[test]
fn execs_writes_do_not_go_through_the_containers_proc() {
    withstands("exec-proc", |arena| {
        let script =
            "mount -t tmpfs tmpfs /proc && mkdir /proc/self /proc/1 && touch /proc/self/oom_score_adj && echo ready && exec sleep 1000";
        let container = arena.start(script, |c| {
            let admin = json!(["CAP_SYS_ADMIN"]);
            c["process"]["capabilities"] = json!({"bounding": admin, "effective": admin, "permitted": admin});
        });
        let process = arena.dir.path().join("process.json");
        let tell = ["sh", "-c", "mkdir -p /p && mount -t proc proc /p && cat /p/self/oom_score_adj"];
        let admin = json!({"bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"]});
        let document = json!({"args": tell, "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 555, "capabilities": admin});
        fs::write(&process, document.to_string()).unwrap();
        let output = match arena.runtime {
            Runtime::Rrun => container.exec(&["--process", process.to_str().unwrap()], &[], &[]),
            Runtime::Naive => container.exec(&[], &[("NAIVE_OOM", "555")], &tell),
        };
        unless(text(&output).trim() != "555", format!("the kernel has {:?}", text(&output)))
    });
}

/// Also while the container waits for its start nothing of the host is held open.
#[test]
fn a_waiting_container_holds_nothing_of_the_host() {
    let arena = Arena::quiet("waiting");
    let host = fs::File::open(arena.canary()).unwrap();
    rustix::io::fcntl_setfd(&host, rustix::io::FdFlags::empty()).unwrap();
    let pid = arena.create();
    let held: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|e| fs::read_link(e.unwrap().path()).unwrap().display().to_string())
        .filter(|target| target.starts_with('/') && !target.starts_with("/dev/null"))
        .collect();
    assert_eq!(held, Vec::<String>::new());
}

/// CVE-2022-29162 by exec: a capability that is added is not inheritable.
#[test]
fn nothing_is_inheritable_by_exec() {
    let arena = Arena::quiet("capinh-exec");
    let container = arena.start(IDLE, |_| {});
    let output = container.exec(&["--cap", "CAP_KILL"], &[], &["grep", "CapInh", "/proc/self/status"]);
    assert!(text(&output).contains("0000000000000000"), "{}", text(&output));
}

/// CVE-2026-119101, CVE-2026-115520, CVE-2026-119614: a checkpoint brings mounts that nobody asked for. criu's part is played by a script,
/// which makes of the image what criu would; what is right is what config.json says.
#[test]
fn a_checkpoint_brings_no_mounts() {
    withstands("restore", |arena| {
        let image = arena.dir.path().join("image");
        fs::create_dir(&image).unwrap();
        let mounts = json!([{"destination": "/host", "type": "bind", "source": arena.canary(), "options": ["bind"]}]);
        fs::write(image.join("mounts.json"), mounts.to_string()).unwrap();
        fs::write(image.join("descriptors.json"), r#"["", "", ""]"#).unwrap();
        arena.configure(&["cat", "/host/secret"], |_| {});
        let bundle = arena.dir.path().join("bundle");
        let mut command = match arena.runtime {
            Runtime::Rrun => {
                let mut command = arena.rrun();
                command.arg("--criu").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("security/criu.sh"));
                command.args(["restore", "--detach", "--image-path"]).arg(&image).arg("--bundle").arg(&bundle).arg(arena.id());
                command.env("RRUN", rcontainerd_tests::host::programs().join("rrun")).env("BUNDLE", &bundle).env("IMAGE", &image);
                command
            }
            Runtime::Naive => {
                let mut command = std::process::Command::new("bash");
                command.arg(crate::arena::naive()).arg("restore").arg(&bundle).arg(&image);
                command
            }
        };
        let output = command.stdin(Stdio::null()).output().unwrap();
        let judged = "what the checkpoint holds is not what config.json asks for: the mount on /host";
        assert!(arena.runtime == Runtime::Naive || (!output.status.success() && text(&output).contains(judged)), "{}", text(&output));
        unless(text(&output).contains(SECRET), text(&output))
    });
}
