//! Checks what the engine keeps and what lies on this host against each other: nothing is lost, nothing is left behind.
//!
//! ```text
//! store      database, content, snapshots, images (rcontainerd_store::fsck)
//! records    containers ↔ ROOT/containers, volumes ↔ ROOT/volumes
//! things     bundles, runtime state, cgroups, mounts, network namespaces, run files ↔ who may own them
//! network    firewall rules and links ↔ what is connected
//! ```
//!
//! A manager that runs is asked by its containers' locks, so that what is just being made or removed is nobody's rubbish; without one,
//! what any record may own is left to the next manager, which takes it up or removes it.

mod keeper;
mod things;

use std::path::PathBuf;
use std::sync::Arc;

use rcontainerd_store::fsck::{FsckOptions, FsckReport};
use rcontainerd_store::{Store, records};
use rcontainerd_types::{ErrorKind, Finding, Reference, Result, Severity};

use crate::containers::Outline;
use crate::containers::outline::OUTLINES;
use crate::containers::registry::CONTAINERS;
use crate::engine::{Engine, NAMESPACE, blocking, make_dir};
use crate::images::{ImageService, ImagesConfig, PullImage};
use crate::volumes::Volumes;
use keeper::Keeper;
use things::{Kind, Places, Thing};

/// What `remedy` says of what was mended.
pub const REPAIRED: &str = "repaired";
pub(crate) const REPAIR: &str = "run fsck with --repair";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckCommand {
    /// Sizes of blobs only, no digests.
    pub quick: bool,
    pub repair: bool,
    /// Pulls what is lost or damaged again; implies nothing without `repair`.
    pub refetch: bool,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Fsck {
    keeper: Keeper,
    places: Places,
    store: Store,
    images: ImageService,
    volumes: Volumes,
    /// The OCI runtime's binary.
    runtime: PathBuf,
    /// One check at a time: what one removes is nothing that another should find.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// For a check without a manager.
#[derive(Clone)]
pub struct Alone {
    pub state_dir: PathBuf,
    pub cgroup_parent: String,
    pub runtime: PathBuf,
    pub images: ImagesConfig,
}

impl Fsck {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        let config = &engine.config;
        let places =
            Places { root: engine.store.root().to_owned(), state: config.state_dir.clone(), cgroup_parent: config.cgroup_parent.clone() };
        Self {
            places,
            store: engine.store.clone(),
            images: engine.images.clone(),
            volumes: engine.volumes.clone(),
            runtime: config.runtime.clone(),
            turn: Arc::default(),
            keeper: Keeper::Serving(engine),
        }
    }

    /// For a root that no manager serves; whoever has opened the store has it for itself.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn alone(store: Store, config: Alone) -> Result<Self> {
        let places = Places { root: store.root().to_owned(), state: config.state_dir, cgroup_parent: config.cgroup_parent };
        let events = crate::events::Events::open(&store)?;
        let registry = crate::containers::registry::Registry::load(&store)?;
        if store.was_abandoned() {
            remove_half_made(&places, &store)?;
        }
        let volumes = Volumes::open(store.clone(), events, Arc::new(move || Ok(registry.volume_references())))?;
        let images = ImageService::open(store.clone(), NAMESPACE, config.images);
        Ok(Self { keeper: Keeper::Alone, places, store, images, volumes, runtime: config.runtime, turn: Arc::default() })
    }

    /// # Errors
    /// When the database, a directory or the mount table cannot be read at all; what cannot be mended is a finding.
    pub async fn run(&self, command: FsckCommand) -> Result<Vec<Finding>> {
        let _turn = self.turn.lock().await;
        self.check(command, command.repair).await
    }

    /// When a manager starts: what the last one was just making or removing on this host is nobody's now and goes, also behind an orderly
    /// end, which cuts off what is under way. Behind one that was none the quick check follows; what may be data stays for `--repair`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn at_start(&self) -> Result<Vec<Finding>> {
        let _turn = self.turn.lock().await;
        if !self.store.was_abandoned() {
            return self.check_things(true).await;
        }
        self.check(FsckCommand { quick: true, ..FsckCommand::default() }, true).await
    }

    async fn check(&self, command: FsckCommand, sweep: bool) -> Result<Vec<Finding>> {
        let report = self.check_store(command).await?;
        let mut findings = report.findings;
        findings.extend(self.check_containers(command.repair).await?);
        findings.extend(self.volumes.check(command.repair).await?);
        findings.extend(self.check_things(sweep).await?);
        findings.extend(self.keeper.check_network(command.repair).await?);
        Ok(findings)
    }

    async fn check_things(&self, sweep: bool) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for kind in Kind::ALL {
            let places = self.places.clone();
            for thing in blocking(move || things::list(kind, &places)).await? {
                findings.extend(self.keeper.look_at(self, thing, sweep).await?);
            }
        }
        Ok(findings)
    }

    async fn check_store(&self, command: FsckCommand) -> Result<FsckReport> {
        let options = FsckOptions { digests: !command.quick, repair: command.repair };
        let store = self.store.clone();
        let mut report = blocking(move || store.fsck(&options)).await?;
        if command.refetch && command.repair && report.findings.iter().any(|finding| finding.severity == Severity::Broken) {
            let fetched = self.refetch().await?;
            // What was broken may be whole now; what was mended stays told.
            let store = self.store.clone();
            let now = blocking(move || store.fsck(&FsckOptions { digests: false, repair: false })).await?;
            report.findings.retain(|finding| finding.remedy == REPAIRED || now.findings.contains(finding));
            report.findings.extend(fetched);
        }
        Ok(report)
    }

    /// Pulls every image anew that lacks parts: only these are transferred.
    async fn refetch(&self) -> Result<Vec<Finding>> {
        let store = self.store.clone();
        let damaged = blocking(move || store.damaged_images(NAMESPACE)).await?;
        let mut findings = Vec::new();
        for name in damaged {
            let subject = format!("image {name}");
            let pulled = match name.parse::<Reference>() {
                Ok(reference) => self.pull(reference).await,
                Err(err) => Err(err),
            };
            findings.push(match pulled {
                Ok(()) => Finding {
                    severity: Severity::Degraded,
                    subject,
                    observed: "parts of it were lost or damaged and have been fetched again".into(),
                    cost: String::new(),
                    remedy: REPAIRED.into(),
                },
                Err(err) => Finding {
                    severity: Severity::Broken,
                    subject,
                    observed: format!("its lost parts cannot be fetched: {err}"),
                    cost: "containers cannot be made of it".into(),
                    remedy: "pull or load it again".into(),
                },
            });
        }
        Ok(findings)
    }

    async fn pull(&self, reference: Reference) -> Result<()> {
        let request = PullImage { reference, platform: None, credentials: Default::default(), all_tags: false };
        self.images.pull(request).finish().await.map(drop)
    }

    /// Containers whose directory or snapshot is gone. A directory is made anew; it had nothing that a start does not write, but logs.
    async fn check_containers(&self, repair: bool) -> Result<Vec<Finding>> {
        let (store, root, alone) = (self.store.clone(), self.places.root.clone(), matches!(self.keeper, Keeper::Alone));
        let look = move || {
            let (going, staying): (Vec<Outline>, Vec<Outline>) =
                store.metadata().read(|tx| tx.list(OUTLINES))?.into_iter().map(|(_, container)| container).partition(|container| {
                    // The next manager removes it: its snapshot does not outlive a reboot.
                    alone && container.host_config.auto_remove
                });
            let mut snapshots = store.containers_without_snapshot()?;
            snapshots.retain(|(namespace, id, _)| namespace != NAMESPACE || going.iter().all(|container| container.id != *id));
            let dirs = staying.into_iter().map(|container| (root.join("containers").join(&container.id), container.id));
            Ok((dirs.filter(|(dir, _)| !dir.is_dir()).collect::<Vec<_>>(), snapshots, unreadable(&store)?))
        };
        let (dirs, snapshots, unreadable) = blocking(look).await?;
        let mut findings = Vec::new();
        for (id, why) in unreadable {
            findings.push(Finding {
                severity: Severity::Broken,
                subject: format!("container {id}"),
                observed: format!("its record is damaged: {why}"),
                cost: "it can be listed and removed, but not started or inspected".into(),
                remedy: "remove the container".into(),
            });
        }
        for (dir, id) in dirs {
            if self.keeper.is_gone(NAMESPACE, &id).await {
                continue;
            }
            let mended = repair.then(|| make_dir(&dir, 0o710));
            let observed = format!("its directory {} is gone, and with it its logs", dir.display());
            findings.push(told(Severity::Broken, format!("container {id}"), observed, "it cannot start", mended));
        }
        for (namespace, id, snapshot) in snapshots {
            if self.keeper.is_gone(&namespace, &id).await {
                continue;
            }
            findings.push(Finding {
                severity: Severity::Broken,
                subject: format!("container {id} (namespace {namespace})"),
                observed: format!("its snapshot {snapshot:?} is gone"),
                cost: "it cannot start again".into(),
                remedy: "remove the container".into(),
            });
        }
        Ok(findings)
    }

    /// Tells of a thing that nobody owns, and with `repair` removes it.
    async fn orphan(&self, thing: &Thing, repair: bool) -> Result<Finding> {
        let observed = match thing.kind {
            Kind::Cgroup => format!("no running container owns it; processes in it: {}", things::processes(&thing.path)?),
            Kind::Files => "no container owns it".into(),
            Kind::Mount => "nothing that runs needs it".into(),
            _ => "no running container owns it".into(),
        };
        let mended = if repair { Some(self.keeper.remove(self, thing).await) } else { None };
        let subject = format!("{} {}", thing.kind.name(), thing.path.display());
        Ok(told(Severity::Degraded, subject, observed, thing.kind.cost(), mended))
    }
}

