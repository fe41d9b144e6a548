//! What the mounts of config.json become, as the kernel shows it to a container of the real binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::{Value, json};

mod support;
use support::{Host, text};

fn mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn tmpcopyup_keeps_modes_owners_and_names_of_any_bytes() {
    let host = Host::new("copyup");
    let dir = host.dir.path().join("rootfs/data");
    fs::create_dir(&dir).unwrap();
    for (name, mode) in [("suid", 0o4755), ("sgid", 0o2711)] {
        fs::write(dir.join(name), "x").unwrap();
        chown(dir.join(name), Some(5), Some(6)).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(dir.join(OsStr::from_bytes(b"\xff\xfe")), "odd name").unwrap();
    let script = "ls -ln /data | grep -o '^[-rwsx]* *[0-9]* *[0-9]* *[0-9]*' ; cat /data/\"$(printf '\\377\\376')\"";
    let output = host.run(&["sh", "-c", script], |c| {
        mount(c, json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    });
    let said: Vec<String> = text(&output).lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(said, ["-rwx--s--x 1 5 6", "-rwsr-xr-x 1 5 6", "-rw-r--r-- 1 0 0", "odd name"]);
    host.assert_clean();
}

#[test]
fn tmpcopyup_keeps_times_and_extended_attributes() {
    use rustix::fs::{XattrFlags, lsetxattr};
    let host = Host::new("copyup-times");
    let dir = host.dir.path().join("rootfs/data/sub");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("file"), "x").unwrap();
    let inner = |name: &str| dir.join(name);
    // Of the kind that a tmpfs takes, whatever the kernel was built with.
    for path in [inner("file"), dir.clone()] {
        lsetxattr(&path, "trusted.mark", b"kept", XattrFlags::empty()).unwrap();
    }
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for path in [inner("file"), dir.clone()] {
        fs::File::open(path).unwrap().set_times(fs::FileTimes::new().set_modified(old).set_accessed(old)).unwrap();
    }
    let id = host.id(0);
    host.configure(&["sleep", "1000"], |c| {
        mount(c, json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    });
    assert!(host.quiet(&["run", "-d", "--pid-file", host.dir.path().join("pid").to_str().unwrap(), &id]));
    let pid = fs::read_to_string(host.dir.path().join("pid")).unwrap();
    for name in ["sub", "sub/file"] {
        let copy = format!("/proc/{pid}/root/data/{name}");
        assert_eq!(fs::metadata(&copy).unwrap().modified().unwrap(), old, "{name}");
        let mut mark = [0; 8];
        let length = rustix::fs::lgetxattr(&copy, "trusted.mark", &mut mark).unwrap();
        assert_eq!(&mark[..length], b"kept", "{name}");
    }
    assert!(host.quiet(&["delete", "--force", &id]));
    host.assert_clean();
}

/// What the kernel says of the mount at this place: its own options, those of its file system.
fn seen(host: &Host, place: &str, change: impl FnOnce(&mut Value)) -> String {
    let output = host.run(&["grep", &format!(" {place} "), "/proc/self/mountinfo"], change);
    let said = text(&output);
    let words: Vec<&str> = said.split_whitespace().collect();
    if output.status.success() { format!("{} {}", words[5], words[words.len() - 1]) } else { said }
}

fn tmpfs(options: &[&str]) -> Value {
    json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options})
}

#[test]
fn options_that_only_mount_2_knows_are_taken() {
    let host = Host::new("mountopts");
    for option in ["silent", "loud", "iversion", "noiversion", "defaults"] {
        assert!(seen(&host, "/mnt", |c| mount(c, tmpfs(&[option, "nosuid"]))).starts_with("rw,nosuid,relatime rw"), "{option}");
    }
    host.assert_clean();
}

#[test]
fn a_remount_changes_the_mount_and_its_file_system() {
    let host = Host::new("remount");
    let again = |options: &[&str]| {
        seen(&host, "/mnt", |c| {
            c["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/mnt");
            mount(c, tmpfs(&["nodev", "size=1m"]));
            mount(c, tmpfs(options));
        })
    };
    assert_eq!(again(&["remount", "noexec", "size=2m"]).split(",mode").next(), Some("rw,noexec,relatime rw,size=2048k"));
    assert_eq!(again(&["remount", "ro", "noatime", "lazytime"]).split(",mode").next(), Some("ro,noatime ro,lazytime,size=1024k"));
    let nothing = host.run(&["true"], |c| {
        c["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/mnt");
        mount(c, json!({"destination": "/bin", "type": "tmpfs", "source": "tmpfs", "options": ["remount"]}));
    });
    assert!(!nothing.status.success() && text(&nothing).contains("remounting"), "{}", text(&nothing));
    host.assert_clean();
}

#[test]
fn a_mount_can_be_moved_into_the_container() {
    let host = Host::new("move");
    let source = host.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let source = source.to_str().unwrap();
    host.configure(&["sh", "-c", "cat /mnt/file; grep -c source /proc/self/mountinfo; cat /proc/self/mountinfo | grep ' /mnt '"], |c| {
        mount(c, json!({"destination": "/mnt", "type": "none", "source": source, "options": ["move", "ro", "nosuid"]}));
    });
    let in_own_mounts = |script: &str| {
        let rrun = host.command(&["run", &host.id(0)]);
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", script, "sh", source]).arg(rrun.get_program()).args(rrun.get_args());
        text(&command.current_dir(host.bundle()).output().unwrap())
    };
    let said = in_own_mounts("mount -t tmpfs moved $1 && echo inside >$1/file && shift && exec \"$@\"");
    assert!(said.starts_with("inside\n0\n") && said.contains(" /mnt ro,nosuid,relatime "), "{said}");
    let said = in_own_mounts("shift && exec \"$@\"");
    assert!(said.contains("is it the top of a mount that is not shared?"), "{said}");
    host.assert_clean();
}
