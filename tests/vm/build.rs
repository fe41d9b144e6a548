//! What the machine is made of: Debian's files, our programs, and the initramfs that holds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cpio::Archive;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Files out of Debian packages.
pub struct Packages {
    pub kernel: PathBuf,
    overlay: PathBuf,
    busybox: PathBuf,
}

/// Name in the guest and file here.
pub type Programs = Vec<(&'static str, PathBuf)>;

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}

/// Runs a command; its output, or an error with what it said.
fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| shown.clone())?;
    ensure!(output.status.success(), "{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Builds what runs in the guest, static. (Cargo builds only what has changed.)
pub fn guest_programs() -> Result<Programs> {
    let mut programs = Vec::new();
    let bins = executables(&["build", "-p", "rrun", "-p", "rcontainerd-init"])?;
    let tests = executables(&["test", "--no-run", "-p", "rrun-cgroup", "--test", "real", "--test", "vm-guest"])?;
    let units = executables(&["test", "--no-run", "-p", "rrun-sys", "--lib"])?;
    let unit = units.first().context("cargo built no tests of rrun-sys")?;
    programs.push(("test-sys", unit.1.clone()));
    for name in ["rrun", "rcontainerd-init"] {
        programs.push((name, find(&bins, name)?));
    }
    for (name, target) in [("test-cgroup", "real"), ("test-guest", "vm-guest")] {
        programs.push((name, find(&tests, target)?));
    }
    Ok(programs)
}

fn find(executables: &[(String, PathBuf)], name: &str) -> Result<PathBuf> {
    let found = executables.iter().find(|(target, _)| target == name);
    found.map(|(_, path)| path.clone()).with_context(|| format!("cargo did not build {name}"))
}

/// The executables that a cargo command makes, by target name.
fn executables(args: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let text = output(
        Command::new(cargo)
            .args(args)
            .args(["--target", TARGET, "--message-format=json-render-diagnostics"])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            // The emulated machine copies what it runs: the smaller, the sooner.
            .env("CARGO_PROFILE_DEV_STRIP", "symbols"),
    )?;
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(messages
        .filter_map(|message| {
            let path = message.get("executable")?.as_str()?;
            Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
        })
        .collect())
}

/// Downloads (once) and unpacks; installs nothing.
pub fn debian_files() -> Result<Packages> {
    let dir = target_dir().join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let kernel_package = kernel_package()?;
    let package = unpacked(&dir, &kernel_package)?;
    let overlay = package.join("overlay.ko");
    ensure!(overlay.exists(), "{} is of an older checkout: remove it", package.display());
    let kernel = fs::read_dir(package.join("boot"))?
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .with_context(|| format!("{kernel_package} holds no /boot/vmlinuz-*"))?;
    let busybox = unpacked(&dir, "busybox-static")?;
    let busybox = ["usr/bin/busybox", "bin/busybox"].iter().map(|path| busybox.join(path)).find(|path| path.exists());
    Ok(Packages { kernel, overlay, busybox: busybox.context("busybox-static holds no busybox")? })
}

/// `linux-image-cloud-amd64` only points at the newest kernel's package.
fn kernel_package() -> Result<String> {
    let text = output(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(name.context("linux-image-cloud-amd64 depends on no kernel: run apt-get update")?.to_owned())
}

/// The directory of an unpacked package. It is moved into place when complete, so that an interrupted run leaves no half of one.
fn unpacked(dir: &Path, package: &str) -> Result<PathBuf> {
    let done = dir.join(package);
    if done.exists() {
        return Ok(done);
    }
    let part = dir.join(format!("{package}.part"));
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir(&part)?;
    output(Command::new("apt-get").args(["-q", "download", package]).current_dir(&part))
        .with_context(|| format!("download Debian's {package} (apt-get update may be due)"))?;
    let deb = fs::read_dir(&part)?
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .find(|p| p.extension().is_some_and(|e| e == "deb"));
    let Some(deb) = deb else { bail!("apt-get download {package} left no file") };
    // Of a kernel only /boot and one module: all of them are hundreds of megabytes that nobody loads here.
    let extract = "cd \"$2\"; dpkg-deb --fsys-tarfile \"$1\" |
        tar -x --wildcards './boot/vmlinuz-*' './bin/busybox' './usr/bin/busybox' './lib/modules/*/overlay.ko*' './usr/lib/modules/*/overlay.ko*'
        module=$(find . -name 'overlay.ko*'); case $module in *.xz) xz -dc \"$module\" >overlay.ko ;; *.ko) mv \"$module\" overlay.ko ;; esac
        test -e boot -o -e bin -o -e usr";
    output(Command::new("sh").args(["-c", extract, "sh"]).arg(&deb).arg(&part))?;
    fs::remove_file(&deb)?;
    fs::rename(&part, &done)?;
    Ok(done)
}

/// Writes the initramfs and returns its path.
pub fn initramfs(packages: &Packages, programs: &Programs) -> Result<PathBuf> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys", "tmp", "run", "root", "etc", "new"] {
        archive.directory(directory);
    }
    archive.device("dev/console", 5, 1);
    archive.program("overlay.ko", &read(&packages.overlay)?);
    archive.program("bin/busybox", &read(&packages.busybox)?);
    archive.symlink("bin/sh", "busybox");
    archive.program("init", include_bytes!("init.sh"));
    archive.program("run-tests", include_bytes!("run-tests.sh"));
    for (name, path) in programs {
        archive.program(&format!("bin/{name}"), &read(path)?);
    }
    let file = target_dir().join("vm/initramfs");
    fs::write(&file, archive.finish()).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}
