//! Archives as the field's own tools make them (skopeo, umoci), and as they should never be.

use std::fs;
use std::path::Path;
use std::process::Command;

use rcontainerd_types::{ErrorKind, Platform};

use super::*;
use crate::image;
use crate::metadata::Labels;
use crate::store::Store;
use crate::unpack::unpack;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect(program);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// An OCI layout with a two-layer image, made by umoci.
fn make_layout(dir: &Path) {
    let image = format!("{}:v1", text(&dir.join("layout")));
    run("umoci", &["init", "--layout", text(&dir.join("layout"))]);
    run("umoci", &["new", "--image", &image]);
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("bin")).expect("dir");
    fs::write(tree.join("bin/hello"), "hello".repeat(1000)).expect("write");
    run("umoci", &["insert", "--image", &image, text(&tree.join("bin")), "/bin"]);
    fs::write(tree.join("second"), "second layer").expect("write");
    run("umoci", &["insert", "--image", &image, text(&tree.join("second")), "/etc/second"]);
    run("umoci", &["config", "--image", &image, "--config.cmd", "/bin/hello"]);
}

struct Bench {
    temp: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&temp.path().join("root")).expect("open");
        Self { temp, store }
    }

    fn load(&self, archive: &Path) -> rcontainerd_types::Result<Vec<LoadedImage>> {
        load(&self.store.content("test"), fs::File::open(archive).expect("open archive"))
    }

    /// Unpacks and gives the directory of the top layer.
    fn unpack(&self, target: &Descriptor) -> std::path::PathBuf {
        let content = self.store.content("test");
        let (_, manifest) = image::resolve(&content, target, &Platform::host()).expect("resolve");
        let layers = image::layers(&content, &manifest).expect("layers");
        let snapshots = self.store.snapshots("test");
        let top = unpack(&content, snapshots.as_ref(), &layers, &mut |_, _| {}).expect("unpack").expect("layers");
        snapshots.prepare("look", Some(&top), Labels::new()).expect("prepare");
        snapshots.layer_dirs("look").expect("dirs").lowers.last().expect("lowest").clone()
    }

    fn ingests_left(&self) -> usize {
        fs::read_dir(self.temp.path().join("root/content/ingest")).expect("list").count()
    }
}

#[test]
fn an_oci_archive_is_loaded_and_unpacked() {
    let bench = Bench::new();
    make_layout(bench.temp.path());
    for (name, extra) in [("plain.tar", None), ("gzip.tar.gz", Some("-z")), ("zstd.tar.zst", Some("--zstd"))] {
        let archive = bench.temp.path().join(name);
        let mut args = vec!["-C", text(bench.temp.path()), "-cf", text(&archive), "--transform=s,layout/,,"];
        args.extend(extra);
        args.push("layout");
        run("tar", &args);
        let images = bench.load(&archive).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(images.len(), 1);
        assert!(images[0].names.is_empty(), "a bare tag names nothing");
        assert_eq!(bench.ingests_left(), 0);
    }
    let images = bench.load(&bench.temp.path().join("plain.tar")).expect("again");
    let lowest = bench.unpack(&images[0].target);
    assert_eq!(fs::read(lowest.join("bin/hello")).expect("read").len(), 5000);
}

#[test]
fn a_docker_archive_of_skopeo_is_loaded_and_unpacked() {
    let bench = Bench::new();
    make_layout(bench.temp.path());
    let archive = bench.temp.path().join("docker.tar");
    let source = format!("oci:{}:v1", text(&bench.temp.path().join("layout")));
    run("skopeo", &["copy", "-q", &source, &format!("docker-archive:{}:example.com/team/app:v1", text(&archive))]);
    let images = bench.load(&archive).expect("load");
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].names, ["example.com/team/app:v1"]);
    let lowest = bench.unpack(&images[0].target);
    assert_eq!(fs::read(lowest.join("bin/hello")).expect("read").len(), 5000);
    let (_, manifest) = image::resolve(&bench.store.content("test"), &images[0].target, &Platform::host()).expect("resolve");
    assert_eq!(manifest.layers.len(), 2);
}

