//! Snapshots as full copies, for hosts where overlayfs cannot be mounted (overlay on overlay, NFS). Blocks are shared by reflink
//! where the file system can.

use std::path::{Path, PathBuf};

use rcontainerd_types::{Finding, Result, Severity};

use super::backend::Backend;
use super::copy::copy_tree;
use super::{Kind, LayerDirs, Whiteouts};
use crate::fs::{failed, make_private_dir};
use crate::mount::Mount;

pub const NAME: &str = "native";

pub struct Native {
    root: PathBuf,
}

impl Native {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl Backend for Native {
    fn name(&self) -> &'static str {
        NAME
    }

    fn create(&self, dir: &Path, kind: Kind, parents: &[PathBuf]) -> Result<()> {
        let fs = dir.join("fs");
        match (kind, parents.first()) {
            // A view shows its parent's own directory, read-only.
            (Kind::View, Some(_)) => make_private_dir(&fs),
            (_, Some(parent)) => copy_tree(&parent.join("fs"), &fs),
            (_, None) => {
                make_private_dir(&fs)?;
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(&fs, mode).map_err(failed("chmod", &fs))
            }
        }
    }

    fn mounts(&self, dir: &Path, kind: Kind, parents: &[PathBuf]) -> Vec<Mount> {
        let (source, access) = match (kind, parents.first()) {
            (Kind::Active, _) => (dir, "rw"),
            (_, Some(parent)) => (parent.as_path(), "ro"),
            (_, None) => (dir, "ro"),
        };
        let source = source.join("fs").to_string_lossy().into_owned();
        vec![Mount { fstype: "bind".into(), source, options: vec!["rbind".into(), access.into()] }]
    }

    fn relax(&self, _dir: &Path, _mounts: &mut [Mount]) -> Result<()> {
        Ok(())
    }

    fn layer_dirs(&self, dir: &Path, _parents: &[PathBuf]) -> LayerDirs {
        LayerDirs { upper: dir.join("fs"), lowers: Vec::new(), whiteouts: Whiteouts::Remove }
    }

    fn seal(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn usable(&self) -> Result<()> {
        Ok(())
    }

    fn check(&self) -> Vec<Finding> {
        vec![Finding {
            severity: Severity::Ok,
            subject: "native snapshots".into(),
            observed: format!("copies can be made in {}", self.root.display()),
            cost: String::new(),
            remedy: String::new(),
        }]
    }
}
