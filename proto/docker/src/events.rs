//! `GET /events`: a stream of these objects.

use crate::StringMap;
use crate::null::is_default;

/// Something that happened. Its names mix cases as history has left them.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Event {
    /// As `action`, in the form of before API 1.22.
    #[serde(skip_serializing_if = "is_default")]
    pub status: String,
    /// As `actor.id`, in the form of before API 1.22.
    #[serde(skip_serializing_if = "is_default")]
    pub id: String,
    /// Image of a container event, in the form of before API 1.22.
    #[serde(skip_serializing_if = "is_default")]
    pub from: String,
    /// `container`, `image`, `volume`, `network`, `daemon`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`, `exec_create: sh -c true`, …
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local` or `swarm`.
    #[serde(skip_serializing_if = "is_default")]
    pub scope: String,
    /// Seconds since the epoch.
    #[serde(skip_serializing_if = "is_default")]
    pub time: i64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano", skip_serializing_if = "is_default")]
    pub time_nano: i64,
}

crate::null::dto! {
    /// What an event is about.
    pub struct Actor {
        #[serde(rename = "ID")]
        pub id: String,
        pub attributes: StringMap,
    }
}
