//! Checkpoint and restore by a criu that is none: it speaks criu's protocol (read here by another library than rrun's own encoder), writes
//! down what it is asked for, and answers as the test says. What it "restores" is a container that another rrun makes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

mod fake;
mod support;
use fake::{Heard, Plan};
use support::{Host, text};

/// The fake itself: what the program that the tests name by `--criu` runs.
#[test]
#[ignore = "the fake criu: the other tests start it"]
fn fake_criu() {
    if let Some(dir) = std::env::var_os("FAKE_CRIU") {
        fake::serve(Path::new(&dir));
    }
}

struct Criu {
    host: Host,
    dir: PathBuf,
    program: PathBuf,
}

impl Criu {
    fn new(name: &str) -> Criu {
        let host = Host::new(name);
        let dir = host.dir.path().join("fake");
        fs::create_dir(&dir).unwrap();
        let program = dir.join("criu");
        let test = std::env::current_exe().unwrap();
        // What the container has as 0, 1 and 2 is not the test's to write to.
        let script = format!(
            "#!/bin/sh\necho \"$@\" >>{dir}/arguments\nexec {test} --ignored --exact fake_criu --nocapture </dev/null >>{dir}/log 2>&1\n",
            dir = dir.display(),
            test = test.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Criu { host, dir, program }
    }

    /// From here on it does this.
    fn will(&self, plan: &Plan) {
        fs::write(self.dir.join("plan.json"), plan.to_json().to_string()).unwrap();
        for old in ["heard.json", "log"] {
            fs::remove_file(self.dir.join(old)).unwrap_or_default();
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.host.command(&[]);
        command.arg("--criu").arg(&self.program).args(args).env("FAKE_CRIU", &self.dir).env("FAKE_RRUN", env!("CARGO_BIN_EXE_rrun"));
        command
    }

    fn rrun(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// One line of refusal.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.rrun(args);
        let said = text(&output);
        assert!(!output.status.success() && said.trim_end().lines().count() == 1, "{args:?}: {said}");
        said
    }

    fn heard(&self) -> Heard {
        let log = || fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let text = fs::read_to_string(self.dir.join("heard.json")).unwrap_or_else(|e| panic!("{e}: {}", log()));
        Heard::from_json(&serde_json::from_str(&text).unwrap())
    }

    fn start(&self, change: impl FnOnce(&mut Value)) -> String {
        let id = self.host.id(0);
        self.host.configure(&["sleep", "1000"], change);
        assert!(self.host.quiet(&["run", "--detach", &id]));
        id
    }

    fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_slice(&self.host.rrun(&["state", id]).stdout).unwrap_or_default();
        state["status"].as_str().unwrap_or_default().to_string()
    }

    fn image(&self) -> String {
        self.host.dir.path().join("image").display().to_string()
    }

    /// A directory that looks like a checkpoint.
    fn some_image(&self, descriptors: &Value) {
        fs::create_dir_all(self.image()).unwrap();
        fs::write(Path::new(&self.image()).join("descriptors.json"), descriptors.to_string()).unwrap();
    }
}

#[test]
fn without_configuration_neither_is_done() {
    let criu = Criu::new("criu-none");
    let id = criu.start(|_| {});
    for command in [["checkpoint", &id], ["restore", "other"]] {
        let output = criu.host.command(&command).env_remove("RRUN_CRIU").output().unwrap();
        let said = text(&output);
        assert!(!output.status.success() && said.contains("criu is not configured: give its path by --criu, or set RRUN_CRIU"), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
    let output = criu.host.command(&["checkpoint", &id]).env("RRUN_CRIU", "/no/criu").output().unwrap();
    assert!(text(&output).contains("criu: /no/criu: is no program that can be run: install criu"), "{}", text(&output));
    let output = criu.host.command(&["checkpoint", &id]).env("RRUN_CRIU", "no-such-criu").output().unwrap();
    assert!(text(&output).contains("is nowhere in PATH"), "{}", text(&output));
    assert_eq!(criu.status(&id), "running");
}

#[test]
fn a_dump_is_asked_for_with_what_config_json_says() {
    let criu = Criu::new("criu-dump");
    let data = criu.host.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let id = criu.start(|c| {
        c["mounts"].as_array_mut().unwrap().push(json!({"destination": "/data", "type": "bind", "source": data, "options": ["bind"]}));
    });
    let pid = serde_json::from_slice::<Value>(&criu.host.rrun(&["state", &id]).stdout).unwrap()["pid"].as_i64().unwrap();
    criu.will(&Plan { notify: vec!["pre-dump".into(), "network-lock".into(), "post-dump".into()], ..Plan::default() });
    let output = criu.rrun(&[
        "checkpoint",
        "--image-path",
        &criu.image(),
        "--tcp-established",
        "--file-locks",
        "--shell-job",
        "--ext-unix-sk",
        "--link-remap",
        "--tcp-skip-in-flight",
        "--auto-dedup",
        "--empty-ns",
        "network",
        "--manage-cgroups-mode",
        "soft",
        &id,
    ]);
    assert!(output.status.success(), "{}", text(&output));
    let heard = criu.heard();
    assert_eq!((heard.kind.as_str(), heard.answers.as_slice()), ("dump", &[true, true, true][..]));
    let o = &heard.options;
    assert_eq!(o["pid"], json!(pid));
    assert_eq!(o["root"], json!(criu.host.dir.path().join("rootfs")));
    assert_eq!(o["freeze_cgroup"].as_str().map(|p| p.ends_with(&criu.host.prefix)), Some(true), "{o}");
    for flag in [
        "tcp_established",
        "file_locks",
        "shell_job",
        "ext_unix_sk",
        "link_remap",
        "tcp_skip_in_flight",
        "auto_dedup",
        "notify_scripts",
        "orphan_pts_master",
    ] {
        assert_eq!(o[flag], json!(true), "{flag}");
    }
    for flag in ["leave_running", "lazy_pages", "track_mem", "rst_sibling", "evasive_devices"] {
        assert_eq!(o[flag], json!(null), "{flag}");
    }
    assert_eq!((&o["manage_cgroups_mode"], &o["empty_ns"], &o["log_level"]), (&json!(3), &json!(0x4000_0000), &json!(4)));
    let mounts = o["ext_mnt"].as_array().unwrap();
    assert!(mounts.contains(&json!(["/data", "/data"])), "{mounts:?}");
    assert_eq!(heard.images, criu.image());
    // Its standard input was the test's /dev/null: a file that the container does not see.
    let descriptors: Vec<String> = serde_json::from_slice(&fs::read(Path::new(&criu.image()).join("descriptors.json")).unwrap()).unwrap();
    assert!(
        descriptors[0].starts_with("file[") && o["external"].as_array().unwrap().contains(&json!(descriptors[0])),
        "{descriptors:?} {o}"
    );
    assert_eq!(criu.status(&id), "", "a container that is dumped is gone");
    criu.host.assert_clean();
}

#[test]
fn a_dump_that_leaves_it_running_or_is_the_first_of_two_leaves_it() {
    let criu = Criu::new("criu-leave");
    let id = criu.start(|_| {});
    criu.will(&Plan { features: "mem".into(), ..Plan::default() });
    let first = format!("{}/first", criu.image());
    assert!(criu.rrun(&["checkpoint", "--pre-dump", "--image-path", &first, &id]).status.success());
    let heard = criu.heard();
    assert_eq!((heard.kind.as_str(), &heard.options["track_mem"], &heard.options["ext_mnt"]), ("pre-dump", &json!(true), &json!(null)));
    let last = format!("{}/last", criu.image());
    let output = criu.rrun(&["checkpoint", "--leave-running", "--parent-path", "../first", "--image-path", &last, &id]);
    assert!(output.status.success(), "{}", text(&output));
    let heard = criu.heard();
    assert_eq!((&heard.options["parent_img"], &heard.options["leave_running"]), (&json!("../first"), &json!(true)));
    assert_eq!(criu.status(&id), "running");
    for (parent, words) in [("/abs", "--parent-path must be relative"), ("../no", "invalid --parent-path")] {
        assert!(criu.refused(&["checkpoint", "--parent-path", parent, "--image-path", &last, &id]).contains(words));
    }
    criu.will(&Plan::default());
    assert!(criu.refused(&["checkpoint", "--pre-dump", "--image-path", &first, &id]).contains("has no memory tracking"));
    assert!(criu.refused(&["checkpoint", "--lazy-pages", "--image-path", &first, &id]).contains("has no lazy pages"));
}

#[test]
fn whatever_a_criu_does_a_failed_dump_leaves_the_container_running() {
    let criu = Criu::new("criu-fail");
    let id = criu.start(|_| {});
    for (how, words) in [
        ("fail", "criu: dump failed (no such process): mnt: one; two (see "),
        ("die", "criu: it ended in the middle of a dump"),
        ("die frozen", "criu: it ended in the middle of a dump"),
        ("garbage", "criu: it answered what is no answer of criu's"),
        ("another", "criu: it answered what is no answer of criu's"),
        ("code", "criu: it ended with code 3 after its success"),
    ] {
        criu.will(&Plan { end: how.into(), ..Plan::default() });
        let said = criu.refused(&["checkpoint", "--image-path", &criu.image(), "--work-path", &criu.image(), &id]);
        assert!(said.contains(words), "{how}: {said}");
        assert_eq!(criu.status(&id), "running", "{how}");
    }
    criu.will(&Plan { version: (3, 10), ..Plan::default() });
    let said = criu.refused(&["checkpoint", "--image-path", &criu.image(), &id]);
    assert!(said.contains("criu: version 3.10.0 is too old: 3.15.0 is needed at least"), "{said}");
    assert!(criu.host.quiet(&["pause", &id]));
    criu.will(&Plan { end: "fail".into(), ..Plan::default() });
    criu.refused(&["checkpoint", "--image-path", &criu.image(), &id]);
    assert_eq!(criu.status(&id), "paused", "who was paused stays so");
}

#[test]
fn what_restore_would_refuse_is_refused_before_a_dump() {
    let criu = Criu::new("criu-early");
    let id = criu.start(|_| {});
    criu.will(&Plan::default());
    // As root of this machine, in the container's mount namespace: it has no right to do so itself.
    let pid = serde_json::from_slice::<Value>(&criu.host.rrun(&["state", &id]).stdout).unwrap()["pid"].to_string();
    let mount = ["-t", &pid, "-m", "/bin/busybox", "mount", "-t", "tmpfs", "own", "/bin"];
    assert!(Command::new("nsenter").args(mount).status().unwrap().success());
    let said = criu.refused(&["checkpoint", "--image-path", &criu.image(), &id]);
    assert!(said.contains("the mount on /bin (tmpfs, /, rw") && said.contains("is none that config.json asks for"), "{said}");
    assert_eq!(criu.status(&id), "running");
}

#[test]
fn a_restored_container_is_one_like_any_other() {
    let criu = Criu::new("criu-restore");
    let id = criu.host.id(0);
    let data = criu.host.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    criu.host.configure(&["sleep", "1000"], |c| {
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/data", "type": "bind", "source": data, "options": ["bind", "ro"]}));
        c["linux"]["resources"]["pids"] = json!({"limit": 77});
    });
    criu.some_image(&json!(["pipe:[5]", "pipe:[5]", "file[1:2]", "pipe:[9]", "socket:[1]"]));
    criu.will(&Plan::restore());
    let pid_file = criu.host.dir.path().join("pid").display().to_string();
    let mut command =
        criu.command(&["restore", "--detach", "--tcp-established", "--image-path", &criu.image(), "--pid-file", &pid_file, &id]);
    let status = command.stdout(Stdio::null()).stderr(fs::File::create(criu.dir.join("said")).unwrap()).status().unwrap();
    assert!(
        status.success(),
        "{}{}",
        fs::read_to_string(criu.dir.join("said")).unwrap(),
        fs::read_to_string(criu.dir.join("log")).unwrap()
    );
    let heard = criu.heard();
    let o = &heard.options;
    assert_eq!(heard.kind, "restore");
    assert_eq!(heard.answers, [true; 6]);
    for flag in ["rst_sibling", "evasive_devices", "tcp_established", "notify_scripts", "orphan_pts_master"] {
        assert_eq!(o[flag], json!(true), "{flag}");
    }
    assert_eq!(o["manage_cgroups_mode"], json!(0), "the cgroup is config.json's");
    assert!(o["ext_mnt"].as_array().unwrap().contains(&json!(["/data", data])), "{o}");
    assert_eq!(o["inherit_fd"], json!([["pipe:[5]", 0], ["file[1:2]", 2]]));
    assert_eq!(o["root"], json!(criu.host.dir.path().join("rootfs")));
    assert_eq!(criu.status(&id), "running");
    let state: Value = serde_json::from_slice(&criu.host.rrun(&["state", &id]).stdout).unwrap();
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), state["pid"].to_string());
    assert!(text(&criu.host.rrun(&["exec", &id, "cat", "/proc/1/cmdline"])).contains("sleep"));
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    assert!(cgroup.contains(&criu.host.prefix), "{cgroup}");
    for (command, status) in [("pause", "paused"), ("resume", "running")] {
        assert!(criu.host.quiet(&[command, &id]));
        assert_eq!(criu.status(&id), status);
    }
    assert!(criu.host.quiet(&["delete", "--force", &id]));
    criu.host.assert_clean();
}

/// CVE-2026-119101, CVE-2026-115520, CVE-2026-119614 and their like: what is restored has more than config.json gives.
#[test]
fn an_image_brings_nothing_that_config_json_does_not_ask_for() {
    let criu = Criu::new("criu-judge");
    let id = criu.host.id(0);
    let secret = criu.host.dir.path().join("secret");
    fs::create_dir(&secret).unwrap();
    let bind = |source: &Path| json!({"destination": "/etc", "type": "bind", "source": source, "options": ["bind"]});
    criu.host.configure(&["sleep", "1000"], |c| c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}]));
    criu.some_image(&json!(["", "", ""]));
    let config = criu.host.dir.path().join("config.json");
    let honest: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let without = |kind: &str| {
        let all = honest["linux"]["namespaces"].as_array().unwrap();
        json!(all.iter().filter(|n| n["type"] != kind).collect::<Vec<_>>())
    };
    let mut mounts = honest["mounts"].clone();
    mounts.as_array_mut().unwrap().push(bind(&secret));
    let cases = [
        ("/mounts", mounts, "the mount on /etc"),
        ("/linux/maskedPaths", json!([]), "is not mounted as config.json asks for"),
        ("/linux/readonlyPaths", json!([]), "is not mounted as config.json asks for"),
        ("/linux/namespaces", without("network"), "its network namespace is not the one that config.json asks for"),
        ("/linux/namespaces", without("pid"), "its pid namespace is not the one that config.json asks for"),
        ("/process/capabilities/bounding", json!(["CAP_SYS_ADMIN"]), "more capabilities than config.json gives: CAP_SYS_ADMIN"),
        ("/process/rlimits", json!([]), "its limit RLIMIT_NOFILE"),
        ("/root/path", json!(secret_root(&criu)), "its root directory is not"),
    ];
    for (pointer, value, words) in cases {
        let mut odd = honest.clone();
        *odd.pointer_mut(pointer).unwrap() = value;
        criu.will(&Plan { config: Some(odd), ..Plan::restore() });
        let said = criu.refused(&["restore", "--detach", "--image-path", &criu.image(), &id]);
        assert!(
            said.contains("what the checkpoint holds is not what config.json asks for") || said.contains("namespace"),
            "{pointer}: {said}"
        );
        assert!(said.contains(words), "{pointer}: {said}");
        assert_eq!(criu.status(&id), "", "{pointer}");
        criu.host.assert_clean();
    }
    // The honest one passes, and one whose root criu has left writable: its root is read-only again.
    let mut writable = honest.clone();
    writable["root"]["readonly"] = json!(false);
    for config in [honest, writable] {
        criu.will(&Plan { config: Some(config), ..Plan::restore() });
        let mut restore = criu.command(&["restore", "--detach", "--image-path", &criu.image(), &id]);
        assert!(restore.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        let said = text(&criu.rrun(&["exec", &id, "sh", "-c", "echo >/file"]));
        assert!(said.contains("Read-only file system"), "{said}");
        assert!(criu.rrun(&["delete", "--force", &id]).status.success());
    }
}

