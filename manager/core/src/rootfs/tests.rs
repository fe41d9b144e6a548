use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rcontainerd_store::snapshot::Whiteouts;

use super::*;

struct Layers {
    _dir: tempfile::TempDir,
    upper: PathBuf,
    lower: PathBuf,
}

impl Layers {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        fs::create_dir(&upper).expect("mkdir");
        fs::create_dir(&lower).expect("mkdir");
        Self { _dir: dir, upper, lower }
    }

    fn write(&self, layer: &Path, path: &str, text: &str) {
        let path = layer.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        fs::write(path, text).expect("write");
    }

    fn rootfs(&self) -> Rootfs {
        let dirs = LayerDirs { upper: self.upper.clone(), lowers: vec![self.lower.clone()], whiteouts: Whiteouts::Overlay };
        Rootfs::open(&dirs).expect("open")
    }

    fn read(&self, path: &str) -> Option<String> {
        self.rootfs().read(path, 1000).expect("read").map(|bytes| String::from_utf8(bytes).expect("text"))
    }
}

#[test]
fn the_upper_layer_wins_and_whiteouts_hide() {
    let layers = Layers::new();
    layers.write(&layers.lower, "etc/passwd", "old");
    layers.write(&layers.lower, "etc/group", "group");
    layers.write(&layers.lower, "etc/gone", "x");
    layers.write(&layers.upper, "etc/passwd", "new");
    let whiteout = layers.upper.join("etc/gone");
    rustix::fs::mknodat(rustix::fs::CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).expect("mknod");
    assert_eq!(layers.read("/etc/passwd").as_deref(), Some("new"));
    assert_eq!(layers.read("/etc/group").as_deref(), Some("group"));
    assert_eq!(layers.read("/etc/gone"), None);
}

#[test]
fn an_opaque_directory_hides_the_layers_below() {
    let layers = Layers::new();
    layers.write(&layers.lower, "etc/group", "group");
    fs::create_dir(layers.upper.join("etc")).expect("mkdir");
    let upper = File::open(layers.upper.join("etc")).expect("open");
    rustix::fs::fsetxattr(&upper, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).expect("setxattr");
    assert_eq!(layers.read("/etc/group"), None);
}

#[test]
fn links_stay_inside() {
    let layers = Layers::new();
    layers.write(&layers.lower, "usr/etc/passwd", "inside");
    symlink("/usr/etc", layers.upper.join("etc")).expect("link");
    assert_eq!(layers.read("/etc/passwd").as_deref(), Some("inside"));
    symlink("../../../../../../etc/hostname", layers.upper.join("escape")).expect("link");
    assert_eq!(layers.read("/escape"), None);
    symlink("loop", layers.upper.join("loop")).expect("link");
    assert!(layers.rootfs().read("/loop", 10).is_err());
}

#[test]
fn a_giant_file_is_refused() {
    let layers = Layers::new();
    layers.write(&layers.lower, "etc/group", &"x".repeat(1001));
    assert!(layers.rootfs().read("/etc/group", 1000).is_err());
}
