//! Volumes.

use crate::StringMap;
use crate::null::{dto, is_default};

dto! {
    pub struct Volume {
        /// RFC 3339, whole seconds.
        #[serde(skip_serializing_if = "is_default")]
        pub created_at: String,
        pub driver: String,
        pub labels: Option<StringMap>,
        pub mountpoint: String,
        pub name: String,
        pub options: Option<StringMap>,
        pub scope: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub status: Option<serde_json::Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub usage_data: Option<VolumeUsage>,
    }

    pub struct VolumeUsage {
        /// -1 unless counted.
        pub ref_count: i64,
        /// Bytes; -1 unless counted.
        pub size: i64,
    }

    /// `GET /volumes`.
    pub struct VolumeList {
        pub volumes: Vec<Volume>,
        pub warnings: Option<Vec<String>>,
    }

    /// `POST /volumes/create`.
    pub struct VolumeCreateRequest {
        #[serde(skip_serializing_if = "is_default")]
        pub name: String,
        #[serde(skip_serializing_if = "is_default")]
        pub driver: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver_opts: Option<StringMap>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub labels: Option<StringMap>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cluster_volume_spec: Option<serde_json::Value>,
    }

    /// `POST /volumes/prune`.
    pub struct VolumePruneResponse {
        pub volumes_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}
