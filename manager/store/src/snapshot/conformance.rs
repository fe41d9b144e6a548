//! What every snapshotter must do, run for each of them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rcontainerd_types::ErrorKind;

use super::*;
use crate::store::{Options, SnapshotterChoice, Store};

/// Mounts in a private mount namespace of a child shell and runs `script` there with the merged root as `$1`.
fn in_mount(mounts: &[Mount], script: &str) -> String {
    let target = tempfile::tempdir().expect("temporary directory");
    let commands: Vec<String> = mounts
        .iter()
        .map(|mount| {
            let options = mount.options.join(",");
            match mount.fstype.as_str() {
                "bind" => {
                    format!("mount --{} '{}' \"$1\" && mount -o remount,bind,{} \"$1\"", mount.options[0], mount.source, mount.options[1])
                }
                other => format!("mount -t {other} -o '{options}' '{}' \"$1\"", mount.source),
            }
        })
        .collect();
    let script = format!("set -e; {}; cd \"$1\"; {script}", commands.join("; "));
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &script, "sh"])
        .arg(target.path())
        .output()
        .expect("unshare");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("utf-8")
}

fn with_store(choice: SnapshotterChoice, test: impl Fn(&Store, &dyn Snapshotter)) {
    let root = tempfile::tempdir().expect("temporary directory");
    let store = Store::open_with(root.path(), &Options { snapshotter: choice }).expect("open");
    test(&store, store.snapshots("test").as_ref());
}

fn for_each(test: impl Fn(&Store, &dyn Snapshotter)) {
    for choice in [SnapshotterChoice::Overlay, SnapshotterChoice::Native] {
        with_store(choice, &test);
    }
}

fn labels(value: &str) -> Labels {
    Labels::from([("label".to_owned(), value.to_owned())])
}

fn kind_of<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("must be refused").kind()
}

/// Writes a layer through its mounts and commits it.
fn layer(snapshots: &dyn Snapshotter, name: &str, parent: Option<&str>, script: &str) {
    let key = format!("writing-{name}");
    let mounts = snapshots.prepare(&key, parent, Labels::new()).expect("prepare");
    in_mount(&mounts, script);
    snapshots.commit(name, &key, Labels::new()).expect("commit");
}

#[test]
fn layers_stack_and_hide() {
    for_each(|_, snapshots| {
        layer(snapshots, "base", None, "echo one > a; echo one > b; mkdir -p d; echo x > d/x; chmod 1777 d; mkdir e; echo y > e/y");
        layer(snapshots, "top", Some("base"), "echo two > a; rm b; rm -r e; mkdir e; echo z > e/z; ln d/x hard");
        let mounts = snapshots.view("look", Some("top"), Labels::new()).expect("view");
        let seen = in_mount(&mounts, "cat a d/x e/z hard; ls e; ls; stat -c %a d; if echo x > new 2>/dev/null; then echo writable; fi");
        assert_eq!(seen, "two\nx\nz\nx\nz\na\nd\ne\nhard\n1777\n", "{}", snapshots.name());
        let mounts = snapshots.view("base look", Some("base"), Labels::new()).expect("view");
        assert_eq!(in_mount(&mounts, "cat a b e/y"), "one\none\ny\n", "the parent is as it was");
    });
}

