//! What callers ask of images and what they get.

use rcontainerd_registry::Credentials;
use rcontainerd_types::{Digest, Platform, Reference};

use super::config::{ImageConfig, ImageFile};
use crate::filters::Filters;

/// Pull one image, or all tags of a repository.
#[derive(Clone, Debug)]
pub struct PullImage {
    /// Without tag and digest, `:latest` is meant (unless `all_tags`).
    pub reference: Reference,
    /// `None`: the host's.
    pub platform: Option<Platform>,
    pub credentials: Credentials,
    pub all_tags: bool,
}

/// Push one tag, or all tags of a repository.
#[derive(Clone, Debug)]
pub struct PushImage {
    /// Without tag: all that there are here.
    pub reference: Reference,
    /// One image of several; `None`: all, if all are here.
    pub platform: Option<Platform>,
    pub credentials: Credentials,
}

/// What a name stands for at its registry.
#[derive(Clone, Debug)]
pub struct RemoteImage {
    /// Of the manifest or index.
    pub descriptor: rcontainerd_types::Descriptor,
    pub platforms: Vec<Platform>,
}

/// A manifest or index at its registry.
#[derive(Clone, Debug)]
pub struct RemoteManifest {
    /// With the platform, where an index told it.
    pub descriptor: rcontainerd_types::Descriptor,
    pub bytes: Vec<u8>,
    /// Of an index: what it lists.
    pub entries: Vec<RemoteManifest>,
}

/// The end of a successful pull.
#[derive(Clone, Debug)]
pub struct PulledImage {
    pub id: Digest,
    /// The digest of the manifest or index that the tag names.
    pub digest: Digest,
    /// False when everything was here already and the tag did not move.
    pub is_new: bool,
}

/// An image as resolved in one namespace.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the config document: Docker's image id.
    pub id: Digest,
    /// The manifest of this platform.
    pub manifest: Digest,
    /// The image that it was made from here, while that is still here.
    pub parent: Option<Digest>,
    /// Names with a tag, in familiar order; empty for a dangling image.
    pub repo_tags: Vec<Reference>,
    /// Names with a digest.
    pub repo_digests: Vec<Reference>,
    /// Seconds since the epoch; `None` where the config has no date.
    pub created: Option<i64>,
    /// The date as the config document has it (RFC 3339), empty if none.
    pub created_text: String,
    /// Unpacked size of all layers, in bytes.
    pub size: u64,
    pub platform: Platform,
    /// The media type of what is no image: a chart, a signature, any files.
    pub artifact: Option<String>,
    /// When a name was last given to it here (RFC 3339).
    pub last_tagged: Option<String>,
    /// The whole config document.
    pub file: ImageFile,
}

/// An image as lists tell of it.
#[derive(Clone, Debug)]
pub struct ListedImage {
    /// Digest of the config document: Docker's image id.
    pub id: Digest,
    /// The image that it was made from here, while that is still here.
    pub parent: Option<Digest>,
    /// Names with a tag, in familiar order; empty for a dangling image.
    pub repo_tags: Vec<Reference>,
    /// Names with a digest.
    pub repo_digests: Vec<Reference>,
    /// Seconds since the epoch; `None` where the config has no date.
    pub created: Option<i64>,
    /// Unpacked size of all layers, in bytes.
    pub size: u64,
    /// Those of the config.
    pub labels: std::collections::BTreeMap<String, String>,
}

impl Image {
    /// Defaults for a container made from it.
    pub fn config(&self) -> &ImageConfig {
        &self.file.config
    }
}

/// A manifest that an image's name leads to, here or not.
#[derive(Clone, Debug)]
pub struct LocalManifest {
    pub descriptor: rcontainerd_types::Descriptor,
    /// `None` for what is no image.
    pub platform: Option<Platform>,
    /// The image that it is a statement about.
    pub attests: Option<Digest>,
    /// Whether it and all its blobs are here.
    pub available: bool,
    /// Bytes of its blobs that are here.
    pub content: u64,
    /// Bytes of its layers on disk.
    pub unpacked: u64,
}

