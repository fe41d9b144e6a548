//! Whole hosts in emulated machines: Debian 12 with systemd, and the same on Debian 11's 5.10 kernel, as a stranger has them; and
//! one for `rrun`'s systemd driver, as root and as a user, one for its checkpoints by criu.
//!
//! ```text
//! cargo test -p rcontainerd-tests --test hosts [-- debian-12|kernel-5.10|systemd-cgroup|criu]
//! mmdebstrap → target/vm/hosts/NAME.tar (once) → NAME.ext4, kernel, initramfs
//! programs of ./run --build-only + guest scripts + an image → payload.ext4
//!        └→ qemu-system-x86_64 -accel tcg → systemd → hosts-test.service → NAME.sh → serial console → here
//! ```
#![allow(clippy::print_stdout, reason = "a test harness of its own")]

mod disks;
#[path = "../machine.rs"]
mod machine;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use disks::Host;

/// For one host, once its disks are there; emulated, and with a second machine beside it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Packages of every host besides Debian's required ones.
const ORDINARY: &[&str] = &["systemd", "systemd-sysv", "nftables", "iproute2", "ca-certificates", "procps", "initramfs-tools"];

const HOSTS: &[Host] = &[
    Host { name: "debian-12", kernel: "bookworm", packages: &["dbus", "docker.io", "iptables"], script: include_str!("debian-12.sh") },
    Host { name: "kernel-5.10", kernel: "bullseye", packages: &["dbus"], script: include_str!("kernel-5.10.sh") },
    Host {
        name: "systemd-cgroup",
        kernel: "bookworm",
        packages: &["dbus", "dbus-user-session", "libpam-systemd", "busybox-static", "jq", "uidmap"],
        script: include_str!("systemd-cgroup.sh"),
    },
    Host {
        name: "criu",
        kernel: "bookworm",
        packages: &["dbus", "busybox-static", "jq", "criu", "iptables"],
        script: include_str!("criu.sh"),
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        HOSTS.iter().for_each(|host| println!("{}: test", host.name));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with('-')).collect();
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            println!("hosts: FAILED: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &[&str]) -> Result<()> {
    let chosen: Vec<&Host> = HOSTS.iter().filter(|host| wanted.is_empty() || wanted.contains(&host.name)).collect();
    if chosen.is_empty() {
        bail!("no host {wanted:?}: there are {}", HOSTS.iter().map(|host| host.name).collect::<Vec<_>>().join(" and "));
    }
    let mut failed = Vec::new();
    for host in chosen {
        let start = Instant::now();
        println!("hosts: {}: making its disks", host.name);
        let system = host.system(ORDINARY)?;
        let payload = host.payload()?;
        println!("hosts: {}: booting after {:.0} s", host.name, start.elapsed().as_secs_f64());
        let boot = machine::Boot {
            kernel: &system.kernel,
            initramfs: &system.initramfs,
            parameters: "root=/dev/vda rw systemd.show_status=0 systemd.mask=serial-getty@ttyS0.service".to_owned(),
            memory_mib: 2048,
            disks: &[&system.disk, payload.path()],
            reboots: true,
        };
        if let Err(err) = machine::run(&boot, PATIENCE).with_context(|| host.name) {
            println!("hosts: {err:#}");
            failed.push(host.name);
        }
    }
    anyhow::ensure!(failed.is_empty(), "{} failed", failed.join(" and "));
    Ok(())
}