#[test]
fn what_is_saved_is_the_same_bytes_each_time_and_loads_elsewhere() {
    let bench = Bench::new();
    make_layout(bench.temp.path());
    let archive = bench.temp.path().join("a.tar");
    run("tar", &["-C", text(bench.temp.path()), "-cf", text(&archive), "--transform=s,layout/,,", "layout"]);
    let target = bench.load(&archive).expect("load").remove(0).target;
    let content = bench.store.content("test");
    let names = vec!["docker.io/library/app:v1".to_owned(), "localhost:5000/app:v2".to_owned()];
    let saved: Vec<Vec<u8>> = (0..2)
        .map(|_| {
            let mut bytes = Vec::new();
            save(&content, &[SaveImage { names: names.clone(), target: target.clone() }], &mut bytes).expect("save");
            bytes
        })
        .collect();
    assert!(saved[0] == saved[1], "equal bytes");
    let path = bench.temp.path().join("saved.tar");
    fs::write(&path, &saved[0]).expect("write");

    let elsewhere = Bench::new();
    let images = elsewhere.load(&path).expect("load elsewhere");
    assert_eq!(images, [LoadedImage { names, target }]);

    // Both halves are read by skopeo; by the docker half under either name.
    let copy = bench.temp.path().join("copy");
    for (n, source) in ["docker-archive:{}:app:v1", "docker-archive:{}:localhost:5000/app:v2", "oci-archive:{}:v1"].iter().enumerate() {
        let target = format!("dir:{}{n}", text(&copy));
        run("skopeo", &["copy", "-q", &source.replace("{}", text(&path)), &target]);
    }
}

/// A docker-archive as Docker before 25 wrote it: layer directories, the second layer shared by symlink.
fn old_archive(dir: &Path, tamper: bool) -> std::path::PathBuf {
    let tree = dir.join(if tamper { "tampered" } else { "old" });
    fs::create_dir_all(tree.join("aaa")).expect("dir");
    fs::create_dir_all(tree.join("bbb")).expect("dir");
    fs::create_dir_all(dir.join("content")).expect("dir");
    fs::write(dir.join("content/file"), "old").expect("write");
    run("tar", &["-C", text(&dir.join("content")), "-cf", text(&tree.join("aaa/layer.tar")), "."]);
    std::os::unix::fs::symlink("../aaa/layer.tar", tree.join("bbb/layer.tar")).expect("symlink");
    fs::write(tree.join("aaa/VERSION"), "1.0").expect("write");
    fs::write(tree.join("aaa/json"), "{}").expect("write");
    let diff_id = Digest::sha256(&fs::read(tree.join("aaa/layer.tar")).expect("read"));
    if tamper {
        fs::write(tree.join("aaa/layer.tar"), vec![0; 1024]).expect("write");
    }
    let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}}}}"#);
    let name = format!("{}.json", Digest::sha256(config.as_bytes()).hex());
    fs::write(tree.join(&name), config).expect("write");
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["old:1","old:2"],"Layers":["aaa/layer.tar","bbb/layer.tar"]}}]"#);
    fs::write(tree.join("manifest.json"), manifest).expect("write");
    let archive = dir.join("old.tar");
    run("tar", &["-C", text(&tree), "-cf", text(&archive), "."]);
    archive
}

#[test]
fn old_archives_with_layer_directories_and_links_are_read() {
    let bench = Bench::new();
    let images = bench.load(&old_archive(bench.temp.path(), false)).expect("load");
    assert_eq!(images[0].names, ["old:1", "old:2"]);
    assert_eq!(fs::read_to_string(bench.unpack(&images[0].target).join("file")).expect("read"), "old");
}

