//! Who knows whether a thing is anybody's: the manager that serves the root, or its records alone.

use std::path::Path;
use std::sync::Arc;

use rcontainerd_store::Store;
use rcontainerd_types::{Error, Finding, Result, Severity};

use super::things::{self, Kind, Owner, Thing};
use super::{Fsck, has_record, told};
use crate::containers::registry::{CONTAINERS, Entry};
use crate::containers::{recover, runstate};
use crate::engine::{Engine, KILL_PATIENCE, NAMESPACE, blocking, remove_dir};

#[derive(Clone)]
pub(super) enum Keeper {
    Serving(Arc<Engine>),
    Alone,
}

impl Keeper {
    /// A finding if nobody owns the thing.
    pub async fn look_at(&self, fsck: &Fsck, thing: Thing, repair: bool) -> Result<Option<Finding>> {
        if let (Self::Serving(engine), Owner::Run(id)) = (self, &thing.owner)
            && let Some(entry) = engine.registry.find_id(id)
        {
            return unless_it_runs(fsck, &entry, &thing, repair).await;
        }
        // Or removed since it was listed, with its container.
        if self.is_owned(&fsck.store, &thing.owner)? || !thing.is_there() {
            return Ok(None);
        }
        fsck.orphan(&thing, repair).await.map(Some)
    }

    /// Without a manager a record is enough: the next one takes up, or removes, what belongs to it.
    pub fn is_owned(&self, store: &Store, owner: &Owner) -> Result<bool> {
        match (owner, self) {
            (Owner::Nobody, _) => Ok(false),
            (Owner::Task(key), _) => has_record(store, key),
            (Owner::Run(id) | Owner::Container(id), Self::Serving(engine)) => Ok(engine.registry.is_promised(id)),
            (Owner::Run(id) | Owner::Container(id), Self::Alone) => store.metadata().read(|tx| Ok(!tx.keys(CONTAINERS, id)?.is_empty())),
        }
    }

    /// Whether a container was removed since its record was read; waits for a removal that is under way. What containerd's clients
    /// remove, in whatever order, cannot be waited for: while they may, theirs count as gone.
    pub async fn is_gone(&self, namespace: &str, id: &str) -> bool {
        let Self::Serving(engine) = self else { return false };
        let Some(entry) = engine.registry.find_id(id).filter(|_| namespace == NAMESPACE) else { return true };
        let _operation = entry.operation.lock().await;
        engine.registry.find_id(id).is_none()
    }

    pub async fn remove(&self, fsck: &Fsck, thing: &Thing) -> Result<()> {
        let (path, runtime) = (thing.path.clone(), fsck.runtime.clone());
        match (thing.kind, self) {
            (Kind::Bundle, Self::Serving(engine)) => {
                let key = match &thing.owner {
                    Owner::Task(key) => key.clone(),
                    Owner::Run(id) => engine.task_key(id),
                    Owner::Container(_) | Owner::Nobody => return Err(Error::internal("a task without an id")),
                };
                recover::orphan(engine, &key).await
            }
            (Kind::Bundle, Self::Alone) => Err(Error::conflict("start rcontainerd, which ends it")),
            (Kind::RuntimeState, _) => delete_from_runtime(&runtime, &path).await,
            (Kind::Cgroup, _) => blocking(move || remove_cgroup(&path)).await,
            (Kind::Mount, _) => blocking(move || unmount(&path)).await,
            (Kind::Namespace, _) => blocking(move || rcontainerd_network::Network::remove_netns(&path)).await,
            (Kind::RunFiles, _) => blocking(move || runstate::discard(&path)).await,
            (Kind::Files, _) => blocking(move || remove_dir(&path)).await,
        }
    }

    /// Without a manager nothing is connected by anybody who could say so.
    pub async fn check_network(&self, repair: bool) -> Result<Vec<Finding>> {
        let Self::Serving(engine) = self else { return Ok(Vec::new()) };
        let engine = Arc::clone(engine);
        blocking(move || {
            let lacks = engine.network.verify()?;
            if lacks.is_empty() {
                return Ok(Vec::new());
            }
            let mended = repair.then(|| engine.network.repair());
            let cost = "containers cannot be reached, or by strangers too";
            Ok(vec![told(Severity::Broken, "network".into(), lacks.join("; "), cost, mended)])
        })
        .await
    }
}

/// What a container has that does not run, while nobody starts or removes it.
async fn unless_it_runs(fsck: &Fsck, entry: &Entry, thing: &Thing, repair: bool) -> Result<Option<Finding>> {
    if entry.live().is_some() {
        return Ok(None);
    }
    let _operation = entry.operation.lock().await;
    if entry.live().is_some() || !thing.is_there() {
        return Ok(None);
    }
    fsck.orphan(thing, repair).await.map(Some)
}

async fn delete_from_runtime(runtime: &Path, state: &Path) -> Result<()> {
    let (root, id) = (state.parent().unwrap_or(state), state.file_name().unwrap_or_default());
    let mut command = tokio::process::Command::new(runtime);
    let output = command.arg("--root").arg(root).args(["delete", "--force"]).arg(id).stdin(std::process::Stdio::null()).output().await;
    let output = output.map_err(|err| Error::io(format!("run {}", runtime.display()), err))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::internal(format!("{}: {}", runtime.display(), String::from_utf8_lossy(&output.stderr).trim())))
}

/// With every process in it.
fn remove_cgroup(path: &Path) -> Result<()> {
    things::in_each_hierarchy(path, |cgroup| cgroup.remove(KILL_PATIENCE)).map(drop)
}

fn unmount(point: &Path) -> Result<()> {
    use rustix::mount::UnmountFlags;
    let unmounted = rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    unmounted.map_err(|err| Error::io(format!("unmount {}", point.display()), err.into()))
}