#[test]
fn keys_kinds_and_parents_are_checked() {
    for_each(|_, snapshots| {
        assert_eq!(kind_of(snapshots.stat("none")), ErrorKind::NotFound);
        assert_eq!(kind_of(snapshots.mounts("none")), ErrorKind::NotFound);
        assert_eq!(kind_of(snapshots.remove("none")), ErrorKind::NotFound);
        assert_eq!(kind_of(snapshots.prepare("x", Some("none"), Labels::new())), ErrorKind::NotFound);
        assert_eq!(kind_of(snapshots.prepare("", None, Labels::new())), ErrorKind::InvalidArgument);
        snapshots.prepare("active", None, labels("a")).expect("prepare");
        assert_eq!(kind_of(snapshots.prepare("active", None, Labels::new())), ErrorKind::AlreadyExists);
        assert_eq!(kind_of(snapshots.view("active", None, Labels::new())), ErrorKind::AlreadyExists);
        assert_eq!(kind_of(snapshots.prepare("x", Some("active"), Labels::new())), ErrorKind::InvalidArgument);
        snapshots.view("view", None, Labels::new()).expect("view");
        assert_eq!(kind_of(snapshots.commit("c", "view", Labels::new())), ErrorKind::Conflict);
        snapshots.commit("committed", "active", labels("c")).expect("commit");
        assert_eq!(kind_of(snapshots.stat("active")), ErrorKind::NotFound);
        assert_eq!(kind_of(snapshots.mounts("committed")), ErrorKind::Conflict);
        assert_eq!(kind_of(snapshots.commit("again", "committed", Labels::new())), ErrorKind::Conflict);
        snapshots.prepare("second", Some("committed"), Labels::new()).expect("prepare");
        assert_eq!(kind_of(snapshots.commit("committed", "second", Labels::new())), ErrorKind::AlreadyExists);
        assert_eq!(kind_of(snapshots.remove("committed")), ErrorKind::Conflict);
        let info = snapshots.stat("second").expect("stat");
        assert_eq!((info.kind, info.parent.as_deref()), (Kind::Active, Some("committed")));
        snapshots.remove("second").expect("remove");
        snapshots.remove("committed").expect("remove");
        assert_eq!(snapshots.list().expect("list").iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["view"]);
    });
}

#[test]
fn labels_are_replaced_and_listed() {
    for_each(|_, snapshots| {
        snapshots.prepare("one", None, labels("old")).expect("prepare");
        let before = snapshots.stat("one").expect("stat");
        let after = snapshots.set_labels("one", labels("new")).expect("set");
        assert_eq!((&after.labels, after.created), (&labels("new"), before.created));
        assert_eq!(snapshots.list().expect("list"), [after]);
    });
}

#[test]
fn namespaces_do_not_see_each_other() {
    for_each(|store, snapshots| {
        snapshots.prepare("same", None, Labels::new()).expect("prepare");
        let other = store.snapshotter("other", snapshots.name()).expect("snapshotter");
        assert!(other.list().expect("list").is_empty());
        other.prepare("same", None, Labels::new()).expect("the key is free there");
        other.remove("same").expect("remove");
        snapshots.stat("same").expect("untouched");
    });
}

#[test]
fn usage_is_what_du_says_and_removal_gives_it_back() {
    for_each(|store, snapshots| {
        layer(snapshots, "base", None, "head -c 1000000 /dev/zero > a; ln a b; mkdir d; touch d/f");
        let usage = snapshots.usage("base").expect("usage");
        assert_eq!(usage.inodes, 4, "root, a, d, f");
        assert!((1_000_000..1_050_000).contains(&usage.size), "{usage:?}");
        snapshots.remove("base").expect("remove");
        let left = std::fs::read_dir(store.root().join("snapshots").join(snapshots.name())).expect("list").count();
        assert_eq!(left, 0);
    });
}

/// CVE-2021-41103: nobody but root may enter the directories that hold the layers.
#[test]
fn layers_are_out_of_reach_for_users() {
    for_each(|store, snapshots| {
        let mounts = snapshots.prepare("one", None, Labels::new()).expect("prepare");
        let mode = |path: &Path| std::fs::metadata(path).expect("stat").permissions().mode() & 0o777;
        assert_eq!(mode(&store.root().join("snapshots").join(snapshots.name())), 0o700);
        assert_eq!(mode(Path::new(&mounts[0].source).parent().expect("parent")), 0o700);
        assert_eq!(mode(Path::new(&mounts[0].source)), 0o755, "the container's root itself");
        assert_eq!(mode(&store.root().join("content/blobs")), 0o700);
    });
}

