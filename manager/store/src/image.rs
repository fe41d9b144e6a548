//! The documents that make an image: index, manifest, the part of the config that names the layers. Tolerant of fields it does not
//! know, strict about shape: a document that is both index and manifest (CVE-2021-41190) is refused.

use rcontainerd_types::{Digest, Error, ErrorKind, Platform, Result};
use serde::{Deserialize, Serialize};

use crate::content::Content;
use crate::descriptor::{Descriptor, media_type};
use crate::unpack::Layer;

/// Bytes that a manifest, index or config may have (the limit of containerd and of most registries).
pub const DOCUMENT_MAX: u64 = 8 * 1024 * 1024;
/// How deep indexes may nest.
const DEPTH_MAX: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub manifests: Vec<Descriptor>,
}

/// Either document, told apart by shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// # Errors
    /// `InvalidArgument` when it is neither, or both.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::invalid(format!("image manifest is malformed: {why}"));
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|err| bad(err.to_string()))?;
        let has = |field: &str| value.get(field).is_some();
        match (has("config") || has("layers") || has("fsLayers"), has("manifests")) {
            (true, true) => Err(bad("it is both a manifest and an index".into())),
            (true, false) => serde_json::from_value(value).map(Self::Manifest).map_err(|err| bad(err.to_string())),
            (false, true) => serde_json::from_value(value).map(Self::Index).map_err(|err| bad(err.to_string())),
            (false, false) => Err(bad("it is neither a manifest nor an index".into())),
        }
    }

    /// What it points at, directly.
    pub fn children(&self) -> Vec<&Descriptor> {
        match self {
            Self::Manifest(manifest) => std::iter::once(&manifest.config).chain(&manifest.layers).collect(),
            Self::Index(index) => index.manifests.iter().collect(),
        }
    }
}

/// Whether the blob is a document that points at others.
pub fn is_document(descriptor: &Descriptor) -> bool {
    media_type::is_index(&descriptor.media_type) || media_type::is_manifest(&descriptor.media_type)
}

/// Reads a manifest or an index from the store.
///
/// # Errors
/// `NotFound`, `DataLoss`, or `InvalidArgument` for a malformed one.
pub fn read_document(content: &Content, digest: &Digest) -> Result<Document> {
    Document::parse(&content.read(digest, DOCUMENT_MAX)?)
}

/// The manifest of `target` for a platform: itself, or the first match in its index that the store has.
///
/// # Errors
/// `NotFound` when the index has none for the platform or the store lacks it.
pub fn resolve(content: &Content, target: &Descriptor, platform: &Platform) -> Result<(Descriptor, Manifest)> {
    resolve_at(content, target, platform, 0)
}

fn resolve_at(content: &Content, target: &Descriptor, platform: &Platform, depth: usize) -> Result<(Descriptor, Manifest)> {
    if depth > DEPTH_MAX {
        return Err(Error::invalid(format!("image index {}: indexes nest too deep", target.digest)));
    }
    let index = match read_document(content, &target.digest)? {
        Document::Manifest(manifest) => return Ok((target.clone(), manifest)),
        Document::Index(index) => index,
    };
    for child in index.manifests.iter().filter(|child| is_document(child)) {
        let fits = child.platform.as_ref().is_none_or(|offered| platform.matches(offered));
        if !fits || !content.contains(&child.digest)? {
            continue;
        }
        match resolve_at(content, child, platform, depth + 1) {
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Err(Error::not_found(format!("image {} has no manifest for platform {platform} here", target.digest)))
}

#[derive(Deserialize)]
struct ConfigRootfs {
    #[serde(default)]
    rootfs: Option<Rootfs>,
}

#[derive(Deserialize)]
struct Rootfs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// The DiffIDs that an image config names, lowest layer first.
///
/// # Errors
/// `InvalidArgument` for a malformed config.
pub fn diff_ids(config: &[u8]) -> Result<Vec<Digest>> {
    let config: ConfigRootfs = serde_json::from_slice(config).map_err(|err| Error::invalid(format!("image config is malformed: {err}")))?;
    Ok(config.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default())
}

/// As [`diff_ids`], of a config that must be an image's.
///
/// # Errors
/// `InvalidArgument` for a malformed config, and in Docker's words for one that says nothing of layers.
pub fn declared_diff_ids(config: &[u8]) -> Result<Vec<Digest>> {
    let parsed: Option<ConfigRootfs> =
        serde_json::from_slice(config).map_err(|err| Error::invalid(format!("image config is malformed: {err}")))?;
    let rootfs = parsed.and_then(|config| config.rootfs).ok_or_else(|| Error::invalid("invalid image JSON, no RootFS key"))?;
    Ok(rootfs.diff_ids.unwrap_or_default())
}

/// What `unpack` needs of an image.
///
/// # Errors
/// `NotFound` for a missing config, `InvalidArgument` when manifest and config disagree about the number of layers.
pub fn layers(content: &Content, manifest: &Manifest) -> Result<Vec<Layer>> {
    let diff_ids = diff_ids(&content.read(&manifest.config.digest, DOCUMENT_MAX)?)?;
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(Error::invalid(format!("image {}: the manifest has {layers} layers, the config {ids}", manifest.config.digest)));
    }
    let layer = |(descriptor, diff_id): (&Descriptor, Digest)| Layer {
        blob: descriptor.digest.clone(),
        media_type: descriptor.media_type.clone(),
        diff_id,
    };
    Ok(manifest.layers.iter().zip(diff_ids).map(layer).collect())
}
