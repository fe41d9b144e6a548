//! Images made by hand: an OCI layout with whatever layers a test wants.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rcontainerd_types::{Descriptor, Digest, Platform, media_type};
use serde_json::{Value, json};

use super::write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A tar with these files (path, content, mode).
pub fn tar_of(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("directory");
    for (name, content, mode) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        write(&path, content);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(*mode)).expect("mode");
    }
    let names: Vec<&str> = files.iter().map(|(name, _, _)| name.split('/').next().unwrap_or(name)).collect();
    super::run(
        Command::new("tar").args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf", "-", "-C"]).arg(dir.path()).args(names),
    )
}

/// An image to be.
pub struct ImageBuilder {
    layers: Vec<(Vec<u8>, Compression)>,
    platform: Platform,
    config: Value,
    created: String,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self { layers: Vec::new(), platform: Platform::host(), config: json!({"Cmd": ["/bin/sh"]}), created: "2024-01-02T03:04:05Z".into() }
    }
}

impl ImageBuilder {
    #[must_use]
    pub fn layer(mut self, tar: Vec<u8>, compression: Compression) -> Self {
        self.layers.push((tar, compression));
        self
    }

    #[must_use]
    pub fn platform(mut self, platform: &str) -> Self {
        self.platform = platform.parse().expect("platform");
        self
    }

    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    #[must_use]
    pub fn created(mut self, date: &str) -> Self {
        date.clone_into(&mut self.created);
        self
    }
}

/// An OCI layout in a temporary directory.
pub struct Layout {
    dir: tempfile::TempDir,
    manifests: Vec<Value>,
}

impl Default for Layout {
    fn default() -> Self {
        Self::new()
    }
}

impl Layout {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).expect("directory");
        write(&dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
        Self { dir, manifests: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Adds a blob as it is.
    pub fn blob(&self, kind: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::sha256(bytes);
        write(&self.dir.path().join("blobs/sha256").join(digest.hex()), bytes);
        Descriptor::new(kind, digest, bytes.len() as u64)
    }

    pub fn read(&self, digest: &Digest) -> Vec<u8> {
        std::fs::read(self.dir.path().join("blobs/sha256").join(digest.hex())).expect("blob")
    }

    /// Adds an image; its manifest's descriptor has the platform.
    pub fn image(&self, image: &ImageBuilder) -> Descriptor {
        let diff_ids: Vec<Digest> = image.layers.iter().map(|(tar, _)| Digest::sha256(tar)).collect();
        let layers: Vec<Descriptor> = image
            .layers
            .iter()
            .map(|(tar, compression)| match compression {
                Compression::None => self.blob(media_type::OCI_LAYER, tar),
                Compression::Gzip => self.blob(media_type::OCI_LAYER_GZIP, &filter("gzip", &["-nc"], tar)),
                Compression::Zstd => self.blob(media_type::OCI_LAYER_ZSTD, &filter("zstd", &["-qc"], tar)),
            })
            .collect();
        let config = json!({
            "created": image.created,
            "architecture": image.platform.architecture,
            "variant": image.platform.variant.clone().unwrap_or_default(),
            "os": image.platform.os,
            "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": image.layers.iter().map(|_| json!({"created": image.created, "created_by": "a test"})).collect::<Vec<_>>(),
        });
        let config = self.blob(media_type::OCI_CONFIG, config.to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers});
        let mut descriptor = self.blob(media_type::OCI_MANIFEST, manifest.to_string().as_bytes());
        descriptor.platform = Some(image.platform.clone());
        descriptor
    }

    /// Adds an index of images.
    pub fn index(&self, images: &[Descriptor]) -> Descriptor {
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": images});
        self.blob(media_type::OCI_INDEX, index.to_string().as_bytes())
    }

    /// Names a document for skopeo.
    pub fn tag(&mut self, tag: &str, target: &Descriptor) {
        let mut entry = serde_json::to_value(target).expect("descriptor");
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.manifests.push(entry);
        write(&self.dir.path().join("index.json"), json!({"schemaVersion": 2, "manifests": self.manifests}).to_string());
    }
}

fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|err| panic!("{program}: {err}"));
    let mut stdin = child.stdin.take().expect("stdin");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("output");
    feeder.join().expect("thread").expect("feed");
    output.stdout
}
