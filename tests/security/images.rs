//! Images that bring symlinks and files where a runtime expects directories and devices.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::arena::{Arena, Runtime, Verdict, text, unless, withstands};

/// CVE-2026-41579, -47766, -88264, -88265: /dev of the image is a link out of the root.
#[test]
fn dev_is_a_symlink() {
    withstands("dev-link", |arena| {
        symlink(arena.canary(), arena.rootfs().join("dev")).unwrap();
        arena.configure(&["echo", "alive"], |c| drop(c["mounts"].as_array_mut().unwrap().remove(1)));
        arena.run();
        Ok(())
    });
}

/// The same for each name in /dev that a runtime makes, opens or binds; a tty takes the console's way.
#[test]
fn names_in_dev_are_symlinks() {
    for (name, terminal) in [("null", false), ("console", false), ("console", true), ("pts", false), ("shm", false), ("ptmx", true)] {
        withstands(&format!("dev-{name}-link"), |arena| {
            fs::create_dir(arena.rootfs().join("dev")).unwrap();
            let target = arena.canary().join(if name == "pts" || name == "shm" { "" } else { "made-by-the-runtime" });
            symlink(target, arena.rootfs().join("dev").join(name)).unwrap();
            arena.configure(&["echo", "alive"], |c| {
                drop(c["mounts"].as_array_mut().unwrap().remove(1));
                c["mounts"].as_array_mut().unwrap().push(json!({"destination": "/dev/pts/deep", "type": "tmpfs", "source": "tmpfs"}));
                c["mounts"].as_array_mut().unwrap().push(json!({"destination": "/dev/shm/deep", "type": "tmpfs", "source": "tmpfs"}));
                c["process"]["terminal"] = terminal.into();
            });
            arena.run();
            // The naive runtime follows at least the console's link.
            unless(arena.runtime == Runtime::Naive && ["null", "ptmx"].contains(&name), "the naive runtime has no such step")
        });
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc and /sys of the image are links.
#[test]
fn proc_and_sys_are_symlinks() {
    for name in ["proc", "sys"] {
        withstands(&format!("{name}-link"), |arena| {
            fs::create_dir_all(arena.rootfs().join("elsewhere")).unwrap();
            symlink("/elsewhere", arena.rootfs().join(name)).unwrap();
            arena.configure(&["true"], |_| {});
            let output = arena.run();
            unless(
                output.status.success() || arena.runtime == Runtime::Naive,
                format!("{name} was mounted through a link: {}", text(&output)),
            )
        });
    }
}

/// CVE-2019-16884: a volume over /proc, or over a part of it that a label is written through.
#[test]
fn a_volume_covers_proc() {
    for to in ["/proc", "/proc/self/attr", "/proc/sys", "/link-to-proc"] {
        withstands("volume-proc", |arena| {
            symlink("proc", arena.rootfs().join("link-to-proc")).unwrap();
            let volume = arena.dir.path().join("volume");
            fs::create_dir(&volume).unwrap();
            arena.configure(&["true"], |c| {
                let mounts = c["mounts"].as_array_mut().unwrap();
                mounts.push(json!({"destination": to, "type": "bind", "source": volume, "options": ["bind"]}));
            });
            let output = arena.run();
            unless(output.status.success() || arena.runtime == Runtime::Naive, format!("{to} was covered: {}", text(&output)))
        });
    }
}

/// CVE-2025-31133, CVE-2025-62161: a file of the image stands where masks expect the null device.
#[test]
fn dev_null_is_a_file() {
    withstands("masks", |arena| {
        fs::create_dir(arena.rootfs().join("dev")).unwrap();
        fs::write(arena.rootfs().join("dev/null"), "planted\n").unwrap();
        fs::write(arena.rootfs().join("masked"), "secret\n").unwrap();
        arena.configure(&["cat", "/masked"], |c| {
            drop(c["mounts"].as_array_mut().unwrap().remove(1));
            c["linux"]["maskedPaths"] = json!(["/masked"]);
        });
        let output = arena.run();
        unless(!output.stdout.is_empty() && (text(&output).contains("planted") || text(&output).contains("secret")), text(&output))
    });
}

/// CVE-2026-55686 and others: a working directory whose parents lead out of the root is made on the host.
#[test]
fn the_working_directory_leads_out() {
    withstands("cwd-link", |arena| {
        symlink(arena.canary(), arena.rootfs().join("work")).unwrap();
        arena.configure(&["touch", "here"], |c| c["process"]["cwd"] = "/work/made/deep".into());
        arena.run();
        Ok(())
    });
}

/// CVE-2019-18837, CVE-2025-24965: the bundle's root is a link to a directory of the host.
#[test]
fn the_root_is_a_symlink() {
    withstands("root-link", |arena| {
        let bundle = arena.dir.path().join("bundle");
        fs::rename(bundle.join("rootfs"), arena.dir.path().join("hosts-directory")).unwrap();
        symlink(arena.dir.path().join("hosts-directory"), bundle.join("rootfs")).unwrap();
        arena.configure(&["touch", "/written"], |_| {});
        arena.run();
        unless(arena.dir.path().join("hosts-directory/written").exists(), "the container ran in the host's directory")
    });
}

/// CVE-2025-52881: writes to /proc go where the image says. What was asked for must be what the kernel has, or nothing runs.
#[test]
fn procfs_writes_are_redirected() {
    withstands("proc-writes", |arena: &Arena| -> Verdict {
        symlink(arena.canary(), arena.rootfs().join("proc")).unwrap();
        fs::create_dir_all(arena.rootfs().join("sys")).unwrap();
        arena.configure(&["true"], |c| {
            c["mounts"] = json!([]);
            c["linux"]["sysctl"] = json!({"net.core.somaxconn": "77"});
        });
        fs::create_dir_all(arena.rootfs().join("fake/sys/net/core")).unwrap();
        fs::write(arena.rootfs().join("fake/sys/net/core/somaxconn"), "").unwrap();
        fs::remove_file(arena.rootfs().join("proc")).unwrap();
        symlink("fake", arena.rootfs().join("proc")).unwrap();
        arena.run();
        let got = fs::read_to_string(arena.rootfs().join("fake/sys/net/core/somaxconn")).unwrap();
        unless(!got.is_empty(), format!("the image's file was written: {got:?}"))
    });
}

/// CVE-2025-4437 and kin: /etc/passwd of the image, read for HOME, is a pipe that nobody writes to, or a link to a file of the host.
#[test]
fn the_list_of_users_is_no_list() {
    withstands("passwd", |arena| {
        fs::create_dir(arena.rootfs().join("etc")).unwrap();
        let passwd = arena.rootfs().join("etc/passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o666), 0).unwrap();
        arena.configure(&["echo", "alive"], |_| {});
        let inner = arena.run_command();
        let mut command = std::process::Command::new("timeout");
        command.args(["--signal=KILL", "20"]).arg(inner.get_program()).args(inner.get_args()).stdin(std::process::Stdio::null());
        let output = command.output().unwrap();
        unless(!text(&output).contains("alive"), "the runtime waits for the image")?;
        fs::remove_file(&passwd).unwrap();
        symlink(arena.canary().join("secret"), &passwd).unwrap();
        fs::write(arena.canary().join("secret"), "x:x:0:0:x:/from-the-host:\n").unwrap();
        arena.configure(&["sh", "-c", "echo $HOME"], |_| {});
        let output = arena.run();
        fs::write(arena.canary().join("secret"), "the host's secret\n").unwrap();
        unless(text(&output).contains("from-the-host"), "a file of the host was read")
    });
}
