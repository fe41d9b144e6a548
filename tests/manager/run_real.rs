//! `./run` from the first call to the uninstallation, with the real programs: only the build is a copy of what is built already.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcontainerd_tests::{Checkout, Outcome, Registry, TestHost, host, image};

/// A clone whose manager lives where a test host would: its network namespace, cgroup parent and directory names are found again by
/// the host's look for leftovers.
struct Clone {
    /// First, so that its look for leftovers comes before the rest is gone.
    host: TestHost,
    checkout: Checkout,
}

const CARGO: &str = r#"[ "$1" = --version ] && { echo "cargo 1.999.0"; exit; }
small=target/$(uname -m)-unknown-linux-gnu/small
mkdir -p "$small" target/release
for program in rrun containerd-shim-rrun-v2 rcontainerd-init; do [ -e "$small/$program" ] || cp "@PROGRAMS@/$program" "$small/"; done
for program in rcontainerd rdocker; do [ -e "target/release/$program" ] || cp "@PROGRAMS@/$program" target/release/; done"#;

impl Clone {
    fn new() -> Self {
        Self::with_config("")
    }

    fn with_config(config: &str) -> Self {
        let mut host = TestHost::start_with(config);
        host.stop_manager();
        std::fs::remove_dir_all(host.root()).expect("remove what the host's own manager made");
        std::fs::remove_dir_all(host.state()).expect("remove what the host's own manager made");
        let checkout = Checkout::new(host.path());
        checkout.tool("cargo", &CARGO.replace("@PROGRAMS@", &host::programs().display().to_string()));
        Self { host, checkout }
    }

    fn script(&self) -> Command {
        let mut command = self.host.command(self.checkout.dir.join("run"));
        let path = std::env::var("PATH").expect("a PATH");
        command.env("PATH", format!("{}:{path}", self.checkout.dir.with_file_name("tools").display()));
        command.env("RCONTAINERD_ROOT", self.host.root()).env("RCONTAINERD_STATE", self.host.state());
        command.env("RCONTAINERD_CONFIG", self.host.path().join("config.toml")).current_dir("/").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let output = self.script().args(args).output().expect("run the script");
        Outcome::new(format!("./run {}", args.join(" ")), &output)
    }

    /// Loads the image `busybox`.
    fn load(&self) {
        let archive = self.host.path().join("busybox.tar");
        image::busybox_archive(&archive, "busybox:latest");
        self.run(&["load", "-i", archive.to_str().expect("a path")]).success();
    }

    fn binary(&self) -> PathBuf {
        self.checkout.dir.join("target/release/rcontainerd")
    }

    fn pid_of(&self, container: &str) -> String {
        self.run(&["inspect", "-f", "{{.State.Pid}}", container]).success().stdout.trim().to_owned()
    }

    /// Nothing of the clone's manager is left but the build.
    fn uninstall(&self) {
        let outcome = self.run(&["uninstall"]).success();
        assert!(outcome.stderr.contains("removed"), "{outcome}");
        for dir in [self.host.root(), self.host.state()] {
            assert!(!dir.exists(), "{} is left", dir.display());
        }
        assert_eq!(self.host.leftovers(), Vec::<String>::new());
        let tables = self.host.command("nft").args(["list", "tables"]).output().expect("nft").stdout;
        assert_eq!(String::from_utf8_lossy(&tables), "", "no table of ours");
        let bridges = self.host.command("ip").args(["link", "show", "type", "bridge"]).output().expect("ip").stdout;
        assert_eq!(String::from_utf8_lossy(&bridges), "", "no bridge");
        let cgroup = self.host.path().file_name().expect("a name").to_owned();
        let cgroups = std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|entry| entry.path().join(&cgroup));
        assert_eq!(cgroups.filter(|path| path.exists()).collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        // Also after a failure: the manager is not the host's child.
        drop(self.script().arg("uninstall").output());
    }
}