#[test]
fn the_roots_own_attributes_pass_down() {
    for_each(|_, snapshots| {
        layer(snapshots, "base", None, "chmod 1770 .; chown 12:34 .");
        let mounts = snapshots.prepare("child", Some("base"), Labels::new()).expect("prepare");
        assert_eq!(in_mount(&mounts, "stat -c '%a %u %g' ."), "1770 12 34\n");
    });
}

/// What a crash leaves between the directory and its record, on either side.
#[test]
fn directories_without_record_are_swept_at_open() {
    let root = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(root.path()).expect("open");
    let snapshots = store.snapshots("test");
    snapshots.prepare("kept", None, Labels::new()).expect("prepare");
    let dir = root.path().join("snapshots").join(snapshots.name());
    std::fs::create_dir_all(dir.join("77/fs/sub")).expect("orphan");
    std::fs::create_dir_all(dir.join("check-left")).expect("orphan");
    drop((snapshots, store));
    let store = Store::open(root.path()).expect("open again");
    let mut left: Vec<_> = std::fs::read_dir(&dir).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    left.sort();
    assert_eq!(left, ["1"]);
    let mounts = store.snapshots("test").mounts("kept").expect("mounts");
    assert!(std::fs::metadata(&mounts[0].source).expect("stat").is_dir());
}

