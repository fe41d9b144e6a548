//! Images.

use crate::StringMap;
use crate::config::Config;
use crate::inspect::GraphDriver;
use crate::null::{dto, is_default, snake_dto};

dto! {
    /// An element of `GET /images/json`.
    pub struct ImageSummary {
        /// -1 unless counted.
        pub containers: i64,
        /// Seconds since the epoch.
        pub created: i64,
        pub id: String,
        pub labels: Option<StringMap>,
        pub parent_id: String,
        pub repo_digests: Vec<String>,
        pub repo_tags: Vec<String>,
        /// Bytes; -1 unless counted.
        pub shared_size: i64,
        /// Bytes.
        pub size: i64,
        /// Bytes; gone since API 1.44.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub virtual_size: Option<i64>,
        /// The platforms, when they were asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub manifests: Option<Vec<ManifestSummary>>,
    }

    /// One entry of an image's index, or its only manifest (API 1.47).
    pub struct ManifestSummary {
        #[serde(rename = "ID")]
        pub id: String,
        pub descriptor: DistributionDescriptor,
        /// Whether all of it is here.
        pub available: bool,
        pub size: ManifestSize,
        /// `image`, `attestation` or `unknown`.
        pub kind: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub image_data: Option<ManifestImage>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub attestation_data: Option<ManifestAttestation>,
    }

    /// Bytes.
    pub struct ManifestSize {
        /// Of the blobs that are here.
        pub content: i64,
        /// And of what is unpacked.
        pub total: i64,
    }

    pub struct ManifestImage {
        pub platform: DistributionPlatform,
        pub containers: Vec<String>,
        pub size: ManifestImageSize,
    }

    /// Bytes.
    pub struct ManifestImageSize {
        pub unpacked: i64,
    }

    pub struct ManifestAttestation {
        /// Digest of the manifest that it is about.
        #[serde(rename = "For")]
        pub for_image: String,
    }

    /// `GET /distribution/{name}/manifest`, of this engine alone: a manifest or index at its registry.
    pub struct RemoteDocument {
        pub descriptor: DistributionDescriptor,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub platform: Option<DistributionPlatform>,
        /// As it is there, byte by byte.
        pub document: String,
        /// What an index lists.
        #[serde(skip_serializing_if = "is_default")]
        pub entries: Vec<RemoteDocument>,
    }

    /// `GET /images/{name}/json`.
    pub struct ImageInspect {
        pub id: String,
        pub repo_tags: Vec<String>,
        pub repo_digests: Vec<String>,
        pub parent: String,
        pub comment: String,
        /// RFC 3339 with nanoseconds; empty if the image does not say.
        #[serde(skip_serializing_if = "is_default")]
        pub created: String,
        /// Gone since API 1.45.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub container: Option<String>,
        /// Gone since API 1.45.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub container_config: Option<Config>,
        pub docker_version: String,
        pub author: String,
        pub config: Option<Config>,
        pub architecture: String,
        #[serde(skip_serializing_if = "is_default")]
        pub variant: String,
        pub os: String,
        #[serde(skip_serializing_if = "is_default")]
        pub os_version: String,
        /// Bytes.
        pub size: i64,
        /// Bytes; gone since API 1.44.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub virtual_size: Option<i64>,
        pub graph_driver: GraphDriver,
        #[serde(rename = "RootFS")]
        pub root_fs: RootFs,
        /// The platforms, when they were asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub manifests: Option<Vec<ManifestSummary>>,
        pub metadata: ImageMetadata,
    }

    pub struct RootFs {
        #[serde(rename = "Type")]
        pub kind: String,
        /// DiffIDs, lowest first.
        #[serde(skip_serializing_if = "is_default")]
        pub layers: Vec<String>,
    }

    pub struct ImageMetadata {
        /// RFC 3339; `0001-01-01T00:00:00Z` if never tagged here.
        pub last_tag_time: String,
    }

    /// An element of `GET /images/{name}/history`, newest first.
    pub struct HistoryItem {
        pub comment: String,
        /// Seconds since the epoch.
        pub created: i64,
        pub created_by: String,
        /// `<missing>` for layers that are no image here.
        pub id: String,
        /// Bytes.
        pub size: i64,
        pub tags: Option<Vec<String>>,
    }

    /// An element of the answer to `DELETE /images/{name}`: one of the two is set.
    pub struct DeleteItem {
        #[serde(skip_serializing_if = "is_default")]
        pub deleted: String,
        #[serde(skip_serializing_if = "is_default")]
        pub untagged: String,
    }

    /// `GET /distribution/{name}/json`.
    pub struct DistributionInspect {
        pub descriptor: DistributionDescriptor,
        pub platforms: Vec<DistributionPlatform>,
    }

    /// `POST /build/prune`.
    pub struct BuildPruneResponse {
        pub caches_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }

    /// `POST /images/prune`.
    pub struct PruneResponse {
        pub images_deleted: Option<Vec<DeleteItem>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}

snake_dto! {
    /// An element of `GET /images/search`.
    pub struct SearchResult {
        pub star_count: i64,
        pub is_official: bool,
        pub name: String,
        pub is_automated: bool,
        pub description: String,
    }
}

crate::null::camel_dto! {
    /// Of a manifest or an index.
    pub struct DistributionDescriptor {
        pub media_type: String,
        pub digest: String,
        /// Bytes.
        pub size: i64,
    }

    pub struct DistributionPlatform {
        pub architecture: String,
        pub os: String,
        #[serde(skip_serializing_if = "is_default")]
        pub variant: String,
    }
}
