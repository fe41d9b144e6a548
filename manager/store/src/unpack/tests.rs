use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ::tar::{Builder, EntryType, Header};

use super::*;
use crate::snapshot::Whiteouts;

/// A layer's directories, with a canary beside them that no archive may touch.
struct Bench {
    temp: tempfile::TempDir,
    dirs: LayerDirs,
}

impl Bench {
    fn new(whiteouts: Whiteouts, lowers: usize) -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let make = |name: &str| {
            let path = temp.path().join(name);
            fs::create_dir(&path).expect("directory");
            path
        };
        let dirs = LayerDirs { upper: make("upper"), lowers: (0..lowers).map(|n| make(&format!("lower{n}"))).collect(), whiteouts };
        fs::write(temp.path().join("canary"), "untouched").expect("canary");
        Self { temp, dirs }
    }

    fn apply(&self, layer: &[u8]) -> Result<Applied> {
        apply(layer, "", &self.dirs, &Limits::default())
    }

    fn upper(&self, path: &str) -> PathBuf {
        self.dirs.upper.join(path)
    }

    /// Everything outside the upper and the lowers is as it was.
    fn assert_outside_untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(self.temp.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
        names.sort();
        let mut expected: Vec<std::ffi::OsString> = vec!["canary".into()];
        expected.extend((0..self.dirs.lowers.len()).map(|n| format!("lower{n}").into()));
        expected.push("upper".into());
        assert_eq!(names, expected);
        assert_eq!(fs::read_to_string(self.temp.path().join("canary")).expect("canary"), "untouched");
        assert_eq!(fs::metadata(self.temp.path().join("canary")).expect("canary").nlink(), 1);
    }
}

/// Builds tars byte by byte: the crate's own builder refuses hostile names.
#[derive(Default)]
struct Layer0(Vec<u8>);

impl Layer0 {
    fn raw(self, kind: EntryType, path: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.block(header.as_bytes(), data)
    }