#[test]
fn a_hundred_and_fifty_layers_can_be_mounted() {
    with_store(SnapshotterChoice::Overlay, |_, snapshots| {
        let mut parent: Option<String> = None;
        for n in 0..150 {
            let (key, name) = (format!("k{n}"), format!("layer{n}"));
            snapshots.prepare(&key, parent.as_deref(), Labels::new()).expect("prepare");
            let dirs = snapshots.layer_dirs(&key).expect("dirs");
            std::fs::write(dirs.upper.join(format!("f{n}")), "x").expect("write");
            snapshots.commit(&name, &key, Labels::new()).expect("commit");
            parent = Some(name);
        }
        let mounts = snapshots.prepare("top", parent.as_deref(), Labels::new()).expect("prepare");
        assert!(mounts[0].options.iter().map(String::len).sum::<usize>() > 4096, "longer than mount(2)'s page");
        let point = tempfile::tempdir().expect("temporary directory");
        let to = rustix::fs::open(point.path(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("open");
        let Mount { fstype, source, options } = &mounts[0];
        rrun_sys::filesystem::Filesystem { fstype, source, options }.mount_on(&to).expect("mount");
        let names = std::fs::read_dir(point.path()).expect("read").map(|entry| entry.expect("entry").file_name());
        let count = names.filter(|name| name.as_encoded_bytes().starts_with(b"f")).count();
        rrun_sys::mount::unmount(point.path(), rrun_sys::mount::UnmountFlags::DETACH).expect("unmount");
        assert_eq!(count, 150);
    });
}

#[test]
fn a_tree_deeper_than_any_path_can_be_removed() {
    for_each(|store, snapshots| {
        let mounts = snapshots.prepare("deep", None, Labels::new()).expect("prepare");
        // The shell itself gives up at PATH_MAX.
        in_mount(&mounts, "python3 -c 'import os\nfor i in range(3000): os.mkdir(\"deep\"); os.chdir(\"deep\")\nopen(\"bottom\", \"w\")'");
        assert_eq!(snapshots.usage("deep").expect("usage").inodes, 3002);
        snapshots.remove("deep").expect("remove");
        let dir = store.root().join("snapshots").join(snapshots.name());
        assert_eq!(std::fs::read_dir(dir).expect("list").count(), 0);
    });
}

/// Adds a file through the mounts of `key`, which must be fit to be mounted more than once.
fn write_through(snapshots: &dyn Snapshotter, key: &str, name: &str) -> String {
    in_mount(&snapshots.mounts(key).expect("mounts"), &format!("touch {name}; ls"))
}

#[test]
fn a_scratch_snapshot_can_be_mounted_again_and_is_gone_after_a_reboot() {
    for choice in [SnapshotterChoice::Overlay, SnapshotterChoice::Native] {
        let root = tempfile::tempdir().expect("temporary directory");
        let options = Options { snapshotter: choice };
        let store = Store::open_with(root.path(), &options).expect("open");
        let snapshots = store.snapshots("test");
        layer(snapshots.as_ref(), "base", None, "touch below");
        for key in ["kept", "lost"] {
            snapshots.prepare_as(Persistence::Scratch, key, Some("base"), Labels::new()).expect("prepare");
        }
        assert_eq!(write_through(snapshots.as_ref(), "lost", "a"), "a\nbelow\n");
        assert_eq!(write_through(snapshots.as_ref(), "lost", "b"), "a\nb\nbelow\n");
        // As if it had been made in an earlier boot.
        let full = format!("{}/test/lost", snapshots.name());
        let aged = store.metadata().write(|tx| {
            let mut record = tx.get(SNAPSHOTS, &full)?.expect("there");
            record.scratch = Some("an earlier boot".into());
            tx.put(SNAPSHOTS, &full, &record)?;
            Ok(record.dir)
        });
        let dir = root.path().join("snapshots").join(snapshots.name()).join(aged.expect("age").to_string());
        assert!(dir.exists());
        drop((snapshots, store));
        let store = Store::open_with(root.path(), &options).expect("open");
        let snapshots = store.snapshots("test");
        assert_eq!(kind_of(snapshots.stat("lost")), ErrorKind::NotFound);
        assert!(!dir.exists());
        snapshots.stat("kept").expect("of this boot");
        assert!(store.fsck(&crate::fsck::FsckOptions { digests: true, repair: false }).expect("fsck").is_clean());
        snapshots.remove("kept").expect("remove");
    }
}

#[test]
fn a_scratch_snapshot_that_is_committed_is_an_ordinary_one() {
    for_each(|_, snapshots| {
        let mounts = snapshots.prepare_as(Persistence::Scratch, "s", None, Labels::new()).expect("prepare");
        in_mount(&mounts, "touch a");
        snapshots.commit("c", "s", Labels::new()).expect("commit");
        snapshots.view("v", Some("c"), Labels::new()).expect("view");
        assert_eq!(in_mount(&snapshots.mounts("v").expect("mounts"), "ls"), "a\n");
    });
}

#[test]
fn what_a_killed_unpack_left_goes_at_the_next_open() {
    let root = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(root.path()).expect("open");
    let snapshots = store.snapshots("test");
    let half_made = Labels::from([(crate::unpack::IN_PROGRESS.to_owned(), String::new())]);
    snapshots.prepare_as(Persistence::WithNext, "extract-1", None, half_made).expect("prepare");
    snapshots.prepare("mine", None, Labels::new()).expect("prepare");
    drop((snapshots, store));
    let store = Store::open(root.path()).expect("open");
    let names: Vec<String> = store.snapshots("test").list().expect("list").into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["mine"]);
    assert_eq!(std::fs::read_dir(root.path().join("snapshots/overlayfs")).expect("list").count(), 1);
}

/// As on a disk that others fill; here it is a child that is in the way.
#[test]
fn what_could_not_be_discarded_is_discarded_once_that_is_possible() {
    for_each(|_, snapshots| {
        layer(snapshots, "below", None, "echo a >a");
        snapshots.prepare("above", Some("below"), Labels::new()).expect("prepare");
        let names = || snapshots.list().expect("list").into_iter().map(|info| info.name).collect::<Vec<_>>();
        snapshots.discard("below");
        assert_eq!(names(), ["above", "below"]);
        assert_eq!(kind_of(snapshots.discard_again()), ErrorKind::Conflict);
        snapshots.discard("above");
        snapshots.discard_again().expect("nothing is in the way");
        assert_eq!(names(), Vec::<String>::new());
        snapshots.discard_again().expect("nothing is left");
    });
}
