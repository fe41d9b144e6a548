//! A Debian root filesystem by mmdebstrap: bash, ps, coreutils. It takes a while, so it is kept in target/images.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use crate::image;

const SUITE: &str = "bookworm";
/// Part of the file's name: to be changed with what goes into the image.
const EDITION: u32 = 1;

/// A docker-archive of `debian:latest`.
///
/// # Panics
/// When mmdebstrap cannot make it.
pub fn archive() -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/images");
    fs::create_dir_all(&directory).expect("make a directory for images");
    let archive = directory.join(format!("debian-{SUITE}-{EDITION}.tar"));
    // One test makes it, the others wait.
    let lock = File::create(directory.join("lock")).expect("make a lock file");
    lock.lock().expect("lock");
    if !archive.exists() {
        let layer = layer(&directory.join("layer.tar"));
        let unfinished = directory.join("unfinished.tar");
        let config = serde_json::json!({"Cmd": ["bash"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]});
        image::archive(&unfinished, "debian:latest", &layer, &config);
        fs::rename(&unfinished, &archive).expect("rename the archive");
    }
    archive
}

fn layer(path: &std::path::Path) -> Vec<u8> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--include=procps,ncurses-base", "--format=tar", "--mode=root"]);
    let pruned = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/var/cache/apt/*", "/var/lib/apt/lists/*"];
    command.args(pruned.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    let said = command.arg(SUITE).arg(path).output().expect("mmdebstrap must be installed");
    assert!(said.status.success(), "mmdebstrap: {}", String::from_utf8_lossy(&said.stderr));
    let layer = fs::read(path).expect("read the layer");
    fs::remove_file(path).expect("remove the layer");
    layer
}
