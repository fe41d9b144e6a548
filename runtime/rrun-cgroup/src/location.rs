//! Where a container's cgroup lies: one directory per hierarchy. This is what a runtime keeps in its state file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::Version;
use crate::systemd::Unit;

/// One cgroup directory per hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    pub dirs: Vec<Dir>,
    /// The scope that it is the cgroup of, where systemd made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

/// The cgroup's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dir {
    pub version: Version,
    /// v1: the controllers of the hierarchy; v2: empty (all that no v1 hierarchy has).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
    pub mount_point: PathBuf,
    /// Absolute, at or below `mount_point`.
    pub path: PathBuf,
}

impl Location {
    /// The directory whose hierarchy holds a controller: the v1 one that names it, else the v2 tree.
    pub fn dir_of(&self, controller: &str) -> Option<&Dir> {
        self.v1().find(|d| d.controllers.iter().any(|c| c == controller)).or_else(|| self.unified())
    }

    /// The directory in the v2 tree, if there is one.
    pub fn unified(&self) -> Option<&Dir> {
        self.dirs.iter().find(|d| d.version == Version::V2)
    }

    /// The directories in v1 hierarchies.
    pub fn v1(&self) -> impl Iterator<Item = &Dir> {
        self.dirs.iter().filter(|d| d.version == Version::V1)
    }

    /// Whether only the v2 tree exists.
    pub fn is_pure_v2(&self) -> bool {
        self.v1().next().is_none()
    }

    /// The `cgroup_paths` of runc's state: controller → directory, the v2 tree under the empty name.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths = BTreeMap::new();
        for dir in &self.dirs {
            if dir.controllers.is_empty() {
                paths.insert(String::new(), dir.path.clone());
            }
            for controller in &dir.controllers {
                paths.insert(controller.clone(), dir.path.clone());
            }
        }
        paths
    }
}