#[test]
fn broken_archives_are_refused_and_leave_nothing() {
    let bench = Bench::new();
    let dir = bench.temp.path();
    let good = fs::read(old_archive(dir, false)).expect("read");
    let path = dir.join("bad.tar");
    let refused = |bytes: &[u8], kind: ErrorKind, hint: &str| {
        fs::write(&path, bytes).expect("write");
        let err = bench.load(&path).expect_err(hint);
        assert_eq!(err.kind(), kind, "{err}");
        assert!(err.message().contains(hint), "{err}");
        assert!(!err.message().contains('\n'));
        assert!(bench.store.content("test").list().expect("list").is_empty());
        assert_eq!(bench.ingests_left(), 0);
    };
    refused(b"this is no archive", ErrorKind::InvalidArgument, "malformed tar");
    refused(&[], ErrorKind::InvalidArgument, "holds no image");
    refused(&good[..good.len() / 2], ErrorKind::InvalidArgument, "archive");
    refused(&fs::read(old_archive(dir, true)).expect("read"), ErrorKind::DataLoss, "the image's config says");
    let lacking = dir.join("lacking.tar");
    fs::write(&lacking, &good).expect("write");
    run("tar", &["--delete", "-f", text(&lacking), "./aaa/layer.tar"]);
    refused(&fs::read(&lacking).expect("read"), ErrorKind::InvalidArgument, "lacks \"aaa/layer.tar\"");
}

#[test]
fn a_blob_that_lies_about_its_digest_is_refused() {
    let bench = Bench::new();
    make_layout(bench.temp.path());
    let blobs = bench.temp.path().join("layout/blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .expect("list")
        .map(|entry| entry.expect("entry").path())
        .max_by_key(|path| fs::metadata(path).expect("stat").len());
    let largest = largest.expect("a blob");
    let mut bytes = fs::read(&largest).expect("read");
    bytes[20] ^= 1;
    fs::write(&largest, bytes).expect("write");
    let archive = bench.temp.path().join("bad.tar");
    run("tar", &["-C", text(&bench.temp.path().join("layout")), "-cf", text(&archive), "."]);
    let err = bench.load(&archive).expect_err("wrong digest");
    assert_eq!(err.kind(), ErrorKind::DataLoss, "{err}");
    assert_eq!(bench.ingests_left(), 0);
}

/// A docker-archive in memory: its config as it is given, and its layers.
fn docker_archive(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).expect("append");
    };
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    add("config", config);
    names.iter().zip(layers).for_each(|(name, bytes)| add(name, bytes));
    let manifest = serde_json::json!([{ "Config": "config", "RepoTags": ["app:1"], "Layers": names }]);
    add("manifest.json", manifest.to_string().as_bytes());
    archive.into_inner().expect("archive")
}

fn layer_of(file: &str, content: &[u8]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    layer.append_data(&mut header, file, content).expect("append");
    layer.into_inner().expect("layer")
}

fn config_of(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::sha256(layer).to_string()).collect();
    serde_json::json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } })
        .to_string()
        .into_bytes()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    std::io::Read::read_to_end(&mut liblzma::read::XzEncoder::new(bytes, 1), &mut packed).expect("xz");
    packed
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    std::io::Read::read_to_end(&mut bzip2::read::BzEncoder::new(bytes, bzip2::Compression::fast()), &mut packed).expect("bzip2");
    packed
}

#[test]
fn archives_and_layers_packed_with_xz_or_bzip2_are_read() {
    let (lower, upper) = (layer_of("low", &[b'l'; 70_000]), layer_of("BZh9", b"named like bzip2"));
    let config = config_of(&[&lower, &upper]);
    let plain = docker_archive(&config, &[&lower, &upper]);
    let inside = docker_archive(&config, &[&xz(&lower), &bzip2(&upper)]);
    let two_streams = [xz(&plain[..5000]), xz(&plain[5000..])].concat();
    for (what, bytes) in [
        ("xz", xz(&plain)),
        ("bzip2", bzip2(&plain)),
        ("layers", inside.clone()),
        ("layers in xz", xz(&inside)),
        ("two streams of xz", two_streams),
    ] {
        let bench = Bench::new();
        let images = load(&bench.store.content("test"), Trickle(&bytes)).unwrap_or_else(|err| panic!("{what}: {err}"));
        let (_, manifest) = image::resolve(&bench.store.content("test"), &images[0].target, &Platform::host()).expect("resolve");
        let types: Vec<&str> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
        assert_eq!(types, [crate::descriptor::media_type::DOCKER_LAYER; 2], "{what}: kept as what media types can say");
        assert_eq!(fs::read(bench.unpack(&images[0].target).join("low")).expect("read").len(), 70_000, "{what}");
        assert_eq!(bench.ingests_left(), 0, "{what}");
    }
}

