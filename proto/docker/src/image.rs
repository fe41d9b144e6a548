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
