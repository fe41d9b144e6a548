//! The volume service: records in the database, data in `ROOT/volumes/<name>/_data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_store::Store;
use rcontainerd_store::metadata::{Durability, Table};
use rcontainerd_types::{Error, ErrorKind, Finding, Result, Severity, id};

use super::{CreateVolume, RemoveVolume, Volume};
use crate::containers::PruneReport;
use crate::engine::{make_dir, remove_dir};
use crate::events::{Event, EventKind, Events, NewEvent};
use crate::filters::Filters;
use crate::fsck::told;

const VOLUMES: Table<Volume> = Table::new("docker.volumes", 1);
const LIST_FILTERS: [&str; 5] = ["name", "label", "label!", "driver", "dangling"];
const PRUNE_FILTERS: [&str; 3] = ["all", "label", "label!"];

/// Which containers refer to which volumes: volume name → container ids. Asked afresh for each decision.
pub type References = Arc<dyn Fn() -> Result<BTreeMap<String, Vec<String>>> + Send + Sync>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Volumes {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    dir: PathBuf,
    events: Events,
    references: References,
    /// Serialises create, remove and prune: a volume in use must not vanish between the look and the deed.
    lock: tokio::sync::Mutex<()>,
}

impl Volumes {
    /// # Errors
    /// When `ROOT/volumes` cannot be made.
    pub fn open(store: Store, events: Events, references: References) -> Result<Self> {
        let dir = store.root().join("volumes");
        make_dir(&dir, 0o711)?;
        let inner = Inner { store, dir, events, references, lock: tokio::sync::Mutex::new(()) };
        inner.finish_what_was_begun()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The volume of that name if it exists already.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed name, `Unsupported` for a driver or option that is not ours.
    pub async fn create(&self, command: CreateVolume) -> Result<Volume> {
        let _guard = self.inner.lock.lock().await;
        self.blocking(move |inner| inner.create(command)).await
    }

    /// # Errors
    /// `NotFound` (`get x: no such volume`).
    pub async fn inspect(&self, name: &str) -> Result<Volume> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.get(&name)).await
    }

    /// By name; filters `name`, `label`, `driver`, `dangling`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn list(&self, filters: Filters) -> Result<Vec<Volume>> {
        filters.accept(&LIST_FILTERS)?;
        let dangling = filters.flag("dangling")?;
        self.blocking(move |inner| {
            let used = (inner.references)()?;
            let wanted = |volume: &Volume| {
                filters.patterns("name").hold(&volume.name)
                    && filters.any("driver", |driver| volume.driver == driver)
                    && filters.labels(&volume.labels)
                    && dangling.is_none_or(|dangling| dangling != used.contains_key(&volume.name))
            };
            Ok(inner.all()?.into_iter().filter(wanted).collect())
        })
        .await
    }

    /// # Errors
    /// `NotFound`; `Conflict` while a container refers to it.
    pub async fn remove(&self, command: RemoveVolume) -> Result<()> {
        let _guard = self.inner.lock.lock().await;
        self.blocking(move |inner| inner.remove(&command)).await
    }

    /// Removes unused anonymous volumes, with filter `all=true` named ones too.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn prune(&self, filters: Filters) -> Result<PruneReport> {
        filters.accept(&PRUNE_FILTERS)?;
        let all = filters.flag("all")?.unwrap_or(false);
        let _guard = self.inner.lock.lock().await;
        self.blocking(move |inner| {
            let used = (inner.references)()?;
            let goes = |volume: &Volume| (all || volume.anonymous) && !used.contains_key(&volume.name) && filters.labels(&volume.labels);
            let mut report = PruneReport::default();
            for volume in inner.all()?.into_iter().filter(goes) {
                report.space_reclaimed += disk_usage(&volume.mountpoint);
                inner.destroy(&volume)?;
                report.deleted.push(volume.name);
            }
            Ok(report)
        })
        .await
    }

    /// Remembers that the image's files were copied in, or that a container has used it without.
    ///
    /// # Errors
    /// `NotFound`, or those of the database.
    pub async fn mark_populated(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |inner| {
            let mut volume = inner.get(&name)?;
            volume.populated = true;
            inner.store.metadata().write(|tx| tx.put(VOLUMES, &name, &volume))
        })
        .await
    }

    /// Records against directories. Data without a record becomes a volume again; a volume without data gets an empty directory.
    pub(crate) async fn check(&self, repair: bool) -> Result<Vec<Finding>> {
        let _guard = self.inner.lock.lock().await;
        self.blocking(move |inner| inner.check(repair)).await
    }

    /// Bytes on disk of a volume.
    pub async fn usage(&self, volume: &Volume) -> Result<u64> {
        let path = volume.mountpoint.clone();
        self.blocking(move |_| Ok(disk_usage(&path))).await
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.inner.clone();
        let joined = tokio::task::spawn_blocking(move || work(&inner)).await;
        joined.map_err(|err| Error::internal(format!("volume work was cut off: {err}")))?
    }
}

