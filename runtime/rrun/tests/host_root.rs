//! Containers without a mount namespace: their mounts are the host's, and nothing of them stays there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

mod support;
use support::{Host, bare, text};

fn bind(config: &mut Value, source: &Path, options: &[&str]) {
    let mount = json!({"destination": "/given", "type": "bind", "source": source, "options": options});
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| m["destination"] != "/given");
    mounts.push(mount);
}

#[test]
fn its_mounts_are_on_the_host_while_it_lives_and_exec_finds_its_root() {
    let host = Host::new("hostroot");
    let id = host.id(0);
    host.configure(&["sleep", "1000"], |c| {
        bare(c);
        c["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
    });
    fs::write(host.dir.path().join("rootfs/mark"), "the container's").unwrap();
    assert!(host.quiet(&["create", &id]));
    assert!(host.quiet(&["start", &id]));
    let output = host.rrun(&["exec", &id, "sh", "-c", "cat /mark; ls -l /proc/self/ns/mnt; true > /new; ls /proc/1/cmdline"]);
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    let said = text(&output);
    assert!(said.starts_with("the container's") && said.contains(own.to_str().unwrap()), "{said}");
    assert!(said.contains("/new: Read-only file system") && said.contains("/proc/1/cmdline"), "{said}");
    assert!(fs::read_dir(host.dir.path().join("rootfs/proc")).unwrap().next().is_some(), "the host sees the container's procfs");
    let second = text(&host.rrun(&["create", &host.id(1)]));
    assert!(second.contains(&format!("is the root of container {id}, which has no mount namespace either")), "{second}");
    assert!(host.quiet(&["delete", "--force", &id]));
    host.assert_clean();
    assert!(fs::read_dir(host.dir.path().join("rootfs/proc")).unwrap().next().is_none());
}

#[test]
fn a_run_a_failed_run_and_a_killed_create_leave_nothing_on_the_host() {
    let host = Host::new("hostroot-end");
    let output = host.run(&["sh", "-c", "grep -c '^[^ ]* [^ ]* [^ ]* [^ ]* / ' /proc/self/mountinfo; ls /sys"], bare);
    assert!(output.status.success() && text(&output).starts_with("1\n"), "{}", text(&output));
    host.assert_clean();
    let output = host.run(&["/nothing-of-this-name"], bare);
    assert!(!output.status.success());
    host.assert_clean();
    let hooks = |path: &str, arg: &str| json!({"createContainer": [{"path": path, "args": [path, arg]}]});
    let output = host.run(&["true"], |c| {
        bare(c);
        c["hooks"] = hooks("/bin/false", "");
    });
    assert!(text(&output).contains("createContainer hook #0"), "{}", text(&output));
    host.assert_clean();

    let id = host.id(1);
    let fifo = host.dir.path().join("reached");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    host.configure(&["true"], |c| {
        bare(c);
        c["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", format!("echo $PPID > {}; exec sleep 1000", fifo.display())]}]});
    });
    let mut create = host.command(&["create", &id]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    fs::read(&fifo).unwrap();
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", create.id())).unwrap();
    create.kill().unwrap();
    create.wait().unwrap();
    assert!(host.leftovers().iter().any(|l| l.to_str().unwrap().contains("rootfs/proc")), "this test is about leftovers");
    assert!(host.quiet(&["delete", "--force", &id]));
    // The hook was the runtime's child, and is nobody's now.
    for pid in children.split_whitespace() {
        Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status().unwrap();
    }
    host.assert_clean();
}

/// In a mount namespace that passes mounts on, with another that follows it, as on a machine with systemd.
fn on_a_shared_host(host: &Host, script: &str) -> String {
    let script = format!(
        r#"set -e; rrun="{} --root {}/state"; dir={}; id={}
        mount --make-rprivate /; mount -t tmpfs shared $dir/outside; mount --make-shared $dir/outside
        mkdir $dir/outside/below; mount -t tmpfs below $dir/outside/below
        mount --bind $dir/rootfs $dir/rootfs; mount --make-shared $dir/rootfs; mount -t tmpfs inner $dir/rootfs/mnt; touch $dir/rootfs/mnt/inner
        unshare -m --propagation slave sleep 1000 & follower=$!; trap "kill $follower" EXIT
        until [ "$(readlink /proc/$follower/ns/mnt)" != "$(readlink /proc/self/ns/mnt)" ]; do :; done
        before=$(grep -c $dir /proc/self/mountinfo); seen=$(grep -c $dir /proc/$follower/mountinfo)
        {script}
        echo left: $(($(grep -c $dir /proc/self/mountinfo) - before)) $(($(grep -c $dir /proc/$follower/mountinfo) - seen))"#,
        env!("CARGO_BIN_EXE_rrun"),
        host.bundle(),
        host.bundle(),
        host.id(0),
    );
    let output =
        Command::new("unshare").args(["-m", "sh", "-c", &script]).current_dir(host.dir.path()).stdin(Stdio::null()).output().unwrap();
    text(&output)
}