/// A socket that gives a byte at a time at first.
struct Trickle<'a>(&'a [u8]);

impl std::io::Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = if self.0.len().is_multiple_of(3) { 1 } else { 700 };
        let most = buffer.len().min(most);
        std::io::Read::read(&mut self.0, &mut buffer[..most])
    }
}

#[test]
fn packed_archives_that_are_cut_short_or_damaged_or_go_on_are_refused() {
    let layer = layer_of("a", &(0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    let plain = docker_archive(&config_of(&[&layer]), &[&layer]);
    for (what, packed) in [("xz", xz(&plain)), ("bzip2", bzip2(&plain))] {
        let bench = Bench::new();
        let refused = |how: &str, bytes: &[u8]| {
            let err = load(&bench.store.content("test"), bytes).expect_err(how);
            assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{what} {how}: {err}");
            assert!(!err.message().contains('\n'), "{what} {how}: {err}");
            assert!(bench.store.content("test").list().expect("list").is_empty(), "{what} {how}");
            assert_eq!(bench.ingests_left(), 0, "{what} {how}");
        };
        for length in [12, packed.len() / 3, packed.len() - 3000] {
            refused("cut short", &packed[..length]);
        }
        let mut damaged = packed.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0xff);
        refused("damaged", &damaged);
    }
    let bench = Bench::new();
    let wrong = layer_of("b", b"other");
    let err = load(&bench.store.content("test"), docker_archive(&config_of(&[&wrong]), &[&xz(&layer)]).as_slice()).expect_err("another");
    assert_eq!(err.kind(), ErrorKind::DataLoss, "{err}");
    let cut = xz(&layer);
    let err = load(&bench.store.content("test"), docker_archive(&config_of(&[&layer]), &[&cut[..cut.len() / 2]]).as_slice());
    assert_eq!(err.expect_err("a layer cut short").kind(), ErrorKind::InvalidArgument);
    assert_eq!(bench.ingests_left(), 0);
}

#[test]
fn an_xz_stream_that_wants_too_much_memory_is_told_so() {
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).expect("options");
    options.dict_size(512 << 20);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let encoder = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).expect("encoder");
    let mut packed = Vec::new();
    std::io::Read::read_to_end(&mut liblzma::read::XzEncoder::new_stream(&[0u8; 4096][..], encoder), &mut packed).expect("xz");
    let err = load(&Bench::new().store.content("test"), packed.as_slice()).expect_err("refused");
    assert!(err.message().contains("dictionary needs more than 128 MiB"), "{err}");
}

#[test]
fn a_config_that_is_none_is_refused_for_what_it_is() {
    let layer = layer_of("a", b"a");
    let large = [b"{\"a\":\"".as_slice(), &vec![b'x'; 9 << 20], b"\"}"].concat();
    for (config, told) in [
        (b"null".as_slice(), "invalid image JSON, no RootFS key"),
        (b"{}", "invalid image JSON, no RootFS key"),
        (b" \n{\"rootfs\":null}", "invalid image JSON, no RootFS key"),
        (b"", "image config is malformed: EOF while parsing"),
        (b"[]", "invalid image JSON, no RootFS key"),
        (b"5", "image config is malformed: invalid type"),
        (b"x", "image config is malformed: expected value"),
        (b"{\"rootfs\":5}", "image config is malformed: invalid type"),
        (b"{\"rootfs\":{\"diff_ids\":[\"x\"]}}", "image config is malformed"),
        (b"{\"rootfs\":{\"diff_ids\":[]}}", "has 1 layers, its config names 0"),
        (&large, "bytes, a config or manifest at most"),
    ] {
        let bench = Bench::new();
        let err = load(&bench.store.content("test"), docker_archive(config, &[&layer]).as_slice()).expect_err(told);
        assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{told}: {err}");
        assert!(err.message().contains(told), "{told}: {err}");
        assert_eq!(bench.ingests_left(), 0, "{told}");
    }
    let none = docker_archive(&config_of(&[]), &[]);
    assert_eq!(load(&Bench::new().store.content("test"), none.as_slice()).expect("an image without layers").len(), 1);
}
