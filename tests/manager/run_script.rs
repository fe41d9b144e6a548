//! What `./run` and `./test` decide on machines that lack this or that: stand-ins on the PATH, no build.

use rcontainerd_tests::{Checkout, Outcome};

/// As the workspace's rust-version asks for, or newer.
const NEW: &str = "1.999.0";

struct Machine {
    _dir: tempfile::TempDir,
    clone: Checkout,
}

impl std::ops::Deref for Machine {
    type Target = Checkout;

    fn deref(&self) -> &Checkout {
        &self.clone
    }
}

/// Debian with everything that is needed, and a root user.
fn complete() -> Machine {
    let dir = tempfile::Builder::new().prefix("run-").tempdir().expect("temp dir");
    let machine = Machine { clone: Checkout::new(dir.path()), _dir: dir };
    machine.tool("id", "[ \"$1\" = -un ] && echo \"${FAKE_USER:-root}\" || echo \"${FAKE_UID:-0}\"");
    // The files that the libraries are told by are any that exist.
    machine.tool("cc", "case $1 in -print-file-name=*) echo /etc/passwd ;; esac");
    machine.tool("nft", ":");
    machine.tool("apt-get", "echo \"apt-get $*\" >>\"$LOG\"");
    machine.tool("apt-cache", "exit 100");
    cargo(&machine, NEW);
    machine
}

/// A cargo that notes what it is asked to build, and makes the files.
fn cargo(machine: &Machine, version: &str) {
    machine.tool("cargo", &cargo_script(version));
}

fn cargo_script(version: &str) -> String {
    format!(
        r#"[ "$1" = --version ] && {{ echo "cargo {version} (0000000 2026-01-01)"; exit; }}
echo "cargo as $(id -u): $* rustflags=$RUSTFLAGS seccomp=$LIBSECCOMP_LIB_PATH" >>"$LOG"
read -r line && echo "cargo ate: $line" >>"$LOG"
small=target/$(uname -m)-unknown-linux-gnu/small
mkdir -p "$small" target/release
for program in rrun containerd-shim-rrun-v2 rcontainerd-init; do echo {version} >"$small/$program"; done
for program in rcontainerd rdocker; do echo {version} >target/release/$program; done"#
    )
}

/// An ordinary user, with the sudo that is given.
fn as_user(machine: &Machine, sudo: Option<&str>) {
    machine.tool("id", "[ \"$1\" = -un ] && echo alice || echo \"${FAKE_UID:-1000}\"");
    if let Some(script) = sudo {
        machine.tool("sudo", script);
    }
}

/// It warns, as the real one does where the host's name cannot be resolved.
const SUDO: &str = "echo 'sudo: unable to resolve host' >&2; echo \"sudo $1 $2\" >>\"$LOG\"; FAKE_UID=0 exec \"$@\"";

/// Exit code 1, and one line that holds all of `parts`.
#[track_caller]
fn refused(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, 1, "{outcome}");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one line is enough: {outcome}");
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} is not told: {outcome}");
    }
}

#[test]
fn a_complete_machine_builds_and_installs_nothing() {
    let machine = complete();
    let outcome = machine.call("run", &["--build-only"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome}");
    let log = machine.log();
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[0].contains("-p rrun ") && log[0].contains("+crt-static") && log[0].contains("--locked"), "{log:?}");
    assert!(log[1].contains("--release -p rcontainerd -p rdocker") && log[1].contains("seccomp=/etc"), "{log:?}");
    for program in ["rrun", "containerd-shim-rrun-v2", "rcontainerd-init", "rcontainerd", "rdocker"] {
        assert!(machine.dir.join("target/release").join(program).exists(), "{program}");
    }
}

#[test]
fn without_cargo_the_command_that_fetches_it_is_told() {
    let machine = complete();
    machine.remove_tool("cargo");
    refused(&machine.call("run", &["--build-only"]), &["cargo is missing", "needs 1.", "curl ", "--default-toolchain 1."]);
    assert!(machine.log().is_empty(), "nothing is installed before the toolchain is there: {:?}", machine.log());
    machine.tool("apt-cache", "echo '  Candidate: (none)'");
    refused(&machine.call("run", &[]), &["curl "]);
    machine.tool("apt-cache", "echo '  Candidate: 1.27.1-1'");
    refused(&machine.call("run", &[]), &["cargo is missing", "apt-get install rustup && rustup toolchain install 1."]);
}

