//! Images made on the spot, as docker-archive tars: Debian's static busybox with an applet link each.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

const BUSYBOX: &str = "/bin/busybox";

/// Writes a docker-archive of a busybox image called `name` to `path`.
pub fn busybox_archive(path: &Path, name: &str) {
    archive(
        path,
        name,
        &busybox_layer(),
        &json!({"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}),
    );
}

/// Writes a docker-archive with one layer and the given container config.
pub fn archive(path: &Path, name: &str, layer: &[u8], config: &serde_json::Value) {
    archive_of(path, name, &[layer], config);
}

/// Writes a docker-archive with these layers, lowest first, and the given container config.
pub fn archive_of(path: &Path, name: &str, layers: &[&[u8]], config: &serde_json::Value) {
    let diff_ids: Vec<String> = layers.iter().map(|layer| hex_sha256(layer)).collect();
    let history = json!({"created": "2026-01-01T00:00:00Z", "created_by": "tests"});
    let image = json!({
        "architecture": go_arch(), "os": "linux", "created": "2026-01-01T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids.iter().map(|id| format!("sha256:{id}")).collect::<Vec<_>>()},
        "history": vec![history; layers.len()],
    })
    .to_string();
    let config_name = format!("{}.json", hex_sha256(image.as_bytes()));
    let layer_names: Vec<String> = diff_ids.iter().map(|id| format!("{id}/layer.tar")).collect();
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": layer_names}]).to_string();
    let mut tar = tar::Builder::new(fs::File::create(path).expect("create the archive"));
    append(&mut tar, &config_name, 0o644, image.as_bytes());
    for (name, layer) in layer_names.iter().zip(layers) {
        append(&mut tar, name, 0o644, layer);
    }
    append(&mut tar, "manifest.json", 0o644, manifest.as_bytes());
    tar.finish().expect("finish the archive");
}

/// As images name this machine.
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A layer with /bin/busybox, a link per applet, and the files that every rootfs has.
pub fn busybox_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode) in [
        ("bin/", 0o755),
        ("etc/", 0o755),
        ("root/", 0o700),
        ("tmp/", 0o1777),
        ("proc/", 0o555),
        ("sys/", 0o555),
        ("dev/", 0o755),
        ("home/", 0o755),
    ] {
        directory(&mut tar, name, mode);
    }
    append(&mut tar, "bin/busybox", 0o755, &fs::read(BUSYBOX).expect("busybox-static must be installed"));
    for applet in applets() {
        let mut header = header(0o777, 0);
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("append a link");
    }
    append(&mut tar, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n");
    append(&mut tar, "etc/group", 0o644, b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\n");
    tar.into_inner().expect("finish the layer")
}

/// A layer with /bin/busybox alone.
pub fn static_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    directory(&mut tar, "bin/", 0o755);
    append(&mut tar, "bin/busybox", 0o755, &fs::read(BUSYBOX).expect("busybox-static must be installed"));
    tar.into_inner().expect("finish the layer")
}

/// As layers travel.
pub fn gzip(layer: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(layer).expect("write to memory");
    encoder.finish().expect("write to memory")
}

fn applets() -> Vec<String> {
    let output = Command::new(BUSYBOX).arg("--list").output().expect("busybox-static must be installed");
    String::from_utf8_lossy(&output.stdout).lines().filter(|applet| *applet != "busybox").map(str::to_owned).collect()
}

/// Adds a regular file owned by root.
pub fn append<W: std::io::Write>(tar: &mut tar::Builder<W>, name: &str, mode: u32, content: &[u8]) {
    let mut header = header(mode, content.len() as u64);
    tar.append_data(&mut header, name, content).expect("append a file");
}

/// Adds a directory owned by root.
pub fn directory<W: std::io::Write>(tar: &mut tar::Builder<W>, name: &str, mode: u32) {
    let mut header = header(mode, 0);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, name, std::io::empty()).expect("append a directory");
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(1_767_225_600);
    header
}

/// Of a digest, without its `sha256:`.
pub fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