#[test]
fn from_the_first_call_to_the_uninstallation() {
    let clone = Clone::new();
    let outcome = clone.run(&[]).success();
    assert!(outcome.stdout.contains("Hello"), "{outcome}");
    assert_eq!(outcome.stderr, "", "nothing else to tell");
    clone.load();
    let mut piped =
        clone.script().args(["run", "-i", "--rm", "busybox", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run");
    piped.stdin.take().expect("piped").write_all(b"through the script\n").expect("write");
    assert_eq!(piped.wait_with_output().expect("wait").stdout, b"through the script\n");
    assert_eq!(clone.run(&["run", "--rm", "busybox", "sh", "-c", "exit 7"]).code, 7);
    let here = clone.script().args(["run", "--rm", "-v", "./:/here", "busybox", "ls", "/here"]).current_dir(clone.host.path()).output();
    assert!(String::from_utf8_lossy(&here.expect("run").stdout).contains("config.toml"), "relative to the caller's directory");

    clone.run(&["run", "-d", "--name", "lives", "-p", "8080:80", "busybox", "sleep", "100000"]).success();
    let pid = clone.pid_of("lives");
    let outcome = clone.run(&["stop"]).success();
    assert_eq!(outcome.stderr, "stopped; containers live on\n");
    assert!(Path::new("/proc").join(&pid).exists(), "containers live on");
    assert_eq!(clone.run(&["stop"]).success().stderr, "no manager runs\n");
    assert_eq!(clone.pid_of("lives"), pid, "the next manager takes it up");
    assert_eq!(clone.run(&["stop", "-t", "0", "lives"]).success().stdout, "lives\n", "with a name it is rdocker's");
    clone.run(&["start", "lives"]).success();
    clone.uninstall();
}

#[test]
fn uninstall_ends_containers_that_no_manager_watches() {
    let clone = Clone::new();
    clone.load();
    clone.run(&["run", "-d", "--name", "lives", "busybox", "sleep", "100000"]).success();
    clone.run(&["create", "--name", "never", "busybox"]).success();
    clone.run(&["stop"]).success();
    clone.uninstall();
    clone.uninstall();
}

#[test]
fn a_manager_of_an_older_build_is_replaced_while_containers_live_on() {
    let clone = Clone::new();
    clone.load();
    clone.run(&["run", "-d", "--name", "lives", "busybox", "sleep", "100000"]).success();
    let pid = clone.pid_of("lives");
    // As cargo does it: the new file takes the old one's name.
    std::fs::remove_file(clone.binary()).expect("remove the old build");
    let outcome = clone.run(&["exec", "lives", "echo", "still"]).success();
    assert_eq!(outcome.stdout, "still\n");
    let expected = format!("replacing the manager of another build ({}); containers live on\n", clone.binary().display());
    assert_eq!(outcome.stderr, expected);
    assert_eq!(clone.pid_of("lives"), pid);
    assert_eq!(clone.run(&["ps", "-q"]).success().stderr, "", "it is replaced once");
    clone.uninstall();
}

#[test]
fn a_manager_that_was_started_otherwise_is_used_and_left_alone() {
    let mut clone = Clone::new();
    clone.host.start_manager();
    let outcome = clone.run(&["version"]).success();
    assert!(outcome.stderr.contains("not started by ./run"), "{outcome}");
    for command in ["stop", "uninstall"] {
        let outcome = clone.run(&[command]);
        assert_eq!(outcome.code, 1, "{outcome}");
        assert!(outcome.stderr.contains("was not started by ./run") && outcome.stderr.lines().count() == 1, "{outcome}");
    }
    clone.host.rdocker(["version"]).success();
    clone.host.stop_manager();
}

#[test]
fn a_manager_that_cannot_start_is_told_in_a_line() {
    let clone = Clone::new();
    let text = "log_levle = \"debug\"\n";
    std::fs::write(clone.host.path().join("config.toml"), text).expect("write");
    let outcome = clone.run(&["ps"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.lines().count() == 1 && outcome.stderr.contains("line 1") && outcome.stderr.contains("log_levle"), "{outcome}");
    std::fs::write(clone.host.path().join("config.toml"), "").expect("write");
}

#[test]
fn an_image_comes_from_a_mirror_on_loopback() {
    let clone = Clone::with_config("[registry]\nmirrors = [\"http://127.0.0.1:5000\"]\n");
    let registry = Registry::start(&clone.host);
    let archive = clone.host.path().join("busybox.tar");
    image::busybox_archive(&archive, "busybox:latest");
    registry.push(&clone.host, &archive, "library/busybox:latest", "v2s2");
    let outcome = clone.run(&["run", "--rm", "busybox", "echo", "hi"]).success();
    assert_eq!(outcome.stdout, "hi\n");
    assert!(outcome.stderr.starts_with("Unable to find image 'busybox:latest' locally\n"), "{outcome}");
    drop(registry);
    clone.uninstall();
}