    fn block(mut self, header: &[u8], data: &[u8]) -> Self {
        self.0.extend_from_slice(header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.raw(EntryType::Regular, path, "", 0o644, data.as_bytes())
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.raw(EntryType::Directory, path, "", mode, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(EntryType::Symlink, path, target, 0o777, b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.raw(EntryType::Link, path, target, 0o644, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let mut length = body.len();
            while length != body.len() + length.to_string().len() {
                length = body.len() + length.to_string().len();
            }
            data.extend_from_slice(length.to_string().as_bytes());
            data.extend_from_slice(&body);
        }
        self.raw(EntryType::XHeader, "pax", "", 0o644, &data)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn tar() -> Layer0 {
    Layer0::default()
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0u8; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut buffer[..]).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect(program);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// (path, kind and mode, owner, size, mtime, link target, links, xattr) of everything below.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let found = fs::symlink_metadata(&path).expect("stat");
        let target = fs::read_link(&path).map(|target| target.display().to_string()).unwrap_or_default();
        let size = if found.is_file() { found.size() } else { 0 };
        let name = path.strip_prefix(root).expect("below").display().to_string();
        let capability = xattr(&path, "security.capability");
        let user = xattr(&path, "user.note");
        lines.push(format!(
            "{name} {:o} {}:{} {size} {}.{} {target} {} {:x} {capability:?} {user:?}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.mtime(),
            found.mtime_nsec(),
            if found.is_dir() { 0 } else { found.nlink() },
            found.rdev(),
        ));
        if found.is_dir() {
            pending.extend(fs::read_dir(&path).expect("list").map(|entry| entry.expect("entry").path()));
        }
    }
    lines.sort();
    lines
}

/// A tree with one of everything.
fn sample_tree(root: &Path) {
    fs::create_dir_all(root.join("etc/private")).expect("dir");
    fs::set_permissions(root.join("etc/private"), fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("write");
    fs::create_dir_all(root.join("bin")).expect("dir");
    fs::write(root.join("bin/su"), vec![7u8; 100_000]).expect("write");
    std::os::unix::fs::chown(root.join("bin/su"), Some(1234), Some(70_000)).expect("chown");
    fs::set_permissions(root.join("bin/su"), fs::Permissions::from_mode(0o6755)).expect("chmod");
    let capability = [1, 0, 0, 2, 0, 10, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0];
    fs::write(root.join("bin/ping"), "ping").expect("write");
    rustix::fs::setxattr(root.join("bin/ping"), "security.capability", &capability, rustix::fs::XattrFlags::empty()).expect("capability");
    rustix::fs::setxattr(root.join("etc/passwd"), "user.note", b"two\nlines=1", rustix::fs::XattrFlags::empty()).expect("xattr");
    fs::hard_link(root.join("bin/ping"), root.join("bin/ping6")).expect("link");
    symlink("../bin/su", root.join("etc/su")).expect("symlink");
    symlink("/nowhere/at/all", root.join("etc/dangling")).expect("symlink");
    let long = root.join("x".repeat(120)).join("y".repeat(150));
    fs::create_dir_all(&long).expect("dir");
    fs::write(long.join("z".repeat(200)), "deep").expect("write");
    symlink("t".repeat(180), root.join("longlink")).expect("symlink");
    run("mknod", &[root.join("null").to_str().expect("utf-8"), "c", "1", "3"]);
    run("mkfifo", &[root.join("fifo").to_str().expect("utf-8")]);
    let mut sparse = fs::File::create(root.join("sparse")).expect("create");
    sparse.set_len(10 << 20).expect("truncate");
    for at in [0u64, 1 << 20, 5 << 20] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[9u8; 5000], at).expect("write");
    }
    sparse.flush().expect("flush");
    fs::write(root.join("größe ☃"), "unicode").expect("write");
}

#[test]
fn unpacks_the_same_tree_as_gnu_tar_in_every_format() {
    let source = tempfile::tempdir().expect("temporary directory");
    sample_tree(source.path());
    let formats: [&[&str]; 6] = [
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--xattrs", "--xattrs-include=*"],
        &["--format=pax", "--sparse", "--sparse-version=0.0", "--xattrs", "--xattrs-include=*"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ];
    for format in formats {
        let archive = source.path().with_extension("tar");
        let (from, to) = (source.path().to_str().expect("utf-8"), archive.to_str().expect("utf-8"));
        run("tar", &[format, &["-C", from, "-cf", to, "."]].concat());
        let theirs = tempfile::tempdir().expect("temporary directory");
        run("tar", &["--xattrs", "--xattrs-include=*", "-C", theirs.path().to_str().expect("utf-8"), "-xpf", to]);
        let bench = Bench::new(Whiteouts::Overlay, 0);
        bench.apply(&fs::read(&archive).expect("read")).unwrap_or_else(|err| panic!("{format:?}: {err}"));
        assert_eq!(listing(&bench.dirs.upper), listing(theirs.path()), "{format:?}");
        for file in ["sparse", "bin/su"] {
            assert!(fs::read(bench.upper(file)).expect("ours") == fs::read(theirs.path().join(file)).expect("theirs"), "{format:?} {file}");
        }
        if format.contains(&"--sparse") {
            assert!(fs::metadata(bench.upper("sparse")).expect("stat").blocks() < 200, "{format:?}: holes are kept");
        }
        fs::remove_file(archive).expect("remove");
    }
}

#[test]
fn every_compression_has_the_same_diff_id() {
    let layer = tar().file("a", &"text ".repeat(100_000)).end();
    let plain = Bench::new(Whiteouts::Overlay, 0).apply(&layer).expect("plain");
    assert_eq!(plain.diff_id, Digest::sha256(&layer));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer).expect("compress");
    let zstd = zstd::encode_all(layer.as_slice(), 3).expect("compress");
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&layer).expect("compress");
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&layer).expect("compress");
    for compressed in [gzip.finish().expect("compress"), zstd, bzip2.finish().expect("compress"), xz.finish().expect("compress")] {
        assert_eq!(Bench::new(Whiteouts::Overlay, 0).apply(&compressed).expect("compressed"), plain);
        let err = Bench::new(Whiteouts::Overlay, 0).apply(&compressed[..compressed.len() / 2]).expect_err("cut short");
        assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{err}");
    }
}