/// Another root, with the same programs.
fn secret_root(criu: &Criu) -> PathBuf {
    let other = criu.host.dir.path().join("other");
    assert!(Command::new("cp").arg("-a").arg(criu.host.dir.path().join("rootfs")).arg(&other).status().unwrap().success());
    other
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let criu = Criu::new("criu-undo");
    let id = criu.host.id(0);
    criu.host.configure(&["sleep", "1000"], |_| {});
    let args = ["restore", "--detach", "--image-path", &criu.image(), &id];
    assert!(criu.refused(&args).contains("--image-path: open"));
    criu.some_image(&json!({"no": "list"}));
    assert!(criu.refused(&args).contains("is this a checkpoint?"));
    criu.will(&Plan::restore());
    criu.some_image(&json!(["", "", "file[1:2]"]));
    assert!(criu.refused(&args).contains("the container's 2 was a file, and this one is none"));
    criu.host.assert_clean();
    criu.some_image(&json!(["", "", ""]));
    for (how, words) in [
        ("fail", "criu: restore failed (no such process): mnt: one; two (give --work-path for a directory that keeps criu's log)"),
        ("die", "criu: it ended in the middle of a restore"),
        ("garbage", "criu: it answered what is no answer of criu's"),
        ("unjudged", "did not let it be judged"),
        ("code", "criu: it ended with code 3 after its success"),
    ] {
        criu.will(&Plan { end: how.into(), ..Plan::restore() });
        let said = criu.refused(&args);
        assert!(said.contains(words), "{how}: {said}");
        criu.host.assert_clean();
    }
    for (option, words) in [
        ("--no-pivot", "criu always uses pivot root"),
        ("--manage-cgroups-mode=full", "come from config.json"),
        ("--empty-ns=pid", "is not supported: network is"),
        ("--frobnicate", "flag provided but not defined: -frobnicate"),
    ] {
        let said = text(&criu.rrun(&["restore", option, "--image-path", &criu.image(), &id]));
        assert!(said.contains(words), "{option}: {said}");
    }
    criu.host.configure(&["sleep", "1000"], |c| c["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]}));
    criu.will(&Plan::restore());
    let said = criu.refused(&args);
    assert!(said.contains("error running createRuntime hook #0"), "{said}");
    assert_eq!(criu.heard().answers, [true, false], "criu is told that it failed");
    criu.host.assert_clean();
}
