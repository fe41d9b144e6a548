//! Images and volumes that lead the runtime's own work on terminals, labels, read-only paths and cgroups elsewhere.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::arena::{Arena, Runtime, Verdict, text, unless, withstands};

const SECRET: &str = "the host's secret";

/// CVE-2025-52565: what lies at /dev/pts/N when the console is bound is not the terminal but a link to a file of the host.
#[test]
fn the_terminal_of_the_console_is_a_symlink() {
    withstands("console-pts", |arena| {
        fs::create_dir_all(arena.rootfs().join("dev/pts")).unwrap();
        for n in 0..16 {
            symlink(arena.canary().join("secret"), arena.rootfs().join(format!("dev/pts/{n}"))).unwrap();
        }
        for devpts in [false, true] {
            arena.configure(&["cat", "/dev/console"], |c| {
                let mounts = c["mounts"].as_array_mut().unwrap();
                mounts.remove(1);
                if devpts && arena.runtime == Runtime::Rrun {
                    mounts.push(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}));
                    // Nothing to read from a terminal that nobody types into.
                    c["process"]["args"] = json!(["stat", "-c", "%F", "/dev/console"]);
                }
                c["process"]["terminal"] = true.into();
            });
            let output = arena.run();
            unless(text(&output).contains(SECRET), "the console is a file of the host")?;
            if devpts && arena.runtime == Runtime::Rrun {
                assert!(text(&output).contains("character special file"), "{}", text(&output));
            }
        }
        Ok(())
    });
}

/// CVE-2025-62596, CVE-2025-52881: the file that an LSM label is written to is the image's.
#[test]
fn labels_are_written_where_the_image_says() {
    withstands("label", |arena| {
        let files: Vec<_> = ["self/attr", "self/attr/apparmor", "thread-self/attr", "thread-self/attr/apparmor"]
            .map(|dir| arena.rootfs().join("proc").join(dir))
            .into_iter()
            .map(|dir| {
                fs::create_dir_all(&dir).unwrap();
                fs::write(dir.join("exec"), "").unwrap();
                dir.join("exec")
            })
            .collect();
        arena.configure(&["true"], |c| {
            c["mounts"] = json!([]);
            c["process"]["apparmorProfile"] = "a-profile".into();
        });
        let output = arena.run();
        let written = files.iter().any(|file| !fs::read_to_string(file).unwrap().is_empty());
        unless(written || (arena.runtime == Runtime::Rrun && output.status.success()), "the label went into a file of the image")
    });
}

/// CVE-2026-115521: /proc/self/fd of the image leads the remount of a read-only path to another place.
#[test]
fn a_read_only_remount_goes_where_the_images_proc_says() {
    withstands("remount", |arena| {
        for dir in ["guarded", "decoy", "proc/self/fd"] {
            fs::create_dir_all(arena.rootfs().join(dir)).unwrap();
        }
        for n in 0..64 {
            symlink("../../../decoy", arena.rootfs().join(format!("proc/self/fd/{n}"))).unwrap();
        }
        arena.configure(&["touch", "/guarded/written"], |c| {
            c["mounts"] = json!([]);
            c["linux"]["readonlyPaths"] = json!(["/guarded"]);
        });
        arena.run();
        unless(arena.rootfs().join("guarded/written").exists(), "the path could be written")
    });
}

/// CVE-2023-25809: the host's cgroups, which a container without a cgroup namespace sees, can be written although `ro` was asked for.
#[test]
fn the_hosts_cgroups_are_read_only_where_that_was_asked_for() {
    for user_namespace in [false, true] {
        withstands("cgroup-ro", |arena| host_cgroups(arena, user_namespace));
    }
}

fn host_cgroups(arena: &Arena, user_namespace: bool) -> Verdict {
    let name = format!("made-by-{}", arena.id());
    let script = format!(
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/{name} 2>/dev/null && echo made $d; rmdir $d/{name} 2>/dev/null; done; true"
    );
    arena.configure(&["sh", "-c", &script], |c| {
            let mounts = c["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}));
            if user_namespace {
                let ids = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
                c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
                c["linux"]["uidMappings"] = ids.clone();
                c["linux"]["gidMappings"] = ids;
            }
        });
    let output = arena.run();
    assert!(output.status.success(), "{}", text(&output));
    unless(text(&output).contains("made"), text(&output))
}

/// CVE-2022-0811 and kin: a setting of the whole kernel's, by its own name, in other spellings, or behind one that is allowed.
#[test]
fn settings_of_the_hosts_kernel_cannot_be_made() {
    const SETTING: &str = "/proc/sys/kernel/printk_ratelimit_burst";
    struct PutBack(String);
    impl Drop for PutBack {
        fn drop(&mut self) {
            fs::write(SETTING, &self.0).unwrap();
        }
    }
    let put_back = PutBack(fs::read_to_string(SETTING).unwrap());
    let before = put_back.0.trim();
    for (key, value) in [
        ("kernel.printk_ratelimit_burst", "7"),
        ("kernel/printk_ratelimit_burst", "7"),
        ("net.core/../../kernel/printk_ratelimit_burst", "7"),
        ("net/core/../../kernel/printk_ratelimit_burst", "7"),
        ("kernel.shm_rmid_forced", "1+kernel.printk_ratelimit_burst=7"),
        ("kernel.shm_rmid_forced", "1\nkernel.printk_ratelimit_burst=7"),
    ] {
        // The first spellings are the naive runtime's undoing; the others are tried all the same.
        let attack = |arena: &crate::arena::Arena| {
            arena.configure(&["true"], |c| c["linux"]["sysctl"] = json!({key: value}));
            arena.run();
            let now = fs::read_to_string(SETTING).unwrap();
            fs::write(SETTING, before).unwrap();
            let harmless = arena.runtime == Runtime::Naive && key != "kernel.printk_ratelimit_burst";
            unless(now.trim() != before || harmless, format!("{key} = {value:?} has set the host's to {now}"))
        };
        withstands("sysctl", attack);
    }
}