#[test]
fn hostile_archives_touch_nothing_outside() {
    let long = "a/".repeat(49);
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("dot dot", tar().file("../evil", "x").end(), false),
        ("dot dot inside", tar().file("a/../../evil", "x").end(), false),
        ("absolute", tar().file("/evil", "x").end(), true),
        ("symlink up, then write through", tar().symlink("up", "../").file("up/evil", "x").end(), true),
        ("symlink far up", tar().symlink("up", "../../../../../../../../tmp").dir("tmp", 0o755).file("up/evil", "x").end(), true),
        ("absolute symlink", tar().symlink("abs", "/tmp").file("abs/evil", "x").end(), true),
        ("symlink to the canary", tar().symlink("canary", "../canary").file("canary", "evil").end(), true),
        ("chmod by symlink", tar().symlink("c", "../canary").raw(EntryType::Directory, "c", "", 0o777, b"").end(), true),
        ("hard link outside", tar().link("l", "../canary").end(), false),
        ("hard link by symlinked directory", tar().symlink("up", "..").link("l", "up/canary").end(), false),
        ("hard link to the host's passwd", tar().link("l", "/etc/passwd").end(), false),
        ("hard link to a symlink, then write", tar().symlink("s", "../canary").link("l", "s").file("l", "evil").end(), true),
        ("symlink loop", tar().symlink("a", "b").symlink("b", "a").file("a/x", "x").end(), false),
        ("whiteout of ..", tar().file(".wh...", "").end(), false),
        ("whiteout of .", tar().file("d/.wh..", "").end(), false),
        ("whiteout of nothing", tar().file(".wh.", "").end(), false),
        ("whiteout as a directory", tar().file(".wh.x/y", "").end(), false),
        ("opaque through a symlink", tar().symlink("up", "..").file("up/.wh..wh..opq", "").end(), true),
        ("whiteout through a symlink", tar().symlink("up", "..").file("up/.wh.canary", "").end(), true),
        ("file as a parent", tar().file("f", "x").file("f/g", "x").end(), false),
        ("root as a symlink", tar().symlink("./", "/tmp").end(), false),
        ("root as a file", tar().raw(EntryType::Regular, ".", "", 0o644, b"").end(), false),
        ("proc fd", tar().symlink("p", "/proc/self/fd").file("p/3", "x").end(), true),
        ("directory replaced by a symlink", tar().dir("d", 0o755).file("d/a", "x").symlink("d", "..").file("d/evil", "x").end(), true),
        ("deep", tar().pax(&[("path", long.repeat(20).as_bytes())]).file("x", "").end(), false),
        ("huge name", tar().pax(&[("path", "n".repeat(300).as_bytes())]).file("x", "").end(), false),
        ("NUL in a name", tar().pax(&[("path", b"a\0b")]).file("x", "").end(), false),
        ("owner -1", tar().pax(&[("uid", b"4294967295")]).file("x", "").end(), false),
        ("owner too large", tar().pax(&[("uid", b"4294967296")]).file("x", "").end(), false),
        ("two PAX headers", tar().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("x", "").end(), false),
        ("PAX header of nothing", tar().pax(&[("path", b"a")]).end(), false),
        ("zero block in between", [tar().file("a", "x").0, vec![0; 512], tar().file("b", "x").end()].concat(), false),
        (
            "sparse beyond its end",
            tar().pax(&[("GNU.sparse.map", b"0,1,9999,2"), ("GNU.sparse.size", b"10")]).file("s", "abc").end(),
            false,
        ),
        ("sparse overlap", tar().pax(&[("GNU.sparse.map", b"0,2,1,1"), ("GNU.sparse.size", b"10")]).file("s", "abc").end(), false),
        ("unknown type", tar().raw(EntryType::new(b'Z'), "z", "", 0o644, b"").end(), false),
    ];
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove] {
        for (name, layer, fine) in &cases {
            let bench = Bench::new(whiteouts, 0);
            let result = bench.apply(layer);
            assert_eq!(result.is_ok(), *fine, "{name}: {result:?}");
            if let Err(err) = result {
                assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{name}: {err}");
            }
            bench.assert_outside_untouched();
        }
    }
    assert!(!Path::new("/tmp/evil").exists() && !Path::new("/evil").exists());
}

/// Regression: umoci's layers end with the last file's last byte.
#[test]
fn the_last_entrys_padding_may_be_missing() {
    let layer = tar().file("a", "abc").0;
    let bench = Bench::new(Whiteouts::Overlay, 0);
    bench.apply(&layer[..515]).expect("applies");
    assert_eq!(fs::read_to_string(bench.upper("a")).expect("read"), "abc");
    assert!(bench.apply(&layer[..514]).is_err(), "but not its data");
}

#[test]
fn bombs_meet_a_limit() {
    let zeros = vec![0u8; 8 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&tar().raw(EntryType::Regular, "zeros", "", 0o644, &zeros).end()).expect("compress");
    let bench = Bench::new(Whiteouts::Overlay, 0);
    let limits = Limits { stream: 1 << 20, ..Limits::default() };
    let err = apply(gzip.finish().expect("compress").as_slice(), "", &bench.dirs, &limits).expect_err("too large");
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted, "{err}");
    let many = (0..50).fold(tar(), |tar, n| tar.file(&n.to_string(), "")).end();
    let err = apply(many.as_slice(), "", &bench.dirs, &Limits { entries: 49, ..Limits::default() }).expect_err("too many");
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted, "{err}");
    // A long name of gigabytes is refused by its header, not read.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(8 << 30);
    header.set_cksum();
    let err = bench.apply(&tar().block(header.as_bytes(), b"x").end()).expect_err("too long");
    assert!(err.message().contains("extension header"), "{err}");
}

