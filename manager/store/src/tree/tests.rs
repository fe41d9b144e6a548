use std::ffi::CString;
use std::fs;
use std::io::Cursor;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rcontainerd_types::ErrorKind;

use super::*;
use crate::metadata::Labels;
use crate::snapshot::Snapshotter;
use crate::unpack::{Limits, apply};
use crate::{Options, SnapshotterChoice, Store};

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).expect("open").into()
}

fn listing(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let show = |entry: tar::Entry<'_, &[u8]>| {
        let link = entry.link_name().expect("link").map(|target| format!(" -> {}", target.display())).unwrap_or_default();
        format!("{:?} {}{link}", entry.header().entry_type(), entry.path().expect("path").display())
    };
    archive.entries().expect("entries").map(|entry| show(entry.expect("entry"))).collect()
}

fn packed(dir: &Path, name: &str, prefix: &str) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new(), Times::Seconds);
    let name = CString::new(name).expect("name");
    write_tree(&mut writer, open(dir).as_fd(), &name, prefix.as_bytes()).expect("write");
    writer.finish().expect("finish")
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let (from, to) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let long = "n".repeat(200);
    let base = from.path().join("base");
    fs::create_dir_all(base.join(&long)).expect("mkdir");
    fs::write(base.join(&long).join("file"), "deep").expect("write");
    fs::write(base.join("setuid"), "x").expect("write");
    std::os::unix::fs::chown(base.join("setuid"), Some(3_000_000), Some(7)).expect("chown");
    fs::set_permissions(base.join("setuid"), fs::Permissions::from_mode(0o4755)).expect("chmod");
    fs::hard_link(base.join("setuid"), base.join("twin")).expect("link");
    symlink("/nowhere", base.join("link")).expect("symlink");
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(rustix::fs::CWD, base.join("null"), rustix::fs::FileType::CharacterDevice, 0o666.into(), null).expect("mknod");
    rustix::fs::setxattr(base.join("setuid"), "user.note", b"a\nb", rustix::fs::XattrFlags::empty()).expect("setxattr");
    let tar = packed(from.path(), "base", "base");
    assert_eq!(tar, packed(from.path(), "base", "base"), "the same tree gives the same bytes");
    extract(Cursor::new(tar), &Scope::new(open(to.path())), b"", ExtractOptions::default()).expect("extract");
    let back = to.path().join("base");
    assert_eq!(fs::read_to_string(back.join(&long).join("file")).expect("read"), "deep");
    let setuid = fs::metadata(back.join("setuid")).expect("stat");
    assert_eq!((setuid.mode() & 0o7777, setuid.uid(), setuid.gid(), setuid.nlink()), (0o4755, 3_000_000, 7, 2));
    assert_eq!(fs::read_link(back.join("link")).expect("readlink"), Path::new("/nowhere"));
    let node = fs::metadata(back.join("null")).expect("stat");
    assert!(node.file_type().is_char_device() && node.rdev() == null);
    let mut value = [0u8; 8];
    let length = rustix::fs::getxattr(back.join("setuid"), "user.note", &mut value[..]).expect("getxattr");
    assert_eq!(&value[..length], b"a\nb");
}

#[test]
fn prefixes_replace_the_base_name_as_docker_s_do() {
    let dir = tempfile::tempdir().expect("dir");
    fs::create_dir(dir.path().join("data")).expect("mkdir");
    fs::write(dir.path().join("data/seed"), "x").expect("write");
    assert_eq!(listing(&packed(dir.path(), "data", "copy")), ["Directory copy/", "Regular copy/seed"]);
    assert_eq!(listing(&packed(dir.path(), "data", ".")), ["Directory ./", "Regular ./seed"]);
    assert_eq!(listing(&packed(dir.path(), "data", "")), ["Regular seed"]);
    assert_eq!(listing(&packed(dir.path(), "data/seed", "seed")), ["Regular seed"]);
}

fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().expect("ustar").name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        if is_link {
            header.as_ustar_mut().expect("ustar").linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_size(if is_link { 0 } else { content.len() as u64 });
        header.set_cksum();
        builder.append(&header, if is_link { &b""[..] } else { content.as_bytes() }).expect("append");
    }
    builder.into_inner().expect("archive")
}