#[test]
fn what_the_host_has_mounted_stays_and_who_follows_it_keeps_nothing() {
    let host = Host::new("hostroot-shared");
    for dir in ["outside", "rootfs/mnt"] {
        fs::create_dir(host.dir.path().join(dir)).unwrap();
    }
    for options in [&["rbind", "rprivate"][..], &["rbind"], &["rbind", "rslave"], &["rbind", "rshared"]] {
        host.configure(&["sleep", "1000"], |c| {
            bare(c);
            bind(c, &host.dir.path().join("outside"), options);
        });
        let said = on_a_shared_host(
            &host,
            r#"$rrun run -d $id >/dev/null 2>&1; $rrun exec $id ls /mnt; grep -c ' below ' /proc/self/mountinfo
            grep -c "/rootfs/proc" /proc/$follower/mountinfo || true; $rrun delete --force $id; grep -c ' below ' /proc/self/mountinfo"#,
        );
        assert_eq!(said, "inner\n2\n0\n1\nleft: 0 0\n", "{options:?}");
        host.assert_clean();
    }
}

#[test]
fn a_container_that_mounts_over_its_root_is_undone_and_a_mount_of_somebody_else_is_not() {
    let host = Host::new("hostroot-over");
    for dir in ["outside", "rootfs/mnt"] {
        fs::create_dir(host.dir.path().join(dir)).unwrap();
    }
    std::os::unix::fs::symlink("busybox", host.dir.path().join("rootfs/bin/mount")).unwrap();
    host.configure(&["sh", "-c", "mount -t tmpfs over / && mount -t tmpfs over2 / ; sleep 1000"], |c| {
        bare(c);
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
        }
    });
    let said = on_a_shared_host(
        &host,
        r"$rrun run -d $id >/dev/null 2>&1; until grep -q ' over2 ' /proc/self/mountinfo; do :; done; $rrun delete --force $id",
    );
    assert_eq!(said, "left: 0 0\n");
    host.configure(&["sleep", "1000"], bare);
    let said = on_a_shared_host(
        &host,
        r"$rrun run -d $id >/dev/null 2>&1; umount -l $dir/rootfs; mount -t tmpfs else $dir/rootfs
        $rrun delete --force $id; grep -c ' else ' /proc/self/mountinfo; umount $dir/rootfs",
    );
    assert_eq!(said, "1\nleft: 0 0\n");
    host.assert_clean();
}

/// Where a mount shows on the host an image could lead it out of the container's root, over a directory of the host.
#[test]
fn a_link_of_the_image_leads_no_mount_over_a_directory_of_the_host() {
    let host = Host::new("hostroot-link");
    let outside = host.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, host.dir.path().join("rootfs/data")).unwrap();
    std::os::unix::fs::symlink("../../../../../../../..", host.dir.path().join("rootfs/up")).unwrap();
    let seen = host.dir.path().join("seen");
    let output = host.run(&["true"], |c| {
        bare(c);
        for destination in ["/data", "/up/mnt"] {
            let mount = json!({"destination": destination, "type": "tmpfs", "source": "attack"});
            c["mounts"].as_array_mut().unwrap().push(mount);
        }
        let look = format!("grep ' attack ' /proc/self/mountinfo > {}", seen.display());
        c["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", look]}]});
    });
    assert!(output.status.success(), "{}", text(&output));
    let rootfs = host.dir.path().join("rootfs");
    let places: Vec<String> = fs::read_to_string(&seen).unwrap().lines().map(|l| l.split(' ').nth(4).unwrap().to_string()).collect();
    assert_eq!(places, [format!("{}{}", rootfs.display(), outside.display()), rootfs.join("mnt").display().to_string()]);
    host.assert_clean();
}
