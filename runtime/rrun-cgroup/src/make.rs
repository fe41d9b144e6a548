//! Making a cgroup's directories, and taking them back.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fsio;
use crate::group::own_pids;
use crate::host::Version;
use crate::location::{Dir, Location};

/// Remembers what it made.
#[derive(Default)]
pub(crate) struct Maker {
    made: Vec<PathBuf>,
}

impl Maker {
    pub fn make_all(&mut self, location: &Location) -> Result<()> {
        let pure = location.is_pure_v2();
        for dir in &location.dirs {
            self.make(dir)?;
            // Beside v1 hierarchies the v2 tree has few controllers, and few users: they are handed down when one is needed.
            if dir.version == Version::V2 && pure {
                hand_controllers_down(dir)?;
            }
        }
        Ok(())
    }

    /// As [`Maker::make_all`], where some directories are there already, with a process in them.
    pub fn adopt_all(&mut self, location: &Location) -> Result<()> {
        for dir in &location.dirs {
            let made_from = self.made.len();
            self.make_with_parents(&dir.path, &dir.mount_point)?;
            self.fill_cpusets(dir, made_from)?;
        }
        location.unified().filter(|_| location.is_pure_v2()).map_or(Ok(()), hand_controllers_down)
    }

    fn make(&mut self, dir: &Dir) -> Result<()> {
        let made_from = self.made.len();
        if !self.make_with_parents(&dir.path, &dir.mount_point)? {
            refuse_frozen(dir)?;
            return refuse_populated(&dir.path);
        }
        self.fill_cpusets(dir, made_from)
    }

    fn fill_cpusets(&self, dir: &Dir, made_from: usize) -> Result<()> {
        if dir.controllers.iter().any(|c| c == "cpuset") {
            self.made[made_from..].iter().try_for_each(|path| inherit_cpuset(path))?;
        }
        Ok(())
    }

    /// False if the directory was there. A parent may be removed by someone between two calls: then it is made again.
    fn make_with_parents(&mut self, path: &Path, top: &Path) -> Result<bool> {
        for _ in 0..8 {
            match fsio::make_dir(path) {
                Ok(true) => {
                    self.made.push(path.to_path_buf());
                    return Ok(true);
                }
                Ok(false) => return Ok(false),
                Err(Errno::NOENT) if path != top => {
                    let parent = path.parent().ok_or_else(|| Error::io("make", path, Errno::NOENT))?;
                    self.make_with_parents(parent, top)?;
                }
                Err(e) => return Err(Error::io("make", path, e)),
            }
        }
        Err(Error::io("make", path, Errno::NOENT))
    }

    /// Removes what was made and returns the error that caused it, with what could not be removed.
    pub fn undo(self, cause: Error) -> Error {
        let left: Vec<String> = self
            .made
            .iter()
            .rev()
            .filter_map(|path| match rustix::fs::rmdir(path) {
                Ok(()) | Err(Errno::NOENT) => None,
                Err(e) => Some(format!("{}: {e}", path.display())),
            })
            .collect();
        if left.is_empty() { cause } else { Error::Invalid(format!("{cause}; could not remove {}", left.join(", "))) }
    }
}

fn refuse_populated(path: &Path) -> Result<()> {
    match own_pids(path)?.len() {
        0 => Ok(()),
        n => Err(Error::Invalid(format!(
            "container's cgroup is not empty: {n} process(es) found in {}: give the container another cgroupsPath",
            path.display()
        ))),
    }
}

/// A process that is put into a frozen cgroup would never come up to say so.
fn refuse_frozen(dir: &Dir) -> Result<()> {
    let (file, frozen) = match dir.version {
        Version::V2 => ("cgroup.freeze", "1"),
        Version::V1 if dir.controllers.iter().any(|c| c == "freezer") => ("freezer.state", "FROZEN"),
        Version::V1 => return Ok(()),
    };
    match fsio::read_if_there(&dir.path.join(file))? {
        Some(state) if state.trim() == frozen => {
            Err(Error::Invalid(format!("container's cgroup unexpectedly frozen: {}: thaw or remove it", dir.path.display())))
        }
        _ => Ok(()),
    }
}

/// v1 lets no process into a cpuset without CPUs and memory nodes; a fresh one has none.
fn inherit_cpuset(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut value = fsio::read(&parent.join(file))?;
        // Somebody else's directory, made and never set up.
        if value.trim().is_empty() && parent.join(file).exists() && parent.parent().is_some_and(|p| p.join(file).exists()) {
            inherit_cpuset(parent)?;
            value = fsio::read(&parent.join(file))?;
        }
        fsio::write_told(&path.join(file), value.trim())?;
    }
    Ok(())
}

/// Makes every controller of the tree's top available in a cgroup. Those that some parent refuses stay out: whoever needs
/// one gets an error that names it.
pub(crate) fn hand_controllers_down(dir: &Dir) -> Result<()> {
    let offered = fsio::read(&dir.mount_point.join("cgroup.controllers"))?;
    let have = fsio::read(&dir.path.join("cgroup.controllers"))?;
    let missing = |have: &str| {
        let have: Vec<&str> = have.split_whitespace().collect();
        offered.split_whitespace().filter(|c| !have.contains(c)).map(|c| format!("+{c}")).collect::<Vec<_>>()
    };
    let wanted = missing(&have);
    if wanted.is_empty() {
        return Ok(());
    }
    let mut parents: Vec<&Path> = dir.path.ancestors().skip(1).take_while(|p| p.starts_with(&dir.mount_point)).collect();
    parents.reverse();
    for parent in parents {
        let file = parent.join("cgroup.subtree_control");
        if fsio::write(&file, &wanted.join(" ")).is_ok() {
            continue;
        }
        for controller in &wanted {
            // One refused controller must not keep the others out; see above for why this is no error.
            fsio::write(&file, controller).unwrap_or_default();
        }
    }
    Ok(())
}