impl Inner {
    fn create(&self, command: CreateVolume) -> Result<Volume> {
        if !matches!(command.driver.as_str(), "" | "local") {
            return Err(Error::not_found(format!("error looking up volume plugin {0}: plugin \"{0}\" not found", command.driver)));
        }
        if let Some(key) = command.driver_options.keys().next() {
            return Err(Error::unsupported(format!("volume driver option {key:?} is not supported yet; bind-mount the directory instead")));
        }
        let anonymous = command.name.is_empty();
        let name = if anonymous { id::generate()? } else { command.name };
        crate::names::validate_volume(&name)?;
        if let Some(volume) = self.store.metadata().read(|tx| tx.get(VOLUMES, &name))? {
            return Ok(volume);
        }
        let mountpoint = self.dir.join(&name).join("_data");
        let volume = Volume {
            name,
            driver: "local".into(),
            mountpoint,
            created: Timestamp::now(),
            labels: command.labels,
            driver_options: BTreeMap::new(),
            anonymous,
            populated: false,
        };
        let recorded = self.make(&volume).inspect_err(|_| {
            // On a full disk a transaction that failed may be found committed when the database can be read again.
            if self.get(&volume.name).is_err_and(|err| err.kind() == ErrorKind::NotFound) {
                self.unmake(&volume.name);
            }
        })?;
        self.events.publish(recorded);
        Ok(volume)
    }

    fn make(&self, volume: &Volume) -> Result<Event> {
        let dir = self.dir.join(&volume.name);
        make_dir(&dir, 0o701)?;
        make_dir(&volume.mountpoint, 0o755)?;
        self.store.metadata().write(|tx| {
            tx.names_directory(&dir);
            tx.names_directory(&volume.mountpoint);
            tx.put(VOLUMES, &volume.name, volume)?;
            self.events.record(tx, event("create", &volume.name))
        })
    }

    /// Removes the directory of a volume that has no record, if nothing is in it: data without a record is fsck's to adopt.
    fn unmake(&self, name: &str) {
        drop(fs::remove_dir(self.dir.join(name).join("_data")));
        drop(fs::remove_dir(self.dir.join(name)));
    }

    fn get(&self, name: &str) -> Result<Volume> {
        let found = self.store.metadata().read(|tx| tx.get(VOLUMES, name))?;
        found.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }

    fn all(&self) -> Result<Vec<Volume>> {
        Ok(self.store.metadata().read(|tx| tx.list(VOLUMES))?.into_iter().map(|(_, volume)| volume).collect())
    }

    fn remove(&self, command: &RemoveVolume) -> Result<()> {
        let volume = match self.get(&command.name) {
            Err(err) if err.kind() == ErrorKind::NotFound && command.force => return Ok(()),
            other => other?,
        };
        if let Some(users) = (self.references)()?.get(&volume.name) {
            return Err(Error::conflict(format!("remove {}: volume is in use - [{}]", volume.name, users.join(", "))));
        }
        self.destroy(&volume)
    }

