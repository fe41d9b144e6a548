//! Bundles on disk: `STATE/tasks/<ns>/<id>`, and what is kept in them for the time after a restart of the manager.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rcontainerd_types::{Error, Result, id::validate_identifier};
use serde::{Deserialize, Serialize};

use crate::types::{ExitStatus, TaskKey};

const FORMAT: u32 = 1;
/// How to reach the bundle's shim.
const RECORD: &str = "manager.json";

/// Written before the shim is started, and again when it has told where it listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShimRecord {
    pub written_by: String,
    pub min_reader: u32,
    /// The shim's binary, for `delete`.
    pub shim: PathBuf,
    /// The shim's socket; empty while it is being started.
    pub socket: PathBuf,
    /// Of the task API: 2 or 3.
    pub version: u32,
    /// Always 0: the shim is asked for the main process. Readers of format 1 want it there.
    pub pid: u32,
}

impl ShimRecord {
    pub fn new(shim: PathBuf, socket: PathBuf, version: u32) -> Self {
        let written_by = concat!("rcontainerd ", env!("CARGO_PKG_VERSION")).to_owned();
        Self { written_by, min_reader: FORMAT, shim, socket, version, pid: 0 }
    }

    pub fn save(&self, bundle: &Path) -> Result<()> {
        let path = bundle.join(RECORD);
        let bytes = serde_json::to_vec(self).map_err(|err| Error::internal(format!("encode {}: {err}", path.display())))?;
        let temporary = bundle.join(format!("{RECORD}.tmp"));
        std::fs::write(&temporary, bytes)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|err| Error::io(format!("write {}", path.display()), err))
    }

    /// A shim that is about to be started: a manager that dies meanwhile must not leave one that nobody looks for.
    pub fn promised(shim: PathBuf) -> Self {
        Self::new(shim, PathBuf::new(), 0)
    }

    /// `None` without a record: no shim was ever started.
    pub fn load(bundle: &Path) -> Result<Option<Self>> {
        let path = bundle.join(RECORD);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(Error::io(format!("read {}", path.display()), err)),
        };
        let record: Self =
            serde_json::from_slice(&bytes).map_err(|err| Error::internal(format!("{} is damaged: {err}", path.display())))?;
        if record.min_reader > FORMAT {
            return Err(Error::unsupported(format!(
                "{} was written by {}: use that version or a later one",
                path.display(),
                record.written_by
            )));
        }
        Ok(Some(record))
    }
}

/// `STATE/tasks/<ns>/<id>`; the names were validated when the key was used first.
pub fn path_of(state: &Path, key: &TaskKey) -> PathBuf {
    state.join("tasks").join(&key.namespace).join(&key.id)
}

/// Makes the directory (0711: a remapped root must pass), rootfs/ and config.json (0600). On failure nothing stays.
pub fn create(state: &Path, key: &TaskKey, config_json: &[u8]) -> Result<PathBuf> {
    validate_identifier(&key.namespace)?;
    validate_identifier(&key.id)?;
    let bundle = path_of(state, key);
    let failed = |err| Error::io(format!("make the bundle {}", bundle.display()), err);
    let parent = state.join("tasks").join(&key.namespace);
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&parent).map_err(failed)?;
    std::fs::DirBuilder::new().mode(0o711).create(&bundle).map_err(failed)?;
    if let Err(err) = fill(&bundle, config_json) {
        drop(std::fs::remove_dir_all(&bundle));
        return Err(failed(err));
    }
    Ok(bundle)
}

fn fill(bundle: &Path, config_json: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::DirBuilder::new().mode(0o711).create(bundle.join("rootfs"))?;
    let mut config = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(bundle.join("config.json"))?;
    config.write_all(config_json)
}

/// Removes a bundle, but nothing below a rootfs that is still mounted or holds files.
pub fn remove(bundle: &Path) -> Result<()> {
    let failed = |path: &Path, err| Error::io(format!("remove {}", path.display()), err);
    let entries = match std::fs::read_dir(bundle) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(failed(bundle, err)),
    };
    let rootfs = bundle.join("rootfs");
    match std::fs::remove_dir(&rootfs) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            return Err(Error::conflict(format!(
                "remove {}: {err}: something is still mounted there or was written to it",
                rootfs.display()
            )));
        }
        _ => {}
    }
    for entry in entries {
        let entry = entry.map_err(|err| failed(bundle, err))?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
        match removed {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(failed(&entry.path(), err)),
            _ => {}
        }
    }
    match std::fs::remove_dir(bundle) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(failed(bundle, err)),
        _ => Ok(()),
    }
}

/// Every bundle, sorted.
pub fn list(state: &Path) -> Result<Vec<TaskKey>> {
    let root = state.join("tasks");
    let mut keys = Vec::new();
    for namespace in names(&root)? {
        for id in names(&root.join(&namespace))? {
            keys.push(TaskKey { namespace: namespace.clone(), id });
        }
    }
    keys.sort();
    Ok(keys)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let failed = |err| Error::io(format!("read {}", directory.display()), err);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(failed(err)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let (true, Ok(name)) = (entry.file_type().is_ok_and(|kind| kind.is_dir()), entry.file_name().into_string()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// What our shim leaves in `exit/` (its `disk` module writes it).
#[derive(Deserialize)]
struct ExitRecord {
    min_reader: u32,
    code: u32,
    exited_at: u64,
}

/// The status that a shim kept on disk.
pub fn kept_exit(bundle: &Path, exec_id: Option<&str>) -> Option<ExitStatus> {
    let name = exec_id.map_or_else(|| "init".to_owned(), |exec_id| format!("exec.{exec_id}"));
    let record: ExitRecord = serde_json::from_slice(&std::fs::read(bundle.join("exit").join(name)).ok()?).ok()?;
    let exited_at = UNIX_EPOCH + Duration::from_nanos(record.exited_at);
    (record.min_reader <= FORMAT).then_some(ExitStatus { code: record.code, exited_at, known: true })
}
