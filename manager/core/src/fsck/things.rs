//! What lies on this host where only the engine puts things, and whose it should be.

use std::path::{Path, PathBuf};

use rcontainerd_task::TaskKey;
use rcontainerd_types::{Error, Result};
use rrun_cgroup::{Cgroup, Host, Location};

use crate::engine::NAMESPACE;

/// Where the engine puts things.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub root: PathBuf,
    pub state: PathBuf,
    /// Absolute, such as `/rcontainerd`.
    pub cgroup_parent: String,
}

/// In the order in which they are mended: processes before what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// STATE/tasks/<ns>/<id>
    Bundle,
    /// STATE/rrun/<ns>/<id>
    RuntimeState,
    /// <cgroup parent>/<id> in every hierarchy
    Cgroup,
    /// A mount below ROOT or STATE that is none of the others' own
    Mount,
    /// STATE/netns/<id>
    Namespace,
    /// STATE/c/<half the id>
    RunFiles,
    /// ROOT/containers/<id>
    Files,
}

impl Kind {
    pub const ALL: [Kind; 7] = [Kind::Bundle, Kind::RuntimeState, Kind::Cgroup, Kind::Mount, Kind::Namespace, Kind::RunFiles, Kind::Files];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Bundle => "task",
            Kind::RuntimeState => "runtime state",
            Kind::Cgroup => "cgroup",
            Kind::Mount => "mount",
            Kind::Namespace => "network namespace",
            Kind::RunFiles => "run files",
            Kind::Files => "directory",
        }
    }

    pub fn cost(self) -> &'static str {
        match self {
            Kind::Bundle => "its processes run unwatched",
            Kind::RuntimeState | Kind::RunFiles | Kind::Files => "takes space",
            Kind::Cgroup => "takes memory of the kernel, and of what runs in it",
            Kind::Mount => "what lies below cannot be removed",
            Kind::Namespace => "takes memory of the kernel",
        }
    }
}

/// Who a thing belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A container of Docker's clients, by its id.
    Container(String),
    /// One that runs, by its id or the start of it.
    Run(String),
    /// A task of containerd's clients.
    Task(TaskKey),
    Nobody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Thing {
    pub kind: Kind,
    /// Of a cgroup: the path below each hierarchy's top.
    pub path: PathBuf,
    pub owner: Owner,
}

impl Thing {
    pub fn is_there(&self) -> bool {
        match self.kind {
            Kind::Cgroup => location(&self.path).is_ok_and(|found| found.dirs.iter().any(|dir| dir.path.is_dir())),
            Kind::Mount => mount_points().is_ok_and(|points| points.contains(&self.path)),
            _ => self.path.symlink_metadata().is_ok(),
        }
    }
}

/// All things of one kind.
pub(super) fn list(kind: Kind, places: &Places) -> Result<Vec<Thing>> {
    let one = |path: PathBuf, owner: Owner| Thing { kind, path, owner };
    let named = |dir: PathBuf, owner: fn(String) -> Owner| -> Result<Vec<Thing>> {
        Ok(names(&dir)?.into_iter().map(|name| one(dir.join(&name), owner(name))).collect())
    };
    match kind {
        Kind::Files => named(places.root.join("containers"), Owner::Container),
        Kind::RunFiles => named(places.state.join("c"), Owner::Run),
        Kind::Namespace => named(places.state.join("netns"), Owner::Run),
        Kind::Bundle => of_tasks(kind, &places.state.join("tasks")),
        Kind::RuntimeState => of_tasks(kind, &places.state.join("rrun")),
        Kind::Cgroup => cgroups(&places.cgroup_parent),
        Kind::Mount => {
            Ok(mount_points()?.into_iter().filter(|point| is_stray(point, places)).map(|point| one(point, Owner::Nobody)).collect())
        }
    }
}

fn of_tasks(kind: Kind, top: &Path) -> Result<Vec<Thing>> {
    let mut things = Vec::new();
    for namespace in names(top)? {
        for id in names(&top.join(&namespace))? {
            // The runtime's own, such as its cache of filters.
            if id.starts_with('.') {
                continue;
            }
            let path = top.join(&namespace).join(&id);
            let owner = if namespace == NAMESPACE { Owner::Run(id) } else { Owner::Task(TaskKey { namespace: namespace.clone(), id }) };
            things.push(Thing { kind, path, owner });
        }
    }
    Ok(things)
}

/// Where a container's cgroup is in every hierarchy.
pub(super) fn location(path: &Path) -> Result<Location> {
    let failed = |err: rrun_cgroup::Error| Error::internal(format!("look for cgroup {}: {err}", path.display()));
    Host::detect().and_then(|host| host.locate(path.to_str(), "")).map_err(failed)
}

