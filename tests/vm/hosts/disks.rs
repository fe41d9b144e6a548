//! The machines' disks: a Debian system made by mmdebstrap and kept, and a payload made anew for every run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::{NamedTempFile, TempDir};

/// Programs that were built on one release run on it and on newer ones: the one that the project is built on.
const RELEASE: &str = "bookworm";

/// A kind of host: what is installed, and what is tested there.
pub struct Host {
    pub name: &'static str,
    /// Release whose kernel it boots.
    pub kernel: &'static str,
    pub packages: &'static [&'static str],
    pub script: &'static str,
}

/// Files that a machine boots from.
pub struct System {
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
}

/// Runs the payload's script once the system is up, with the serial console as its terminal.
const UNIT: &str = "[Unit]\nAfter=multi-user.target\n\n[Service]\nType=oneshot\nExecStart=/bin/sh /payload/guest.sh\n\
    StandardInput=null\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\nTimeoutStartSec=infinity\n";

/// The payload is there from the start, as installed programs are: units start them after a reboot.
const FSTAB: &str = "/dev/vda / ext4 defaults 0 1\n/dev/vdb /payload ext4 ro 0 0\n";

impl Host {
    /// The system's disk, made if it is not there yet or if it is to be made in another way.
    pub fn system(&self, ordinary: &[&str]) -> Result<System> {
        let cache = target_dir().join("vm/hosts");
        fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
        let packages = format!("{},linux-image-cloud-amd64/{}", [ordinary, self.packages].concat().join(","), self.kernel);
        let dir = cache.join(self.name);
        let recipe = format!("{packages}\n{UNIT}\n{FSTAB}");
        let system = System { disk: dir.join("disk.ext4"), kernel: dir.join("vmlinuz"), initramfs: dir.join("initrd") };
        if fs::read_to_string(dir.join("recipe")).ok().as_ref() == Some(&recipe) {
            return Ok(system);
        }
        // Made beside its place and renamed: what is there is whole, and another run that makes it too does no harm.
        let part = tempfile::Builder::new().prefix("part-").tempdir_in(&cache).context("make a directory")?;
        self.make(part.path(), &packages)?;
        fs::write(part.path().join("recipe"), recipe).context("write the recipe")?;
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        fs::rename(part.keep(), &dir).with_context(|| format!("move {} into place", dir.display()))?;
        Ok(system)
    }

    fn make(&self, part: &Path, packages: &str) -> Result<()> {
        let mirror = mirror()?;
        let root = part.join("root");
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--variant=minbase", "--aptopt=Apt::Install-Recommends \"false\"", "--aptopt=Acquire::Retries \"5\""]);
        bootstrap.arg(format!("--include={packages}")).arg(RELEASE).arg(&root).arg(format!("deb {mirror} {RELEASE} main"));
        if self.kernel != RELEASE {
            bootstrap.arg(format!("deb {mirror} {} main", self.kernel));
        }
        done(bootstrap.env("TMPDIR", part))?;
        fs::write(root.join("etc/systemd/system/hosts-test.service"), UNIT)?;
        let wants = root.join("etc/systemd/system/default.target.wants");
        fs::create_dir_all(&wants)?;
        std::os::unix::fs::symlink("../hosts-test.service", wants.join("hosts-test.service"))?;
        fs::write(root.join("etc/fstab"), FSTAB)?;
        fs::create_dir_all(root.join("payload"))?;
        fs::write(root.join("etc/hostname"), format!("{}\n", self.name))?;
        // Beside ours only when a test starts it.
        for unit in ["docker.service", "docker.socket", "containerd.service"] {
            for target in ["multi-user.target.wants", "sockets.target.wants"] {
                fs::remove_file(root.join("etc/systemd/system").join(target).join(unit)).ok();
            }
        }
        for (prefix, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd")] {
            fs::copy(only(&root.join("boot"), prefix)?, part.join(name))?;
        }
        done(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4", "-E", "lazy_itable_init=0", "-d"])
                .arg(&root)
                .arg(part.join("disk.ext4"))
                .arg("3G"),
        )?;
        fs::remove_dir_all(&root).context("remove the unpacked system")
    }

    /// Our programs, an image, and the script: a read-only disk.
    pub fn payload(&self) -> Result<NamedTempFile> {
        let dir = TempDir::new().context("make a directory")?;
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("bin"))?;
        for program in ["rrun", "containerd-shim-rrun-v2", "rcontainerd-init", "rcontainerd", "rdocker"] {
            fs::copy(rcontainerd_tests::host::programs().join(program), path("bin").join(program))
                .with_context(|| format!("copy {program}"))?;
        }
        rcontainerd_tests::image::busybox_archive(&path("busybox.tar"), "busybox:latest");
        fs::write(path("common.sh"), include_str!("common.sh"))?;
        fs::write(path("inside.sh"), include_str!("inside.sh"))?;
        fs::write(path("guest.sh"), self.script)?;
        let disk = NamedTempFile::new().context("make a file")?;
        done(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).arg(dir.path()).arg(disk.path()).arg("256M"))?;
        Ok(disk)
    }
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}

fn only(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?.flatten();
    let found =
        entries.map(|entry| entry.path()).find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    found.with_context(|| format!("{} holds no {prefix}*", dir.display()))
}

/// Runs a command to its end; what it said is told when it fails.
fn done(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| shown.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    ensure!(output.status.success(), "{shown}: {}: {}", output.status, last.into_iter().rev().collect::<Vec<_>>().join("; "));
    Ok(())
}

/// Where this machine gets its own packages from.
fn mirror() -> Result<String> {
    let output =
        Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]).output().context("ask apt-get for its sources")?;
    let text = String::from_utf8(output.stdout).context("apt-get's sources")?;
    let own = text.lines().map(|uri| uri.trim_end_matches('/')).find(|uri| uri.ends_with("/debian"));
    own.map(str::to_owned).context("apt-get has no source that ends in /debian: the hosts' disks are made of Debian's packages")
}
