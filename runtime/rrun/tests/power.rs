//! A record of a container survives a loss of power: the file system that it lies on is shut down at once, with all that was not yet
//! synced (ext4's own means for such tests, EXT4_IOC_SHUTDOWN), and mounted anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

mod support;
use support::{Host, text};

/// `$rrun` keeps its state on a disk of its own at `$disk`, `cut` takes its power, `again` mounts it after that.
fn on_a_disk(host: &Host, script: &str) -> String {
    let cut = host.dir.path().join("cut");
    // Flag 2: without a flush of the journal.
    let program = r#"open(my $disk, "<", $ARGV[0]) or die $!; my $how = pack("L", 2); ioctl($disk, 0x8004587d, $how) or die $!;"#;
    fs::write(&cut, program).unwrap();
    let script = format!(
        r#"set -e; dir={}; id={}; disk=$dir/disk; mkdir -p $disk
        # No runtime finds what it has made where its record is lost: a test that fails cleans up here.
        trap '[ $? = 0 ] || find /sys/fs/cgroup -maxdepth 2 -name {} -exec rmdir {{}} +' EXIT
        rrun="{} --root $disk/state"; cut() {{ perl $dir/cut $disk; }}
        truncate -s 32M $dir/image; mkfs.ext4 -q -F $dir/image; mount -o loop $dir/image $disk; mkdir $disk/state; sync
        # What was killed lets go of the disk when it has ended.
        again() {{ timeout 20 sh -c "until umount $disk 2>/dev/null; do :; done"; mount -o loop $dir/image $disk; }}
        {script}
        ls $disk/state; umount $disk"#,
        host.bundle(),
        host.id(0),
        host.prefix,
        env!("CARGO_BIN_EXE_rrun"),
    );
    let command = ["--mount", "--propagation", "private", "sh", "-c", &script];
    text(&Command::new("unshare").args(command).current_dir(host.dir.path()).stdin(Stdio::null()).output().unwrap())
}

#[test]
fn a_container_that_was_told_of_is_on_the_disk() {
    let host = Host::new("power");
    host.configure(&["true"], |c| c["annotations"] = json!({"mark": "kept"}));
    let said = on_a_disk(
        &host,
        r#"$rrun create --pid-file $dir/pid $id >/dev/null 2>&1; cut
        kill -9 $(cat $dir/pid); again; $rrun state $id | grep -e status -e mark; cmp $dir/config.json $disk/state/$id/config.json; $rrun delete $id"#,
    );
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(lines, [r#""status": "stopped","#, r#""mark": "kept""#], "{said}");
    host.assert_clean();
}

/// The power goes while the container is made: what is there then is whole, or nothing, and can be removed.
#[test]
fn a_container_that_is_being_made_can_be_removed() {
    let host = Host::new("power-create");
    let cut = format!("perl {0}/cut {0}/disk; kill -9 $PPID", host.bundle());
    host.configure(&["true"], |c| c["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", cut]}]}));
    let said = on_a_disk(
        &host,
        r"$rrun create $id >/dev/null 2>&1 || true
        again; $rrun list -q; $rrun delete --force $id; $rrun list -q",
    );
    assert_eq!(said.lines().collect::<Vec<_>>(), [host.id(0)], "{said}");
    host.assert_clean();
}
