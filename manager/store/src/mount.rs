//! A mount as containerd's API carries it: file system type, source and `mount -o` options.

use serde::{Deserialize, Serialize};

/// One mount that makes up a root file system; the first goes on the target, later ones on top of it.
///
/// An overlay with many layers has a `lowerdir=` longer than the page that mount(2) reads: who mounts passes each layer by
/// fsconfig(2) `lowerdir+` (Linux 6.7), or names them by short paths (`rrun_sys::filesystem`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub fstype: String,
    pub source: String,
    #[serde(default)]
    pub options: Vec<String>,
}