#[test]
fn whiteouts_become_overlay_devices_and_opaque_marks() {
    let bench = Bench::new(Whiteouts::Overlay, 1);
    let lower = &bench.dirs.lowers[0];
    for dir in ["d/sub", "e", "remade"] {
        fs::create_dir_all(lower.join(dir)).expect("dir");
    }
    for file in ["gone", "d/gone", "kept", "e/old", "remade/old"] {
        fs::write(lower.join(file), "lower").expect("write");
    }
    let layer = tar()
        .file(".wh.gone", "")
        .file(".wh.kept", "")
        .file("kept", "new")
        .file("d/.wh.gone", "")
        .file("d/.wh.never-was", "")
        .dir("e", 0o755)
        .file("e/new", "new")
        .file("e/.wh..wh..opq", "")
        .file(".wh.remade", "")
        .file("remade/new", "new")
        .file(".wh..wh.plnk/x", "aufs")
        .end();
    bench.apply(&layer).expect("applies");
    assert!(is_whiteout(&bench.upper("gone")) && is_whiteout(&bench.upper("d/gone")));
    assert!(!bench.upper("d/never-was").exists());
    assert_eq!(fs::read_to_string(bench.upper("kept")).expect("new file"), "new");
    assert!(is_opaque(&bench.upper("e")) && is_opaque(&bench.upper("remade")) && !is_opaque(&bench.upper("d")));
    assert!(!bench.upper(".wh..wh.plnk").exists());
}

#[test]
fn whiteouts_remove_from_a_merged_directory_but_never_what_the_layer_made() {
    let bench = Bench::new(Whiteouts::Remove, 0);
    for dir in ["d/sub", "e/keep", "e/drop"] {
        fs::create_dir_all(bench.upper(dir)).expect("dir");
    }
    for file in ["gone", "d/gone", "e/old", "e/keep/old"] {
        fs::write(bench.upper(file), "lower").expect("write");
    }
    let layer = tar()
        .file("e/keep/new", "new")
        .file("e/.wh..wh..opq", "")
        .file(".wh.gone", "")
        .file("d/.wh.gone", "")
        .file("fresh", "new")
        .file(".wh.fresh", "")
        .end();
    bench.apply(&layer).expect("applies");
    assert!(!bench.upper("gone").exists() && !bench.upper("d/gone").exists() && bench.upper("d/sub").exists());
    assert!(!bench.upper("e/old").exists() && !bench.upper("e/drop").exists() && !bench.upper("e/keep/old").exists());
    assert_eq!(fs::read_to_string(bench.upper("e/keep/new")).expect("kept"), "new");
    assert_eq!(fs::read_to_string(bench.upper("fresh")).expect("kept"), "new");
}

/// Regression: unpacked alone, an implied /etc of 0755 would mask the lower layer's 0700.
#[test]
fn an_implied_parent_has_the_lower_layers_attributes() {
    let bench = Bench::new(Whiteouts::Overlay, 2);
    let etc = bench.dirs.lowers[1].join("etc/deep");
    fs::create_dir_all(&etc).expect("dir");
    fs::set_permissions(bench.dirs.lowers[1].join("etc"), fs::Permissions::from_mode(0o1700)).expect("chmod");
    std::os::unix::fs::chown(&etc, Some(7), Some(8)).expect("chown");
    rustix::fs::setxattr(&etc, "user.note", b"kept", rustix::fs::XattrFlags::empty()).expect("xattr");
    run("touch", &["-d", "@1234567", etc.to_str().expect("utf-8")]);
    bench.apply(&tar().file("etc/deep/file", "x").end()).expect("applies");
    assert_eq!(fs::metadata(bench.upper("etc")).expect("etc").mode() & 0o7777, 0o1700);
    let deep = fs::metadata(bench.upper("etc/deep")).expect("deep");
    assert_eq!((deep.uid(), deep.gid(), deep.mtime()), (7, 8, 1_234_567));
    assert_eq!(xattr(&bench.upper("etc/deep"), "user.note").as_deref(), Some(&b"kept"[..]));
}

