//! CVE-2021-30465, CVE-2024-45310, CVE-2025-52565, CVE-2026-115521: a neighbour swaps a directory for a link while the runtime
//! makes its way through it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::arena::{Runtime, unless, withstands};

/// Exchanges two names as fast as it can, until dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Swapper {
    fn start(one: PathBuf, other: PathBuf) -> Swapper {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut swaps = 0;
            while !seen.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, rustix::fs::RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        });
        Swapper { stop, thread: Some(thread) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let swaps = self.thread.take().unwrap().join().unwrap();
        assert!(swaps > 100, "the swapper hardly ran: {swaps}");
    }
}

/// How long the real runtime is attacked. `RRUN_ATTACK_SECONDS` for a longer siege.
fn time_box() -> Duration {
    let seconds = std::env::var("RRUN_ATTACK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    Duration::from_secs(seconds)
}

#[test]
fn a_mount_target_is_swapped_for_a_link() {
    withstands("swap", |arena| {
        let volume = arena.dir.path().join("volume");
        fs::create_dir_all(volume.join("target")).unwrap();
        symlink(arena.canary(), volume.join("link")).unwrap();
        let payload = arena.dir.path().join("payload");
        fs::create_dir(&payload).unwrap();
        let swapper = Swapper::start(volume.join("target"), volume.join("link"));
        let start = Instant::now();
        for n in 0.. {
            arena.configure(&["true"], |c| {
                let bind = |from: &PathBuf, to: String| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind"]});
                let mounts = c["mounts"].as_array_mut().unwrap();
                mounts.push(bind(&volume, "/volume".into()));
                mounts.push(bind(&payload, format!("/volume/target/made-{n}")));
                mounts.push(json!({"destination": "/volume/target/tmp", "type": "tmpfs", "source": "tmpfs"}));
                c["linux"]["maskedPaths"] = json!(["/volume/target/secret"]);
                c["linux"]["readonlyPaths"] = json!(["/volume/target"]);
                c["process"]["cwd"] = format!("/volume/target/cwd-{n}").into();
            });
            arena.run();
            if !arena.host_changes().is_empty() || start.elapsed() > time_box() || (arena.runtime == Runtime::Naive && n > 200) {
                break;
            }
        }
        drop(swapper);
        Ok(())
    });
}

/// CVE-2025-31133 as a race: while masks are made of it, the null device of the image is a file that the attacker chose.
#[test]
fn the_null_device_is_swapped_for_a_file() {
    withstands("null-swap", |arena| {
        let dev = arena.rootfs().join("dev");
        fs::create_dir(&dev).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dev.join("null"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::from(0o666),
            rustix::fs::makedev(1, 3),
        )
        .unwrap();
        fs::write(dev.join("decoy"), "planted\n").unwrap();
        fs::write(arena.rootfs().join("masked"), "secret\n").unwrap();
        arena.configure(&["cat", "/masked"], |c| {
            drop(c["mounts"].as_array_mut().unwrap().remove(1));
            c["linux"]["maskedPaths"] = json!(["/masked"]);
        });
        let swapper = Swapper::start(dev.join("null"), dev.join("decoy"));
        let start = Instant::now();
        let mut verdict = Ok(());
        while verdict.is_ok() && start.elapsed() < time_box() / 2 {
            let said = arena.run().stdout;
            let said = String::from_utf8_lossy(&said);
            verdict = unless(said.contains("planted") || said.contains("secret"), format!("the mask let through {said:?}"));
        }
        drop(swapper);
        verdict
    });
}
