//! What a cgroup uses, in the JSON shape of `runc events --stats`.
use serde::Serialize;

/// `{"type":"stats","id":…,"data":…}`: one line of `events`.
#[derive(Debug, Clone, Serialize)]
pub struct StatsEvent<'a> {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Stats>,
}

/// Everything that was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {}