/// Cgroups below our parent that are named as containers are; others are somebody else's.
fn cgroups(parent: &str) -> Result<Vec<Thing>> {
    let parent = Path::new("/").join(parent.trim_matches('/'));
    let mut ids = std::collections::BTreeSet::new();
    for dir in location(&parent)?.dirs {
        ids.extend(names(&dir.path)?.into_iter().filter(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
    let thing = |id: String| Thing { kind: Kind::Cgroup, path: parent.join(&id), owner: Owner::Run(id) };
    Ok(ids.into_iter().map(thing).collect())
}

/// A cgroup in each hierarchy by itself: nobody knows whether all of what a dead container had is in all of them.
pub(super) fn in_each_hierarchy<T>(cgroup: &Path, mut work: impl FnMut(Cgroup) -> rrun_cgroup::Result<T>) -> Result<Vec<T>> {
    let one = |dir| Cgroup::open(&Location { dirs: vec![dir], unit: None });
    let done = location(cgroup)?.dirs.into_iter().map(|dir| one(dir).and_then(&mut work));
    done.collect::<rrun_cgroup::Result<_>>().map_err(|err| Error::internal(format!("cgroup {}: {err}", cgroup.display())))
}

/// Processes in a cgroup.
pub(super) fn processes(cgroup: &Path) -> Result<usize> {
    let pids = in_each_hierarchy(cgroup, |cgroup| cgroup.pids())?;
    Ok(pids.into_iter().flatten().collect::<std::collections::BTreeSet<_>>().len())
}

/// Mounts that no bundle, run directory, network namespace or volume of ours explains.
fn is_stray(point: &Path, places: &Places) -> bool {
    let (root, state) = (&places.root, &places.state);
    let explained = ["tasks", "c", "netns"].map(|dir| state.join(dir)).into_iter().chain([root.join("volumes")]);
    let ours = [root, state].into_iter().any(|top| point.starts_with(top) && point != top);
    // STATE may be a mount below ROOT, or the other way round.
    ours && ![root, state].into_iter().any(|top| point == top) && !explained.into_iter().any(|dir| point.starts_with(&dir))
}

/// Of this mount namespace, the topmost last.
pub(super) fn mount_points() -> Result<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo").map_err(|err| Error::io("read the mount table", err))?;
    let point = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(rrun_cgroup::decode_mountinfo_path);
    Ok(table.split(|byte| *byte == b'\n').filter_map(point).collect())
}

/// Names in a directory, sorted; none where it is missing.
pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    let failed = |err| Error::io(format!("read {}", dir.display()), err);
    let entries = match std::fs::read_dir(dir) {
        Err(err) if matches!(err.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(failed)?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_found_with_their_owners() {
        let dir = tempfile::tempdir().expect("directory");
        let places = Places { root: dir.path().join("root"), state: dir.path().join("state"), cgroup_parent: "/none-of-that-name".into() };
        for path in ["root/containers/aa", "state/tasks/moby/aa", "state/tasks/default/t", "state/rrun/moby/.seccomp", "state/c/aa"] {
            std::fs::create_dir_all(dir.path().join(path)).expect("directory");
        }
        let owners = |kind| list(kind, &places).expect("list").into_iter().map(|thing| thing.owner).collect::<Vec<_>>();
        let task = TaskKey { namespace: "default".into(), id: "t".into() };
        assert_eq!(owners(Kind::Files), [Owner::Container("aa".into())]);
        assert_eq!(owners(Kind::Bundle), [Owner::Task(task), Owner::Run("aa".into())]);
        assert_eq!((owners(Kind::RuntimeState), owners(Kind::RunFiles)), (vec![], vec![Owner::Run("aa".into())]));
        assert_eq!((owners(Kind::Cgroup), owners(Kind::Namespace), owners(Kind::Mount)), (vec![], vec![], vec![]));
    }

    #[test]
    fn a_mount_is_stray_unless_something_explains_it() {
        let places = Places { root: "/r".into(), state: "/r/s".into(), cgroup_parent: String::new() };
        let stray = |point: &str| is_stray(Path::new(point), &places);
        assert!(stray("/r/snapshots/overlayfs/1/fs") && stray("/r/containers/aa/x") && stray("/r/s/other"));
        assert!(
            !stray("/r") && !stray("/r/s") && !stray("/elsewhere") && !stray("/r/volumes/v/_data") && !stray("/r/s/tasks/moby/a/rootfs")
        );
    }
}