/// Predicates of `docker images --filter`; several values of one kind are alternatives, except labels, which must all hold.
#[derive(Clone, Debug, Default)]
pub struct ImageFilters {
    pub dangling: Option<bool>,
    /// Key, and the value that it must have if given.
    pub labels: Vec<(String, Option<String>)>,
    /// Created before this image (any name that resolves).
    pub before: Option<String>,
    /// Created after this image.
    pub since: Option<String>,
    /// Patterns such as `busy*`, `*:latest`, `localhost:5000/*`.
    pub references: Vec<String>,
    /// Created before this time, in seconds since the epoch.
    pub until: Option<i64>,
}

/// Untag, and delete what then has no name.
#[derive(Clone, Debug)]
pub struct RemoveImage {
    pub name: String,
    /// Also when stopped containers use it, or it has several names.
    pub force: bool,
    /// Images without a name that it was made from stay.
    pub keep_parents: bool,
}

/// A container that was made from an image: what `remove` must know about it.
#[derive(Clone, Debug)]
pub struct ImageUser {
    pub container_id: String,
    pub image_id: Digest,
    /// The name that the container was created with, as typed.
    pub image_name: String,
    pub running: bool,
}

/// What a removal did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A familiar name, such as `busybox:latest`.
    Untagged(String),
    Deleted(Digest),
}

/// Remove what no container uses.
#[derive(Clone, Debug, Default)]
pub struct PruneImages {
    /// Only images without a name; else all.
    pub dangling_only: bool,
    /// Created before this time, in seconds since the epoch.
    pub until: Option<i64>,
    /// `label` and `label!`.
    pub labels: Filters,
}

#[derive(Clone, Debug, Default)]
pub struct PrunedImages {
    /// In order.
    pub removed: Vec<Removed>,
    /// Bytes on disk of the layers that went.
    pub space_reclaimed: u64,
    /// How many of `removed` are in `space_reclaimed`.
    pub(super) measured: usize,
}

/// A new image: another one with a layer on top.
#[derive(Clone, Debug)]
pub struct ExtendImage {
    pub base: Digest,
    /// Of the new image.
    pub config: ImageConfig,
    pub author: String,
    pub comment: String,
    /// What the layer's line in the history says.
    pub created_by: String,
    /// `None`: it has no name.
    pub reference: Option<Reference>,
}

/// A new image of one layer from a tar of a root filesystem.
#[derive(Clone, Debug, Default)]
pub struct ImportImage {
    /// `None`: it has no name.
    pub reference: Option<Reference>,
    /// Its comment.
    pub message: String,
    /// Instructions of a Dockerfile that change the configuration.
    pub changes: Vec<String>,
    /// `None`: the host's.
    pub platform: Option<Platform>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    pub id: Digest,
    /// `None`: the archive gives it no name.
    pub name: Option<Reference>,
}

/// One line of `docker history`, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    /// Only the image itself and known parents have one; else `<missing>` is shown.
    pub id: Option<Digest>,
    pub created: Option<i64>,
    pub created_by: String,
    pub comment: String,
    /// Unpacked size in bytes; 0 for lines that make no layer.
    pub size: u64,
    pub tags: Vec<Reference>,
}

/// A writable snapshot on top of an image.
#[derive(Clone, Debug)]
pub struct PreparedRootfs {
    pub snapshotter: String,
    pub key: String,
}

/// Told to the listener that core gives at open, after the change is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageEvent {
    /// `name` is the familiar name.
    Pull {
        id: Digest,
        name: String,
    },
    Tag {
        id: Digest,
        name: String,
    },
    Untag {
        id: Digest,
        name: String,
    },
    Delete {
        id: Digest,
    },
    Load {
        id: Digest,
        name: String,
    },
    Save {
        id: Digest,
        name: String,
    },
}