#[test]
fn debian_s_own_cargo_is_told_to_be_too_old() {
    let machine = complete();
    cargo(&machine, "0.66.0");
    refused(&machine.call("run", &["--build-only"]), &["cargo is version 0.66.0, the workspace needs 1."]);
    cargo(&machine, "1.9.0");
    refused(&machine.call("run", &["--build-only"]), &["cargo is version 1.9.0"]);
}

#[test]
fn rustup_fetches_the_toolchain_that_the_workspace_names() {
    let machine = complete();
    cargo(&machine, "1.63.0");
    let toolchain = machine.home().join("toolchain/bin");
    machine.program(&toolchain.join("cargo"), &cargo_script(NEW));
    let which = format!("[ \"$1\" = which ] && echo '{}/cargo' || echo \"rustup $*\" >>\"$LOG\"", toolchain.display());
    machine.tool("rustup", &which);
    let outcome = machine.call("run", &["--build-only"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.starts_with("cargo is version 1.63.0, the workspace needs 1."), "{outcome}");
    let log = machine.log();
    assert!(log[0].starts_with("rustup toolchain install --profile minimal") && log.len() == 3, "{log:?}");
    assert_eq!(std::fs::read_to_string(machine.dir.join("target/release/rdocker")).expect("built"), format!("{NEW}\n"));
}

#[test]
fn a_rustup_without_network_is_told() {
    let machine = complete();
    machine.remove_tool("cargo");
    machine.tool("rustup", "echo 'error: could not download file' >&2; exit 1");
    let outcome = machine.call("run", &["--build-only"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.lines().last().is_some_and(|line| line.contains("rustup could not install Rust 1.")), "{outcome}");
}

#[test]
fn what_is_missing_is_installed_and_an_administrator_s_policy_comes_back() {
    let machine = complete();
    // Nothing of a compiler until apt-get was here.
    let cc = machine.home().join("cc");
    machine.program(&cc, "echo /etc/passwd");
    machine.remove_tool("cc");
    machine.tool(
        "apt-get",
        &format!(
            "echo \"apt-get $*\" >>\"$LOG\"; [ \"$1\" = update ] || ln -s '{}' '{}/tools/cc'",
            cc.display(),
            machine.dir.parent().expect("a parent").display()
        ),
    );
    // The real one would write to this machine's /usr/sbin.
    machine.tool("flock", "shift; [ \"$1\" = sh ] && shift 4; apt-get install \"$@\"");
    let outcome = machine.call("run", &["--build-only"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(outcome.stderr, "installing build-essential libseccomp-dev\n", "{outcome}");
    assert_eq!(machine.log()[..2], ["apt-get update -qq", "apt-get install build-essential libseccomp-dev"]);
}

#[test]
fn without_apt_the_packages_are_named() {
    let machine = complete();
    machine.remove_tool("apt-get");
    machine.tool("cc", "echo \"${1#*=}\"");
    refused(
        &machine.call("run", &["--build-only"]),
        &["missing: build-essential libseccomp-dev", "no apt-get", "your distribution's means"],
    );
}

#[test]
fn a_user_without_sudo_is_told_before_the_build() {
    let machine = complete();
    as_user(&machine, None);
    refused(&machine.call("run", &[]), &["root is needed to start the manager", "run ./run as root, or install sudo"]);
    assert!(machine.log().is_empty(), "{:?}", machine.log());
    machine.tool("cc", "echo \"${1#*=}\"");
    refused(&machine.call("run", &["--build-only"]), &["missing: build-essential", "root is needed to install them"]);
}

#[test]
fn a_user_without_sudo_may_build() {
    let machine = complete();
    as_user(&machine, None);
    assert_eq!(machine.call("run", &["--build-only"]).success().stderr, "");
    assert!(machine.log().iter().all(|line| line.starts_with("cargo as 1000: build")), "{:?}", machine.log());
}

#[test]
fn a_sudo_user_builds_as_himself_and_starts_the_manager_as_root() {
    let machine = complete();
    as_user(&machine, Some(SUDO));
    // A state directory that cannot be made ends it right there.
    let outcome =
        machine.call_with("run", &[], &[("RCONTAINERD_STATE", "/proc/no/such/place"), ("RCONTAINERD_ROOT", "/proc/no/such/root")]);
    refused(&outcome, &["/proc/no", "choose another place by RCONTAINERD_STATE"]);
    let log = machine.log();
    assert!(log[0].starts_with("cargo as 1000: build") && log[1].starts_with("cargo as 1000: build"), "{log:?}");
    assert_eq!(log[2..], ["sudo mkdir -p"], "only the manager needs root");
}

#[test]
fn behind_sudo_the_build_belongs_to_the_clone_s_owner() {
    let machine = complete();
    std::os::unix::fs::chown(&machine.dir, Some(12345), None).expect("chown");
    machine.tool("getent", &format!("echo \"alice:x:12345:12345::{}:/bin/sh\"", machine.home().display()));
    machine.tool("runuser", "echo \"runuser $1 $2\" >>\"$LOG\"; shift 3; FAKE_UID=12345 exec \"$@\"");
    machine.call_with("run", &["--build-only"], &[("SUDO_USER", "alice"), ("SUDO_UID", "12345")]).success();
    let log = machine.log();
    assert!(log.contains(&"runuser -u alice".to_owned()), "{log:?}");
    assert!(log.iter().filter(|line| line.starts_with("cargo")).all(|line| line.starts_with("cargo as 12345: build")), "{log:?}");
}

#[test]
fn a_target_directory_of_somebody_else_is_told() {
    let machine = complete();
    as_user(&machine, None);
    std::fs::create_dir(machine.dir.join("target")).expect("mkdir");
    let world = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(machine.dir.parent().expect("a parent"), world).expect("chmod");
    let mut command = std::process::Command::new("/usr/bin/setpriv");
    machine.environment(&mut command).args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let output = command.arg(machine.dir.join("run")).arg("--build-only").output().expect("run the script as nobody");
    refused(&Outcome::new("./run --build-only".into(), &output), &["target/ is not writable by alice", "sudo rm -r target"]);
}

#[test]
fn words_after_stop_are_rdocker_s() {
    let machine = complete();
    let outcome = machine.call_with("run", &["stop"], &[("RCONTAINERD_STATE", "/nonexistent")]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, "no manager runs\n"), "{outcome}");
    let outcome = machine.call("run", &["--help"]);
    assert!(outcome.code == 0 && outcome.stdout.starts_with("usage: ./run"), "{outcome}");
    assert!(machine.log().is_empty(), "{:?}", machine.log());
}

#[test]
fn setting_up_eats_nothing_of_the_caller_s_input() {
    let machine = complete();
    let mut command = std::process::Command::new("sh");
    let line = format!("echo precious | '{}/run' --build-only", machine.dir.display().to_string().replace('\'', "'\\''"));
    machine.environment(&mut command).args(["-c", &line]);
    assert!(command.status().expect("run").success());
    assert!(!machine.log().iter().any(|line| line.contains("ate")), "{:?}", machine.log());
}

#[test]
fn an_unknown_lane_is_refused_with_the_list() {
    let machine = complete();
    let outcome = machine.call("test", &["no-such-lane"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("no-such-lane") && outcome.stderr.contains("lint"), "{outcome}");
}

#[test]
fn a_word_that_nothing_looks_at_is_refused_in_one_line() {
    let machine = complete();
    for words in
        [["full", "unit"], ["fast", "lint"], ["-h", "x"], ["--help", "unit"], ["unit", "full"], ["unit", "-h"], ["unit", ""], ["l.nt", ""]]
    {
        let outcome = machine.call("test", &words);
        assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.lines().count()), (2, "", 1), "{words:?}: {outcome}");
        assert!(outcome.stderr.contains("LANE") || outcome.stderr.contains("lanes: "), "{words:?}: {outcome}");
    }
    assert!(machine.log().is_empty(), "{:?}", machine.log());
}

#[test]
fn a_lane_that_fails_stops_none_of_the_others() {
    let machine = complete();
    machine.tool("cargo", r#"case "$*" in --version) echo "cargo 1.999.0" ;; *security*) exit 3 ;; esac"#);
    let outcome = machine.call("test", &["security", "compat"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    for line in ["== security FAILED (exit 3)", "== compat passed", "1 passed, 1 failed"] {
        assert!(format!("{}{}", outcome.stdout, outcome.stderr).contains(line), "{line}: {outcome}");
    }
}
