//! The stream of JSON objects that pull, push, load, import and build answer with.

use crate::null::{is_default, snake_dto};

snake_dto! {
    /// One object of the stream.
    pub struct JsonMessage {
        #[serde(skip_serializing_if = "is_default")]
        pub stream: String,
        #[serde(skip_serializing_if = "is_default")]
        pub status: String,
        #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
        pub progress_detail: Option<ProgressDetail>,
        /// The bar drawn by the daemon for clients that cannot.
        #[serde(skip_serializing_if = "is_default")]
        pub progress: String,
        #[serde(skip_serializing_if = "is_default")]
        pub id: String,
        #[serde(skip_serializing_if = "is_default")]
        pub from: String,
        #[serde(skip_serializing_if = "is_default")]
        pub time: i64,
        #[serde(rename = "timeNano", skip_serializing_if = "is_default")]
        pub time_nano: i64,
        #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
        pub error_detail: Option<ErrorDetail>,
        #[serde(skip_serializing_if = "is_default")]
        pub error: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub aux: Option<serde_json::Value>,
    }

    /// Bytes done of bytes in all; `{}` if there is nothing to draw.
    pub struct ProgressDetail {
        #[serde(skip_serializing_if = "is_default")]
        pub current: i64,
        #[serde(skip_serializing_if = "is_default")]
        pub total: i64,
        #[serde(skip_serializing_if = "is_default")]
        pub start: i64,
        #[serde(rename = "hidecounts", skip_serializing_if = "is_default")]
        pub hide_counts: bool,
        #[serde(skip_serializing_if = "is_default")]
        pub units: String,
    }

    pub struct ErrorDetail {
        #[serde(skip_serializing_if = "is_default")]
        pub code: i64,
        pub message: String,
    }
}
