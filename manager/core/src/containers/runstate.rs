//! What a start decided, kept in STATE while the process runs: it survives the manager, not a reboot, and so needs no fsync.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcontainerd_network::Attachment;
use rcontainerd_types::{Error, Result};
use serde::{Deserialize, Serialize};

use super::model::{Endpoint, PublishedPort};

const FILE: &str = "run.json";
const VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunState {
    /// Of this format.
    pub min_reader: u32,
    pub run: u64,
    pub started_at: Timestamp,
    #[serde(default)]
    pub restart_count: u32,
    #[serde(default)]
    pub netns: Option<PathBuf>,
    #[serde(default)]
    pub attachment: Option<Attachment>,
    #[serde(default)]
    pub networks: BTreeMap<String, Endpoint>,
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
}

impl RunState {
    pub fn new(run: u64, started_at: Timestamp) -> Self {
        let (networks, ports) = (BTreeMap::new(), Vec::new());
        Self { min_reader: VERSION, run, started_at, restart_count: 0, netns: None, attachment: None, networks, ports }
    }

    /// # Errors
    /// I/O errors.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let (path, temporary) = (dir.join(FILE), dir.join("run.json.new"));
        let bytes = serde_json::to_vec(self).map_err(|err| Error::internal(format!("encode {}: {err}", path.display())))?;
        let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|err| Error::io(format!("write {}", path.display()), err))
    }

    /// `None` when there is none.
    ///
    /// # Errors
    /// I/O errors; `DataLoss` for a file that is not ours; `Unsupported` for a newer one.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(Error::io(format!("read {}", path.display()), err)),
        };
        let state: Self = serde_json::from_slice(&bytes)
            .map_err(|err| Error::new(rcontainerd_types::ErrorKind::DataLoss, format!("{} is damaged: {err}", path.display())))?;
        if state.min_reader > VERSION {
            return Err(Error::unsupported(format!("{} was written by a newer version", path.display())));
        }
        Ok(Some(state))
    }
}
