//! What `check` and `fsck` report: one observation each, with what it costs and what mends it.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Ok,
    /// Works, with less: `cost` says what is lost.
    Degraded,
    /// A promise cannot be kept until it is mended.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    /// What was looked at, such as `overlayfs` or `cgroup v2`.
    pub subject: String,
    /// What was seen, in plain words.
    pub observed: String,
    /// What the user loses by it; empty when nothing.
    pub cost: String,
    /// What mends it; empty when nothing is to be done.
    pub remedy: String,
}
