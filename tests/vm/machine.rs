//! Booting the machine and judging what its serial console says.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const QEMU: &str = "qemu-system-x86_64";

/// An emulator that is gone when this is.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody left to tell of a failure.
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

/// What a machine boots, and what it is made of.
pub struct Boot<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// Kernel parameters besides those of every machine.
    pub parameters: String,
    pub memory_mib: u32,
    /// Images of virtio disks, in order; what the guest writes to them is forgotten with the machine.
    pub disks: &'a [&'a Path],
    /// Whether a reboot of the guest boots it again, or ends the machine.
    pub reboots: bool,
}

/// Boots, prints every line with its time, returns when the verdict is in.
pub fn run(boot: &Boot<'_>, patience: Duration) -> Result<()> {
    let start = Instant::now();
    let (machine, console) = boot.start()?;
    let lines = lines_of(console);
    let mut failures = Vec::new();
    let mut passed = 0;
    loop {
        let line = match lines.recv_timeout(patience.saturating_sub(start.elapsed())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                bail!("no verdict within {} s (the last lines above say how far it came)", patience.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the machine ended without a verdict"),
        };
        println!("vm {:6.1} {line}", start.elapsed().as_secs_f64());
        if line.contains("Kernel panic") {
            bail!("the guest's kernel panicked: {line}");
        }
        if line.starts_with("test ") && line.ends_with("FAILED") {
            failures.push(line.clone());
        }
        passed += usize::from(line.starts_with("test ") && line.ends_with("... ok"));
        if let Some(verdict) = line.strip_prefix("vm-verdict: ") {
            drop(machine);
            return judge(verdict, passed, &failures);
        }
    }
}

fn judge(verdict: &str, passed: usize, failures: &[String]) -> Result<()> {
    if verdict.trim() != "0" || !failures.is_empty() {
        bail!("{} test(s) failed, {passed} passed\n{}", failures.len(), failures.join("\n"));
    }
    if passed == 0 {
        bail!("no test ran");
    }
    println!("vm: {passed} tests passed");
    Ok(())
}

impl Boot<'_> {
    fn start(&self) -> Result<(Machine, ChildStdout)> {
        // Without no_timer_check a busy machine makes an emulated kernel believe that its timer is dead.
        let append =
            format!("console=ttyS0 loglevel=1 panic=-1 random.trust_cpu=on mitigations=off nokaslr no_timer_check {}", self.parameters);
        let mut command = Command::new(QEMU);
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-serial", "stdio", "-nic", "none", "-m", &self.memory_mib.to_string()])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", &append]);
        if !self.reboots {
            command.arg("-no-reboot");
        }
        for disk in self.disks {
            command.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot=on", disk.display()));
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {QEMU}: install it by `apt-get install --no-install-recommends qemu-system-x86`"))?;
        let console = child.stdout.take().context("qemu has no standard output")?;
        Ok((Machine(child), console))
    }
}

/// Lines as they come. The thread ends with the machine.
fn lines_of(console: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(std::result::Result::ok) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    lines
}