    fn check(&self, repair: bool) -> Result<Vec<Finding>> {
        // On a full disk a removal may not even be taken back.
        self.finish_what_was_begun()?;
        let volumes = self.all()?;
        let mut findings = Vec::new();
        for volume in volumes.iter().filter(|volume| !volume.mountpoint.is_dir()) {
            let mended = repair.then(|| make_dir(&self.dir.join(&volume.name), 0o701).and_then(|()| make_dir(&volume.mountpoint, 0o755)));
            let observed = format!("its directory {} is gone", volume.mountpoint.display());
            findings.push(told(Severity::Broken, format!("volume {}", volume.name), observed, "its data is lost", mended));
        }
        let known: BTreeSet<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        for entry in fs::read_dir(&self.dir).map_err(|err| Error::io(format!("read {}", self.dir.display()), err))? {
            let name = entry.map_err(|err| Error::io(format!("read {}", self.dir.display()), err))?.file_name();
            let name = name.to_string_lossy();
            if known.contains(name.as_ref()) {
                continue;
            }
            let adopted = repair.then(|| self.create(CreateVolume { name: name.as_ref().to_owned(), ..CreateVolume::default() }).map(drop));
            let subject = format!("volume {name}");
            findings.push(told(Severity::Degraded, subject, "its data has no record".into(), "no container can use it", adopted));
        }
        Ok(findings)
    }

    /// The data goes out of the way as a whole first: a volume is never half removed, whenever the manager is killed.
    fn destroy(&self, volume: &Volume) -> Result<()> {
        let (dir, doomed) = (self.dir.join(&volume.name), self.dir.join(format!("{DOOMED}{}", volume.name)));
        // Of the same name, from a removal that could not be finished.
        remove_dir(&doomed)?;
        match fs::rename(&dir, &doomed) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(format!("remove {}", dir.display()), err)),
            _ => sync_dir(&self.dir)?,
        }
        if let Err(err) = self.forget(&volume.name) {
            // On a full disk a transaction that failed may be found committed when the database can be read again.
            if !self.get(&volume.name).is_err_and(|err| err.kind() == ErrorKind::NotFound) {
                fs::rename(&doomed, &dir).map_err(|err| Error::io(format!("put {} back", dir.display()), err))?;
            }
            return Err(err);
        }
        remove_dir(&doomed)
    }

    fn forget(&self, name: &str) -> Result<()> {
        let recorded = self.store.metadata().write_freeing(Durability::Immediate, |tx| {
            tx.delete(VOLUMES, name)?;
            self.events.record(tx, event("destroy", name))
        })?;
        self.events.publish(recorded);
        Ok(())
    }

    /// A manager that was killed may have left a removal half done, or the empty directory of a volume that was never recorded.
    fn finish_what_was_begun(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(|err| Error::io(format!("read {}", self.dir.display()), err))? {
            let entry = entry.map_err(|err| Error::io(format!("read {}", self.dir.display()), err))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let known = |name: &str| self.store.metadata().read(|tx| Ok(tx.get(VOLUMES, name)?.is_some()));
            if let Some(doomed) = name.strip_prefix(DOOMED) {
                if known(doomed)? && !self.dir.join(doomed).exists() {
                    self.forget(doomed)?;
                }
                remove_dir(&entry.path())?;
            } else if !known(name)? {
                self.unmake(name);
            }
        }
        Ok(())
    }
}

/// No volume's name begins like this.
const DOOMED: &str = ".removed-";

fn event(action: &str, name: &str) -> NewEvent {
    let attributes = BTreeMap::from([("driver".into(), "local".into())]);
    NewEvent { kind: EventKind::Volume, action: action.into(), actor: name.into(), attributes }
}

/// Names in a directory outlive a power loss before a record tells of them.
fn sync_dir(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(|err| Error::io(format!("sync {}", path.display()), err))
}

