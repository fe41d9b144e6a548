//! Images in and out of tar archives: docker-archive (`manifest.json`, with layer directories or with OCI blobs) and OCI layout
//! (`index.json`, nested indexes).

mod load;
mod save;

use rcontainerd_types::Digest;
use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;

pub use load::{load, load_held};
pub use save::save;

/// containerd's annotation for a full image name in an OCI layout.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// image-spec's annotation: often a tag alone.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image found in an archive; its blobs are in the content store, and it is up to the caller to name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// As the archive says, such as `busybox:latest` or `docker.io/library/busybox:latest`; empty for an untagged image.
    pub names: Vec<String>,
    /// Manifest, or index of a multi-platform image.
    pub target: Descriptor,
}

/// An image to be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveImage {
    /// Full references (`docker.io/library/busybox:latest`); empty when saved by id.
    pub names: Vec<String>,
    pub target: Descriptor,
}

/// One image in a docker-archive's `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The path of a blob in an OCI layout.
fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

#[cfg(test)]
mod tests;