/// A finding with what became of it: not tried, mended, or why not.
pub(crate) fn told(severity: Severity, subject: String, observed: String, cost: &str, mended: Option<Result<()>>) -> Finding {
    let (severity, remedy) = match mended {
        None => (severity, REPAIR.to_owned()),
        Some(Ok(())) => (severity, REPAIRED.to_owned()),
        Some(Err(err)) => (Severity::Broken, format!("it could not be repaired: {err}")),
    };
    Finding { severity, subject, observed, cost: cost.to_owned(), remedy }
}

/// Directories of containers that were just being made or removed when the last manager was cut off. The next one removes them too.
fn remove_half_made(places: &Places, store: &Store) -> Result<()> {
    for thing in things::list(Kind::Files, places)? {
        if !Keeper::Alone.is_owned(store, &thing.owner)? {
            tracing::info!(path = %thing.path.display(), "remove what an earlier manager left half-made or half-removed");
            crate::engine::remove_dir(&thing.path)?;
        }
    }
    Ok(())
}

/// Containers whose record cannot be read as a whole, and why: a start reads only a part of each.
pub(crate) fn unreadable(store: &Store) -> Result<Vec<(String, String)>> {
    store.metadata().read(|tx| {
        let mut found = Vec::new();
        for id in tx.keys(CONTAINERS, "")? {
            match tx.get(CONTAINERS, &id) {
                Err(err) if err.kind() == ErrorKind::DataLoss => found.push((id, err.message().to_owned())),
                read => drop(read?),
            }
        }
        Ok(found)
    })
}

/// Whether a container record of containerd's clients is there.
fn has_record(store: &Store, key: &rcontainerd_task::TaskKey) -> Result<bool> {
    let name = rcontainerd_store::metadata::key(&key.namespace, &key.id);
    store.metadata().read(|tx| Ok(tx.get(records::CONTAINERS, &name)?.is_some()))
}