#[test]
fn a_hard_link_into_a_lower_layer_copies_the_file_up() {
    let bench = Bench::new(Whiteouts::Overlay, 2);
    let lower = &bench.dirs.lowers[1];
    fs::create_dir(lower.join("usr")).expect("dir");
    fs::write(lower.join("usr/tool"), "lower's").expect("write");
    fs::set_permissions(lower.join("usr/tool"), fs::Permissions::from_mode(0o4711)).expect("chmod");
    bench.apply(&tar().link("alias", "usr/tool").end()).expect("applies");
    assert_eq!(fs::read_to_string(bench.upper("alias")).expect("alias"), "lower's");
    let (alias, tool) = (fs::metadata(bench.upper("alias")).expect("alias"), fs::metadata(bench.upper("usr/tool")).expect("tool"));
    assert_eq!((alias.ino(), alias.mode() & 0o7777), (tool.ino(), 0o4711));
    let hidden = Bench::new(Whiteouts::Overlay, 2);
    fs::write(hidden.dirs.lowers[1].join("f"), "x").expect("write");
    run("mknod", &[hidden.dirs.lowers[0].join("f").to_str().expect("utf-8"), "c", "0", "0"]);
    assert!(hidden.apply(&tar().link("alias", "f").end()).is_err(), "a whiteout hides it");
}

#[test]
fn an_implied_parent_follows_the_lower_layers_symlink_within_the_root() {
    let bench = Bench::new(Whiteouts::Overlay, 1);
    let lower = &bench.dirs.lowers[0];
    fs::create_dir_all(lower.join("usr/bin")).expect("dir");
    symlink("usr/bin", lower.join("bin")).expect("symlink");
    symlink("/../../../usr", lower.join("abs")).expect("symlink");
    bench.apply(&tar().file("bin/tool", "x").file("abs/other", "x").end()).expect("applies");
    assert!(bench.upper("usr/bin/tool").is_file() && bench.upper("usr/other").is_file());
    assert!(!bench.upper("bin").exists(), "the lower's symlink is not masked");
    bench.assert_outside_untouched();
}

#[test]
fn an_image_cannot_set_overlays_own_xattrs() {
    let bench = Bench::new(Whiteouts::Overlay, 0);
    let records: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.selinux", b"evil_t"),
        ("SCHILY.xattr.user.note", b"fine"),
    ];
    bench.apply(&tar().pax(&records).dir("d", 0o755).end()).expect("applies");
    assert!(!is_opaque(&bench.upper("d")) && xattr(&bench.upper("d"), "trusted.overlay.redirect").is_none());
    assert!(xattr(&bench.upper("d"), "security.selinux").is_none());
    assert_eq!(xattr(&bench.upper("d"), "user.note").as_deref(), Some(&b"fine"[..]));
}

#[test]
fn a_full_disk_is_named_as_such() {
    let mount = tempfile::tempdir().expect("temporary directory");
    let path = mount.path().to_str().expect("utf-8");
    run("mount", &["-t", "tmpfs", "-o", "size=1m", "store-test", path]);
    let upper = mount.path().join("upper");
    fs::create_dir(&upper).expect("dir");
    let dirs = LayerDirs { upper, lowers: Vec::new(), whiteouts: Whiteouts::Overlay };
    let layer = tar().raw(EntryType::Regular, "big", "", 0o644, &vec![1u8; 4 << 20]).end();
    let result = apply(layer.as_slice(), "", &dirs, &Limits::default());
    run("umount", &[path]);
    let err = result.expect_err("the disk is full");
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted, "{err}");
    assert!(err.message().contains("\"big\"") && err.message().contains("No space left"), "{err}");
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let layer = tar().file("a", "first").link("b", "a").file("a", "second").dir("a2", 0o700).file("a2/x", "").file("a2", "file").end();
    let bench = Bench::new(Whiteouts::Overlay, 0);
    bench.apply(&layer).expect("applies");
    let read = |name: &str| fs::read_to_string(bench.upper(name)).expect("read");
    assert_eq!((read("a"), read("b"), read("a2")), ("second".into(), "first".into(), "file".into()));
    assert_eq!(CString::new(read("a")).map(|text| text.as_bytes().len()), Ok(6));
}

#[test]
fn the_crates_own_builder_is_understood() {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o600);
    let long = format!("{}/f", "p".repeat(140));
    builder.append_data(&mut header, &long, &b"abc"[..]).expect("append");
    let bench = Bench::new(Whiteouts::Overlay, 0);
    bench.apply(&builder.into_inner().expect("finish")).expect("applies");
    assert_eq!(fs::read_to_string(bench.upper(&long)).expect("read"), "abc");
}