#[test]
fn nothing_leaves_the_root_that_is_extracted_into() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let dir = tempfile::tempdir().expect("dir");
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("at")).expect("mkdir");
    fs::write(dir.path().join("secret"), "host").expect("write");
    let put = |entries: &[(&str, tar::EntryType, &str)]| {
        extract(Cursor::new(archive(entries)), &Scope::new(open(&root)), b"at", ExtractOptions::default())
    };
    assert!(put(&[("../../out", Regular, "x")]).is_err());
    // Links that point outside lead to places within the root.
    put(&[("abs", Symlink, "/"), ("abs/etc", Directory, ""), ("abs/etc/passwd", Regular, "own")]).expect("within");
    put(&[("up", Symlink, "../../../.."), ("up/landed", Regular, "own")]).expect("within");
    assert!(put(&[("hard", Link, "../../secret")]).is_err());
    put(&[("over", Symlink, "/secret"), ("over", Regular, "replaced")]).expect("the link itself is replaced");
    assert_eq!(fs::read_to_string(root.join("etc/passwd")).expect("in the root"), "own");
    assert_eq!(fs::read_to_string(root.join("landed")).expect("in the root"), "own");
    assert_eq!(fs::read_to_string(dir.path().join("secret")).expect("untouched"), "host");
    let outside: Vec<_> = fs::read_dir(dir.path()).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(outside.len(), 2, "{outside:?}");
}

#[test]
fn a_swapping_neighbour_cannot_lead_the_extraction_out() {
    let dir = tempfile::tempdir().expect("dir");
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("at/dir")).expect("mkdir");
    fs::create_dir(dir.path().join("dir")).expect("host's directory");
    symlink("../../dir", root.join("at/trap")).expect("symlink");
    let stop = AtomicBool::new(false);
    let tar = archive(&[("dir/file", tar::EntryType::Regular, "x")]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let at = fs::File::open(root.join("at")).expect("open");
            while !stop.load(Ordering::Relaxed) {
                let swapped = rustix::fs::renameat_with(&at, "dir", &at, "trap", rustix::fs::RenameFlags::EXCHANGE);
                assert!(swapped.is_ok(), "{swapped:?}");
            }
        });
        for _ in 0..2000 {
            // A lost race may be an error; it must not be an escape.
            drop(extract(Cursor::new(&tar), &Scope::new(open(&root)), b"at", ExtractOptions::default()));
            assert!(!dir.path().join("dir/file").exists(), "written outside of the root");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn kinds_are_kept_where_asked() {
    use tar::EntryType::{Directory, Regular};
    let dir = tempfile::tempdir().expect("dir");
    fs::create_dir_all(dir.path().join("d/full")).expect("mkdir");
    fs::write(dir.path().join("f"), "x").expect("write");
    let put = |entries: &[(&str, tar::EntryType, &str)], keep_kinds| {
        let options = ExtractOptions { keep_kinds, owner: Some((5, 6)) };
        extract(Cursor::new(archive(entries)), &Scope::new(open(dir.path())), b"", options)
    };
    let refused = put(&[("d", Regular, "x")], true).expect_err("a file over a directory");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.message().contains("cannot overwrite directory \"d\" with non-directory \"d\""), "{refused}");
    assert!(put(&[("f", Directory, "")], true).is_err());
    put(&[("d", Regular, "now a file")], false).expect("replaced");
    let found = fs::metadata(dir.path().join("d")).expect("stat");
    assert!(found.is_file() && found.uid() == 5 && found.gid() == 6);
}

struct Layers {
    _dir: tempfile::TempDir,
    snapshots: std::sync::Arc<dyn Snapshotter>,
}

fn layers(snapshotter: SnapshotterChoice) -> Layers {
    let dir = tempfile::tempdir().expect("dir");
    let store = Store::open_with(dir.path(), &Options { snapshotter }).expect("store");
    let snapshots = store.snapshots("t");
    snapshots.prepare("low", None, Labels::new()).expect("prepare");
    let base = snapshots.layer_dirs("low").expect("dirs").upper;
    for path in ["keep/a", "gone/b", "emptied/c", "opaque/d"] {
        let path = base.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        fs::write(path, "low").expect("write");
    }
    snapshots.commit("base", "low", Labels::new()).expect("commit");
    snapshots.prepare("top", Some("base"), Labels::new()).expect("prepare");
    Layers { _dir: dir, snapshots }
}

fn told(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| format!("{:?} {}", change.kind, String::from_utf8_lossy(&change.path))).collect()
}