/// Bytes of blocks below `path`, as du(1) counts; hard links once. What vanishes meanwhile counts nothing.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut seen = std::collections::BTreeSet::new();
    let mut pending = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(path) = pending.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.nlink() > 1 && !found.is_dir() && !seen.insert((found.dev(), found.ino())) {
            continue;
        }
        bytes += found.blocks() * 512;
        if found.is_dir() {
            pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        _dir: tempfile::TempDir,
        volumes: Volumes,
        used: Arc<std::sync::Mutex<BTreeMap<String, Vec<String>>>>,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::open(dir.path()).expect("store");
        let events = Events::open(&store).expect("events");
        let used = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
        let shared = used.clone();
        let references: References = Arc::new(move || Ok(shared.lock().expect("lock").clone()));
        Bench { _dir: dir, volumes: Volumes::open(store, events, references).expect("volumes"), used }
    }

    fn named(name: &str) -> CreateVolume {
        CreateVolume { name: name.into(), ..CreateVolume::default() }
    }

    #[tokio::test]
    async fn a_volume_in_use_stays_and_goes_when_free() {
        let bench = bench();
        let volume = bench.volumes.create(named("data")).await.expect("create");
        assert_eq!(bench.volumes.create(named("data")).await.expect("again"), volume);
        bench.used.lock().expect("lock").insert("data".into(), vec!["c1".into()]);
        let err = bench.volumes.remove(RemoveVolume { name: "data".into(), force: true }).await.expect_err("in use");
        assert_eq!((err.kind(), err.message()), (ErrorKind::Conflict, "remove data: volume is in use - [c1]"));
        bench.used.lock().expect("lock").clear();
        bench.volumes.remove(RemoveVolume { name: "data".into(), force: false }).await.expect("remove");
        assert!(!volume.mountpoint.exists());
        assert_eq!(bench.volumes.inspect("data").await.expect_err("gone").message(), "get data: no such volume");
    }

    #[tokio::test]
    async fn prune_takes_anonymous_ones_unless_told_all() {
        let bench = bench();
        bench.volumes.create(named("kept")).await.expect("create");
        let anonymous = bench.volumes.create(named("")).await.expect("create");
        assert_eq!(bench.volumes.prune(Filters::default()).await.expect("prune").deleted, [anonymous.name]);
        let all = Filters(BTreeMap::from([("all".into(), vec!["true".into()])]));
        assert_eq!(bench.volumes.prune(all).await.expect("prune").deleted, ["kept"]);
    }

    #[tokio::test]
    async fn what_a_killed_manager_was_about_is_finished_and_data_stays() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::open(dir.path()).expect("store");
        let open = || {
            let references: References = Arc::new(|| Ok(BTreeMap::new()));
            Volumes::open(store.clone(), Events::open(&store).expect("events"), references).expect("volumes")
        };
        let volumes = open();
        for name in ["whole", "going", "again"] {
            let volume = volumes.create(named(name)).await.expect("create");
            fs::write(volume.mountpoint.join("file"), name).expect("write");
        }
        let at = |name: &str| dir.path().join("volumes").join(name);
        // Killed behind the rename; behind the record, and the name made anew since; before a record was written, without and with data.
        fs::rename(at("going"), at(".removed-going")).expect("rename");
        fs::create_dir_all(at(".removed-again/_data")).expect("make");
        fs::create_dir_all(at("never/_data")).expect("make");
        fs::create_dir_all(at("data/_data/kept")).expect("make");
        let names = |volumes: Vec<Volume>| volumes.into_iter().map(|volume| volume.name).collect::<Vec<_>>();
        let volumes = open();
        assert_eq!(names(volumes.list(Filters::default()).await.expect("list")), ["again", "whole"]);
        let mut left: Vec<_> = fs::read_dir(at("")).expect("read").map(|entry| entry.expect("entry").file_name()).collect();
        left.sort();
        assert_eq!(left, ["again", "data", "whole"]);
        assert_eq!(fs::read_to_string(at("again/_data/file")).expect("data"), "again");
    }

    #[tokio::test]
    async fn names_that_leave_the_directory_are_refused() {
        let bench = bench();
        for bad in ["..", "a/b", "/x", ".a", "a b", "x"] {
            assert!(bench.volumes.create(named(bad)).await.is_err(), "{bad:?} should be refused");
        }
    }
}
