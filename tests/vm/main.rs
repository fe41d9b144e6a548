//! The virtual machine lane: Debian's kernel with cgroup v2 alone and full capabilities, which neither a developer's machine nor
//! a CI container need offer, in an emulated machine (no KVM needed). For function, never for speed.
//!
//! ```text
//! cargo test -p rcontainerd-tests --test vm [-- FILTER]
//! kernel, busybox: Debian packages, downloaded once, not installed → target/vm/
//! guest programs:  rrun, rcontainerd-init, tests of rrun-cgroup and rrun-sys, tests/vm/guest.rs; static
//!        └→ initramfs → qemu-system-x86_64 -accel tcg → /init runs the tests → serial console → here
//! ```
//! Fails if a test fails, the kernel panics, the machine ends without a verdict, or the time is over.
#![allow(clippy::print_stdout, reason = "a test harness of its own")]

mod build;
mod cpio;
mod machine;

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The whole lane, after the guest programs are built.
const BUDGET: Duration = Duration::from_secs(240);

fn main() -> ExitCode {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    if std::env::args().any(|arg| arg == "--list") {
        println!("vm: test");
        return ExitCode::SUCCESS;
    }
    match run(&filter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("vm: FAILED: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(filter: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    let guest = build::guest_programs()?;
    phase("building the guest's programs (not counted)", start, None);
    let start = Instant::now();
    let packages = build::debian_files()?;
    let initramfs = build::initramfs(&packages, &guest)?;
    phase("kernel and initramfs", start, Some(BUDGET));
    let boot = machine::Boot {
        kernel: &packages.kernel,
        initramfs: &initramfs,
        parameters: format!("cgroup_no_v1=all vm.filter={filter}"),
        memory_mib: 1024,
        disks: &[],
        reboots: false,
    };
    machine::run(&boot, BUDGET.saturating_sub(start.elapsed()))?;
    phase("everything", start, Some(BUDGET));
    Ok(())
}

fn phase(what: &str, start: Instant, budget: Option<Duration>) {
    let of = budget.map_or(String::new(), |budget| format!(" of {} s", budget.as_secs()));
    println!("vm: {what}: {:.1} s{of}", start.elapsed().as_secs_f64());
}
