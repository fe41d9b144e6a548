//! What a start decided, kept in STATE while the process runs: it survives the manager, not a reboot, and so needs no fsync.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcontainerd_network::Attachment;
use rcontainerd_types::{Error, Result};
use serde::{Deserialize, Serialize};

use super::model::{Endpoint, PublishedPort};
use super::network::Connections;

const FILE: &str = "run.json";
/// A tmpfs on the host: /dev/shm of a container that shares it (`--ipc shareable`).
pub const SHARED_MEMORY: &str = "shm";
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
    /// Of a manager that knew one network only; read into `attachments`.
    #[serde(default, skip_serializing)]
    attachment: Option<Attachment>,
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    #[serde(default)]
    pub networks: BTreeMap<String, Endpoint>,
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
}

impl RunState {
    pub fn new(run: u64, started_at: Timestamp) -> Self {
        let (networks, ports) = (BTreeMap::new(), Vec::new());
        let attachments = Vec::new();
        Self { min_reader: VERSION, run, started_at, restart_count: 0, netns: None, attachment: None, attachments, networks, ports }
    }

    pub fn connections(&self) -> Connections {
        Connections { netns: self.netns.clone(), attachments: self.attachments.clone() }
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
        let mut state: Self = serde_json::from_slice(&bytes)
            .map_err(|err| Error::new(rcontainerd_types::ErrorKind::DataLoss, format!("{} is damaged: {err}", path.display())))?;
        if state.min_reader > VERSION {
            return Err(Error::unsupported(format!("{} was written by a newer version", path.display())));
        }
        state.attachments.extend(state.attachment.take());
        Ok(Some(state))
    }
}

/// There while the manager itself, not a client, holds the container paused.
const HELD: &str = "held";

/// Says that the pause that follows is the manager's own: its successor ends it.
///
/// # Errors
/// I/O errors.
pub fn hold(dir: &Path) -> Result<()> {
    let path = dir.join(HELD);
    fs::write(&path, "").map_err(|err| Error::io(format!("write {}", path.display()), err))
}

pub fn is_held(dir: &Path) -> bool {
    dir.join(HELD).exists()
}

/// # Errors
/// I/O errors; one that is gone with its run is none.
pub fn let_go(dir: &Path) -> Result<()> {
    let path = dir.join(HELD);
    match fs::remove_file(&path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {}", path.display()), err)),
        _ => Ok(()),
    }
}

/// Mounts shared memory of so many bytes in the run's directory.
///
/// # Errors
/// What mount(2) says.
pub fn share_memory(dir: &Path, size: i64) -> Result<()> {
    let place = dir.join(SHARED_MEMORY);
    crate::engine::make_dir(&place, 0o700)?;
    let flags = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
    rrun_sys::mount::mount("shm", &place, "tmpfs", flags, &format!("mode=1777,size={size}"))
        .map_err(|err| Error::internal(format!("mount shared memory: {err}")))
}

/// Removes the run's directory, shared memory first; one that is gone is no error.
///
/// # Errors
/// What umount2(2) and unlink(2) say.
pub fn discard(dir: &Path) -> Result<()> {
    let place = dir.join(SHARED_MEMORY);
    if place.exists() {
        match rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW) {
            // Not mounted any more.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(err) => return Err(Error::io(format!("unmount {}", place.display()), err.into())),
        }
    }
    crate::engine::remove_dir(dir)
}