/// What a container would leave in the snapshot: by whiteouts on overlay, by the very deed in a copy.
fn change(layers: &Layers, overlay: bool) {
    let upper = layers.snapshots.layer_dirs("top").expect("dirs").upper;
    let whiteout = |path: &str| {
        rustix::fs::mknodat(rustix::fs::CWD, upper.join(path), rustix::fs::FileType::CharacterDevice, 0.into(), 0).expect("whiteout");
    };
    for sub in ["keep", "emptied", "opaque"] {
        fs::create_dir_all(upper.join(sub)).expect("mkdir");
    }
    fs::write(upper.join("keep/a"), "changed").expect("write");
    fs::create_dir(upper.join("new")).expect("mkdir");
    fs::write(upper.join("new/e"), "new").expect("write");
    fs::write(upper.join("opaque/f"), "new").expect("write");
    if overlay {
        whiteout("gone");
        whiteout("emptied/c");
        rustix::fs::setxattr(upper.join("opaque"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).expect("opaque");
    } else {
        fs::remove_dir_all(upper.join("gone")).expect("remove");
        fs::remove_file(upper.join("emptied/c")).expect("remove");
        fs::remove_file(upper.join("opaque/d")).expect("remove");
    }
}

#[test]
fn changes_and_layers_are_the_same_for_every_snapshotter() {
    let mut tars = Vec::new();
    for (choice, overlay) in [(SnapshotterChoice::Overlay, true), (SnapshotterChoice::Native, false)] {
        let layers = layers(choice);
        change(&layers, overlay);
        let seen = told(&changes(&*layers.snapshots, "top", &[]).expect("changes"));
        let expected = [
            "Modified emptied",
            "Deleted emptied/c",
            "Deleted gone",
            "Modified keep",
            "Modified keep/a",
            "Added new",
            "Added new/e",
            "Modified opaque",
            "Deleted opaque/d",
            "Added opaque/f",
        ];
        assert_eq!(seen, expected, "overlay: {overlay}");
        let tar = write_layer(&*layers.snapshots, "top", &[], Vec::new()).expect("layer");
        assert_eq!(tar, write_layer(&*layers.snapshots, "top", &[], Vec::new()).expect("layer"), "deterministic");
        tars.push(listing(&tar));
        // The layer, applied to the same base, gives the same tree.
        layers.snapshots.prepare("again", Some("base"), Labels::new()).expect("prepare");
        let dirs = layers.snapshots.layer_dirs("again").expect("dirs");
        apply(Cursor::new(tar), "", &dirs, &Limits::default()).expect("apply");
        assert_eq!(told(&changes(&*layers.snapshots, "again", &[]).expect("changes")), expected, "applied again");
    }
    assert_eq!(tars[0], tars[1]);
    assert!(tars[0].contains(&"Regular .wh.gone".to_owned()) && tars[0].contains(&"Regular opaque/.wh.d".to_owned()), "{:?}", tars[0]);
}

#[test]
fn what_a_runtime_makes_to_mount_on_is_no_change() {
    let layers = layers(SnapshotterChoice::Overlay);
    let upper = layers.snapshots.layer_dirs("top").expect("dirs").upper;
    fs::create_dir_all(upper.join("dev/pts")).expect("mkdir");
    fs::create_dir_all(upper.join("proc")).expect("mkdir");
    fs::create_dir_all(upper.join("etc")).expect("mkdir");
    fs::write(upper.join("etc/hosts"), "").expect("write");
    fs::write(upper.join("proc/own"), "").expect("write");
    let places = ["dev", "dev/pts", "proc", "etc/hosts", "etc"];
    assert_eq!(told(&changes(&*layers.snapshots, "top", &places).expect("changes")), ["Added proc", "Added proc/own"]);
    fs::write(upper.join("etc/hosts"), "the image's own").expect("write");
    let seen = told(&changes(&*layers.snapshots, "top", &places).expect("changes"));
    assert_eq!(seen, ["Added etc", "Added etc/hosts", "Added proc", "Added proc/own"]);
}

#[test]
fn a_container_s_size_is_that_of_its_own_files() {
    for (choice, overlay) in [(SnapshotterChoice::Overlay, true), (SnapshotterChoice::Native, false)] {
        let layers = layers(choice);
        let upper = layers.snapshots.layer_dirs("top").expect("dirs").upper;
        let bytes = || changed_bytes(&*layers.snapshots, "top", &["etc", "etc/hosts"]).expect("size");
        assert_eq!(bytes(), 0, "untouched, overlay: {overlay}");
        fs::create_dir_all(upper.join("etc")).expect("mkdir");
        fs::write(upper.join("etc/hosts"), "").expect("write");
        fs::create_dir_all(upper.join("some/empty/directories")).expect("mkdir");
        assert_eq!(bytes(), 0, "directories and places to mount on, overlay: {overlay}");
        fs::write(upper.join("some/file"), [0; 5000]).expect("write");
        fs::hard_link(upper.join("some/file"), upper.join("twin")).expect("link");
        symlink("four", upper.join("link")).expect("symlink");
        assert_eq!(bytes(), 5004, "overlay: {overlay}");
        // Sparse: the size counts, not the blocks.
        fs::File::create(upper.join("sparse")).expect("create").set_len(1 << 20).expect("grow");
        assert_eq!(bytes(), 5004 + (1 << 20), "overlay: {overlay}");
        change(&layers, overlay);
        assert_eq!(bytes(), 5004 + (1 << 20) + 13, "deletions weigh nothing, overlay: {overlay}");
    }
}
