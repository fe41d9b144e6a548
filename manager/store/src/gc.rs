//! Garbage collection by reference: what no image, container, lease or `gc.root` label leads to, and no one has touched lately.
//!
//! ```text
//! image → target → (documents' children, containerd.io/gc.ref.content*) → config → its layers' snapshots (ChainIDs)
//! container → snapshot → parent …      lease → content, snapshots, ingests      gc.ref.snapshot.<snapshotter>* → snapshot
//! whatever a blob or snapshot names by gc.bref.* → that blob or snapshot
//! ```
//! Labels count in their own namespace only. A lease or an image whose `gc.expire` has passed keeps nothing; such an image goes.
//! What has just arrived and is not referenced yet is kept for a grace period; a pull holds a lease besides.
//!
//! Marking reads one view of the database while others write. The sweep goes in short transactions, and each looks first at what has
//! changed since the last look ([`Metadata::touched_before`]): it is kept with all that it leads to. So whatever took a reference while
//! the collection ran has it, and nobody waits for a walk over the whole store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use rcontainerd_types::{Digest, Error, ErrorKind, Result};

use crate::content::{CONTENT, ContentRecord};
use crate::descriptor::Descriptor;
use crate::image::{DOCUMENT_MAX, Document, diff_ids, is_document};
use crate::metadata::{Durability, Followed, Labels, Metadata, ReadTx, Touched, WriteTx};
use crate::records::{CONTAINER_LINKS, ContainerLinks, IMAGES, ImageRecord, LEASES, LeaseRecord};
use crate::snapshot::{Removal, SNAPSHOTS, SnapshotRecord};
use crate::store::Store;
use crate::unpack::{IN_PROGRESS, chain_ids};

const ROOT_LABEL: &str = "containerd.io/gc.root";
const CONTENT_LABEL: &str = "containerd.io/gc.ref.content";
const SNAPSHOT_LABEL: &str = "containerd.io/gc.ref.snapshot.";
pub(crate) const EXPIRE_LABEL: &str = "containerd.io/gc.expire";
/// Of a lease: what it names is kept, not what that leads to.
const FLAT_LABEL: &str = "containerd.io/gc.flat";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// What was made or changed so recently is kept, referenced or not.
    pub grace: Duration,
    /// The only namespace that the grace is for; `None`: all. Clients of containerd hold what they need by leases and count on the rest to
    /// go at once.
    pub graced: Option<&'static str>,
    /// Unfinished ingests that nothing was added to for so long are thrown away.
    pub ingest_age: Duration,
    /// Only tell.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { grace: Duration::from_secs(3600), graced: None, ingest_age: Duration::from_secs(7 * 24 * 3600), dry_run: false }
    }
}

/// What went (or would go).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// (namespace, digest)
    pub content: Vec<(String, Digest)>,
    /// (snapshotter, namespace, key)
    pub snapshots: Vec<(String, String, String)>,
    /// (namespace, ingest key)
    pub ingests: Vec<(String, String)>,
    /// Bytes given back by blobs; a blob that another namespace still sees does not count.
    pub content_bytes: u64,
    /// Bytes given back by committed snapshots.
    pub snapshot_bytes: u64,
}

/// What of the unreferenced is meant.
struct Choice<'a> {
    /// Namespace and last change: counts as referenced.
    fresh: &'a dyn Fn(&str, Timestamp) -> bool,
    content: &'a dyn Fn(&str, &Digest) -> bool,
    /// By full key.
    snapshot: &'a dyn Fn(&str) -> bool,
    dry_run: bool,
}

/// Records that one transaction of the sweep removes: what another writer waits for it at most.
const STEP: usize = 256;
/// How often a collection begins anew because more has changed than is remembered.
const ATTEMPTS: usize = 3;

/// What a transaction has let go of, and what is to be removed from disk therefore.
#[derive(Default)]
struct Swept {
    report: GcReport,
    files: Vec<Digest>,
    dirs: Vec<Removal>,
}

/// Something that may go, in the order of going.
enum Candidate {
    /// By full key. Children before their parents.
    Snapshot(String),
    Content(String, Digest),
}

/// Everything that can be collected or refer to something.
#[derive(Default)]
struct State {
    content: BTreeMap<(String, Digest), ContentRecord>,
    /// By full key, `<snapshotter>/<namespace>/<key>`.
    snapshots: BTreeMap<String, SnapshotRecord>,
    /// What is kept because something else is, which does not know of it.
    back: BTreeMap<Node, Vec<Node>>,
    roots: Roots,
}

/// By full key: all of them, or those that have changed.
#[derive(Default)]
struct Roots {
    images: Vec<(String, ImageRecord)>,
    containers: Vec<(String, ContainerLinks)>,
    leases: Vec<(String, LeaseRecord)>,
}

/// What can be referred to, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Content(String, Digest),
    /// By full key.
    Snapshot(String),
    Image(String, String),
    Container(String, String),
}

#[derive(Default)]
struct Marks {
    content: BTreeSet<(String, Digest)>,
    snapshots: BTreeSet<String>,
    /// Kept for themselves alone: what they lead to may go.
    flat_content: BTreeSet<(String, Digest)>,
    flat_snapshots: BTreeSet<String>,
}

impl Marks {
    fn keep_content(&self, key: &(String, Digest)) -> bool {
        self.content.contains(key) || self.flat_content.contains(key)
    }

    fn keep_snapshot(&self, full_key: &str) -> bool {
        self.snapshots.contains(full_key) || self.flat_snapshots.contains(full_key)
    }
}

impl Store {
    /// Collects in all namespaces, and takes back from the database what it no longer needs.
    ///
    /// # Errors
    /// `DataLoss` when a document that decides what is referenced cannot be read (then nothing is removed: `fsck` first).
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        let since = Timestamp::now().checked_sub(options.grace).unwrap_or(Timestamp::MIN);
        let fresh = |namespace: &str, updated: Timestamp| updated >= since && options.graced.is_none_or(|graced| graced == namespace);
        let all = Choice { fresh: &fresh, content: &|_, _| true, snapshot: &|_| true, dry_run: options.dry_run };
        let mut report = self.sweep(&all)?;
        report.ingests = self.stale_ingests(options.ingest_age, options.dry_run, &|_| true)?;
        if !options.dry_run {
            self.metadata().compact_if_wasteful()?;
        }
        Ok(report)
    }

    /// As [`Self::gc`], and of `namespace` as [`Self::gc_namespace`]: for a start, when what an earlier process was just making there is of
    /// no use to anybody. One walk for both.
    ///
    /// # Errors
    /// As [`Self::gc`].
    pub fn gc_at_start(&self, namespace: &str, options: &GcOptions) -> Result<GcReport> {
        let since = Timestamp::now().checked_sub(options.grace).unwrap_or(Timestamp::MIN);
        let fresh = |other: &str, updated: Timestamp| other != namespace && updated >= since;
        let mut report = self.sweep(&Choice { fresh: &fresh, content: &|_, _| true, snapshot: &|_| true, dry_run: options.dry_run })?;
        report.ingests = self.stale_ingests(Duration::ZERO, options.dry_run, &|other| other == namespace)?;
        report.ingests.extend(self.stale_ingests(options.ingest_age, options.dry_run, &|other| other != namespace)?);
        if !options.dry_run {
            self.metadata().compact_if_wasteful()?;
        }
        Ok(report)
    }

    /// Collects all that nothing refers to in one namespace, however fresh, unfinished ingests without a writer too.
    ///
    /// # Errors
    /// As [`Self::gc`].
    pub fn gc_namespace(&self, namespace: &str, dry_run: bool) -> Result<GcReport> {
        let of_namespace = |full_key: &str| full_key.split('/').nth(1) == Some(namespace);
        let here = Choice { fresh: &|_, _| false, content: &|other, _| other == namespace, snapshot: &of_namespace, dry_run };
        let mut report = self.sweep(&here)?;
        report.ingests = self.stale_ingests(Duration::ZERO, dry_run, &|other| other == namespace)?;
        Ok(report)
    }

    /// Collects of what a lease held that which nothing else refers to, however fresh.
    ///
    /// # Errors
    /// As [`Self::gc`].
    pub fn gc_held(&self, namespace: &str, held: &LeaseRecord) -> Result<GcReport> {
        let keys =
            held.snapshots.iter().flat_map(|(snapshotter, keys)| keys.iter().map(move |key| format!("{snapshotter}/{namespace}/{key}")));
        let snapshots: BTreeSet<String> = keys.collect();
        let content: BTreeSet<&Digest> = held.content.iter().collect();
        self.sweep(&Choice {
            fresh: &|_, _| false,
            content: &|other, digest| other == namespace && content.contains(digest),
            snapshot: &|full_key| snapshots.contains(full_key),
            dry_run: false,
        })
    }

    /// Removes what is chosen of what is not marked.
    fn sweep(&self, choice: &Choice<'_>) -> Result<GcReport> {
        for _ in 0..ATTEMPTS {
            let (state, since) = self.metadata().read_since(None, |tx, _| State::read(tx))?;
            let marks = self.marker(&state, Marks::default(), false).run(choice.fresh)?;
            let candidates = state.candidates(&marks, choice);
            if choice.dry_run {
                return state.foretell(candidates);
            }
            if let Some(report) = (Sweep { store: self, state, marks, since, report: GcReport::default() }).run(&candidates)? {
                return Ok(report);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the store changes faster than garbage can be told from what is needed: try again later"))
    }

    fn marker<'a>(&'a self, state: &'a State, marks: Marks, is_current: bool) -> Marker<'a> {
        Marker { store: self, state, marks, is_current }
    }

    fn snapshot_dir(&self, full_key: &str, number: u64) -> Option<Removal> {
        let name = full_key.split('/').next()?;
        let backend = self.backends().iter().find(|backend| backend.name() == name)?;
        Some(Removal::new(backend.hold(number)))
    }

    fn stale_ingests(&self, age: Duration, dry_run: bool, chosen: &dyn Fn(&str) -> bool) -> Result<Vec<(String, String)>> {
        let before = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
        let held: BTreeSet<(String, String)> = self.metadata().read(|tx| {
            let leases = tx.list(LEASES)?.into_iter().filter(|(_, lease)| lease.counts(Timestamp::now()));
            Ok(leases.flat_map(|(key, lease)| lease.ingests.into_iter().map(move |ingest| (namespace_of(&key), ingest))).collect())
        })?;
        let mut stale = Vec::new();
        for (namespace, status) in self.content_files().all_ingests()? {
            let name = (namespace, status.key);
            if !chosen(&name.0) || status.updated >= before || held.contains(&name) {
                continue;
            }
            let removed = if dry_run { Ok(()) } else { self.content(&name.0).abort(&name.1) };
            match removed {
                Ok(()) => stale.push(name),
                // It has a writer after all, or has become a blob.
                Err(err) if matches!(err.kind(), ErrorKind::Unavailable | ErrorKind::NotFound) => {}
                Err(err) => return Err(err),
            }
        }
        Ok(stale)
    }
}

/// Whether containerd's date of expiry is there and has passed.
pub(crate) fn is_expired(labels: &Labels, now: Timestamp) -> bool {
    labels.get(EXPIRE_LABEL).and_then(|text| text.parse::<Timestamp>().ok()).is_some_and(|end| end <= now)
}

fn namespace_of(key: &str) -> String {
    key.split('/').next().unwrap_or_default().to_owned()
}

pub(crate) fn split_snapshot_key(full_key: &str) -> Result<(String, String, String)> {
    let mut parts = full_key.splitn(3, '/').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(snapshotter), Some(namespace), Some(key)) => Ok((snapshotter, namespace, key)),
        _ => Err(Error::new(ErrorKind::DataLoss, format!("snapshot record {full_key:?} has a malformed key"))),
    }
}

/// A collection that has marked, and now removes step by step.
struct Sweep<'a> {
    store: &'a Store,
    state: State,
    marks: Marks,
    /// Changes up to here are in `state` and `marks`.
    since: Followed,
    report: GcReport,
}

impl Sweep<'_> {
    /// `None`: more has changed than is remembered; what has gone until then was garbage all the same.
    fn run(mut self, candidates: &[Candidate]) -> Result<Option<GcReport>> {
        let metadata = self.store.metadata();
        if self.state.roots.images.iter().any(|(_, image)| is_expired(&image.labels, Timestamp::now())) {
            metadata.write_freeing(Durability::Immediate, drop_expired)?;
        }
        for step in candidates.chunks(STEP) {
            let files = self.store.content_files();
            let mut publishing = files.hold_publishing();
            let swept = metadata.write_freeing(Durability::Immediate, |tx| self.step(metadata, tx, step))?;
            let Some(swept) = swept else { return Ok(None) };
            swept.files.into_iter().for_each(|digest| files.unlink(&mut publishing, digest));
            drop(publishing);
            swept.dirs.into_iter().for_each(Removal::finish);
            self.report.add(swept.report);
        }
        Ok(Some(self.report))
    }

    fn step(&mut self, metadata: &Metadata, tx: &WriteTx<'_>, candidates: &[Candidate]) -> Result<Option<Swept>> {
        let (touched, now) = metadata.touched_before(tx, self.since)?;
        let Some(touched) = touched else { return Ok(None) };
        let fresh = self.state.follow(tx, &touched)?;
        self.marks = self.store.marker(&self.state, std::mem::take(&mut self.marks), true).run_changed(&fresh)?;
        self.since = now;
        let mut swept = Swept::default();
        for candidate in candidates {
            match candidate {
                Candidate::Snapshot(full_key) => self.snapshot(tx, full_key, &mut swept)?,
                Candidate::Content(namespace, digest) => self.content(tx, namespace, digest, &mut swept)?,
            }
        }
        Ok(Some(swept))
    }

    fn snapshot(&self, tx: &WriteTx<'_>, full_key: &str, swept: &mut Swept) -> Result<()> {
        let Some(record) = self.state.snapshots.get(full_key).filter(|_| !self.marks.keep_snapshot(full_key)) else { return Ok(()) };
        swept.report.snapshot_bytes += record.usage.map_or(0, |usage| usage.size);
        swept.report.snapshots.push(split_snapshot_key(full_key)?);
        tx.delete(SNAPSHOTS, full_key)?;
        swept.dirs.extend(self.store.snapshot_dir(full_key, record.dir));
        Ok(())
    }

    fn content(&self, tx: &WriteTx<'_>, namespace: &str, digest: &Digest, swept: &mut Swept) -> Result<()> {
        let key = (namespace.to_owned(), digest.clone());
        let Some(record) = self.state.content.get(&key).filter(|_| !self.marks.keep_content(&key)) else { return Ok(()) };
        if self.store.content(namespace).delete_in(tx, digest)? {
            swept.report.content_bytes += record.size;
            swept.files.push(digest.clone());
        }
        swept.report.content.push(key);
        Ok(())
    }
}

fn drop_expired(tx: &WriteTx<'_>) -> Result<()> {
    for (key, _) in tx.list(IMAGES)?.into_iter().filter(|(_, image)| is_expired(&image.labels, Timestamp::now())) {
        tx.delete(IMAGES, &key)?;
    }
    Ok(())
}

impl GcReport {
    /// Given back by blobs and layers.
    pub fn bytes(&self) -> u64 {
        self.content_bytes + self.snapshot_bytes
    }

    fn add(&mut self, more: Self) {
        self.content.extend(more.content);
        self.snapshots.extend(more.snapshots);
        self.ingests.extend(more.ingests);
        self.content_bytes += more.content_bytes;
        self.snapshot_bytes += more.snapshot_bytes;
    }
}

impl State {
    fn read(tx: &ReadTx<'_>) -> Result<Self> {
        let mut content = BTreeMap::new();
        for (key, record) in tx.list(CONTENT)? {
            content.insert(split_content_key(&key)?, record);
        }
        let snapshots: BTreeMap<String, SnapshotRecord> = tx.list(SNAPSHOTS)?.into_iter().collect();
        let roots = Roots { images: tx.list(IMAGES)?, containers: tx.list(CONTAINER_LINKS)?, leases: tx.list(LEASES)? };
        let mut state = Self { content, snapshots, back: BTreeMap::new(), roots };
        state.refer_back();
        Ok(state)
    }

    fn refer_back(&mut self) {
        self.back.clear();
        let of_content = self.content.iter().map(|((namespace, digest), record)| {
            let child = Node::Content(namespace.clone(), digest.clone());
            (child, namespace.as_str(), &record.labels)
        });
        let of_snapshots = self.snapshots.iter().map(|(full_key, record)| {
            let namespace = full_key.split('/').nth(1).unwrap_or_default();
            (Node::Snapshot(full_key.clone()), namespace, &record.labels)
        });
        for (child, namespace, labels) in of_content.chain(of_snapshots) {
            for parent in labels.iter().filter_map(|(label, value)| back_reference(namespace, label, value)) {
                self.back.entry(parent).or_default().push(child.clone());
            }
        }
    }

    /// Takes over what has changed; gives the roots and things that did, and are there.
    fn follow(&mut self, tx: &WriteTx<'_>, touched: &[Touched]) -> Result<Changed> {
        let mut changed = Changed::default();
        for Touched { table, key } in touched {
            if *table == IMAGES.name() {
                changed.roots.images.extend(tx.get(IMAGES, key)?.map(|record| (key.clone(), record)));
            } else if *table == CONTAINER_LINKS.name() {
                changed.roots.containers.extend(tx.get(CONTAINER_LINKS, key)?.map(|record| (key.clone(), record)));
            } else if *table == LEASES.name() {
                changed.roots.leases.extend(tx.get(LEASES, key)?.map(|record| (key.clone(), record)));
            } else if *table == CONTENT.name() {
                let name = split_content_key(key)?;
                match tx.get(CONTENT, key)? {
                    Some(record) => {
                        self.content.insert(name.clone(), record);
                        changed.content.push(name);
                    }
                    None => drop(self.content.remove(&name)),
                }
            } else if *table == SNAPSHOTS.name() {
                match tx.get(SNAPSHOTS, key)? {
                    Some(record) => {
                        self.snapshots.insert(key.clone(), record);
                        changed.snapshots.push(key.clone());
                    }
                    None => drop(self.snapshots.remove(key)),
                }
            }
        }
        if !(changed.content.is_empty() && changed.snapshots.is_empty()) {
            self.refer_back();
        }
        Ok(changed)
    }

    fn candidates(&self, marks: &Marks, choice: &Choice<'_>) -> Vec<Candidate> {
        let mut candidates = self.removable(marks, choice.snapshot);
        let unmarked = self.content.keys().filter(|key| !marks.keep_content(key));
        let chosen = unmarked.filter(|(namespace, digest)| (choice.content)(namespace, digest));
        candidates.extend(chosen.map(|(namespace, digest)| Candidate::Content(namespace.clone(), digest.clone())));
        candidates
    }

    /// What a sweep would tell.
    fn foretell(&self, candidates: Vec<Candidate>) -> Result<GcReport> {
        let mut report = GcReport::default();
        let mut seen: BTreeMap<&Digest, usize> = BTreeMap::new();
        for (_, digest) in self.content.keys() {
            *seen.entry(digest).or_default() += 1;
        }
        for candidate in candidates {
            match candidate {
                Candidate::Snapshot(full_key) => {
                    let usage = self.snapshots.get(&full_key).and_then(|record| record.usage);
                    report.snapshot_bytes += usage.map_or(0, |usage| usage.size);
                    report.snapshots.push(split_snapshot_key(&full_key)?);
                }
                Candidate::Content(namespace, digest) => {
                    if seen.get(&digest) == Some(&1) {
                        report.content_bytes += self.content.get(&(namespace.clone(), digest.clone())).map_or(0, |record| record.size);
                    }
                    report.content.push((namespace, digest));
                }
            }
        }
        Ok(report)
    }

    /// The snapshots that are chosen and not marked, children first. A parent stays with a child that stays.
    fn removable(&self, marks: &Marks, chosen: &dyn Fn(&str) -> bool) -> Vec<Candidate> {
        let mut children: HashMap<String, usize> = HashMap::new();
        for parent in self.snapshots.iter().filter_map(|(key, record)| parent_key(key, record)) {
            *children.entry(parent).or_default() += 1;
        }
        let may_go = |key: &str| !marks.keep_snapshot(key) && chosen(key);
        let childless = |key: &String| !children.contains_key(key);
        let mut todo: Vec<String> = self.snapshots.keys().filter(|key| may_go(key) && childless(key)).cloned().collect();
        let mut going = Vec::new();
        while let Some(key) = todo.pop() {
            if let Some(parent) = self.snapshots.get(&key).and_then(|record| parent_key(&key, record))
                && let Some(left) = children.get_mut(&parent)
            {
                *left -= 1;
                if *left == 0 && may_go(&parent) && self.snapshots.contains_key(&parent) {
                    todo.push(parent);
                }
            }
            going.push(Candidate::Snapshot(key));
        }
        going
    }
}

/// What has changed since marks were made.
#[derive(Default)]
struct Changed {
    roots: Roots,
    content: Vec<(String, Digest)>,
    /// By full key.
    snapshots: Vec<String>,
}

fn split_content_key(key: &str) -> Result<(String, Digest)> {
    let (namespace, digest) = key.split_once('/').unwrap_or_default();
    Ok((namespace.to_owned(), digest.parse()?))
}

/// What a label says that its owner is kept for: `containerd.io/gc.bref.<kind>`, with a suffix after `.` or `/`.
fn back_reference(namespace: &str, label: &str, value: &str) -> Option<Node> {
    let mut parts = label.strip_prefix("containerd.io/gc.bref.")?.split(['.', '/']);
    let namespace = namespace.to_owned();
    match parts.next()? {
        "content" => Some(Node::Content(namespace, value.parse().ok()?)),
        "image" => Some(Node::Image(namespace, value.to_owned())),
        "container" => Some(Node::Container(namespace, value.to_owned())),
        "snapshot" => Some(Node::Snapshot(format!("{}/{namespace}/{value}", parts.next()?))),
        _ => None,
    }
}

/// The full key of a snapshot's parent.
fn parent_key(full_key: &str, record: &SnapshotRecord) -> Option<String> {
    let (of_namespace, _) = full_key.match_indices('/').nth(1).map(|(at, _)| full_key.split_at(at))?;
    record.parent.as_ref().map(|parent| format!("{of_namespace}/{parent}"))
}

struct Marker<'a> {
    store: &'a Store,
    state: &'a State,
    marks: Marks,
    /// Within a write transaction: nobody changes anything beside it.
    is_current: bool,
}

impl Marker<'_> {
    fn run(mut self, fresh: &dyn Fn(&str, Timestamp) -> bool) -> Result<Marks> {
        self.roots(&self.state.roots)?;
        for ((namespace, digest), record) in &self.state.content {
            if fresh(namespace, record.updated) || record.labels.contains_key(ROOT_LABEL) {
                self.content(namespace, digest)?;
            }
        }
        for (full_key, record) in &self.state.snapshots {
            let namespace = full_key.split('/').nth(1).unwrap_or_default();
            // What a layer is being unpacked into is its unpacker's; after a crash it is gone at the next open.
            let held = [ROOT_LABEL, IN_PROGRESS].iter().any(|label| record.labels.contains_key(*label));
            if fresh(namespace, record.updated) || held {
                self.snapshot(full_key)?;
            }
        }
        Ok(self.marks)
    }

    /// Marks what has changed, with all that it leads to now.
    fn run_changed(mut self, changed: &Changed) -> Result<Marks> {
        for (namespace, digest) in &changed.content {
            self.marks.content.remove(&(namespace.clone(), digest.clone()));
            self.content(namespace, digest)?;
        }
        for full_key in &changed.snapshots {
            self.marks.snapshots.remove(full_key);
            self.snapshot(full_key)?;
        }
        self.roots(&changed.roots)?;
        Ok(self.marks)
    }

    fn roots(&mut self, roots: &Roots) -> Result<()> {
        let now = Timestamp::now();
        for (key, image) in roots.images.iter().filter(|(_, image)| !is_expired(&image.labels, now)) {
            let namespace = namespace_of(key);
            self.descriptor(&namespace, &image.target)?;
            self.labels(&namespace, &image.labels)?;
            self.kept_for(&Node::Image(namespace, image.name.clone()))?;
        }
        for (key, container) in &roots.containers {
            let namespace = namespace_of(key);
            self.snapshot(&format!("{}/{namespace}/{}", container.snapshotter, container.snapshot_key))?;
            self.labels(&namespace, &container.labels)?;
            self.kept_for(&Node::Container(namespace, container.id.clone()))?;
        }
        for (key, lease) in roots.leases.iter().filter(|(_, lease)| lease.counts(now)) {
            self.lease(&namespace_of(key), lease)?;
        }
        Ok(())
    }

    fn lease(&mut self, namespace: &str, lease: &LeaseRecord) -> Result<()> {
        let full_keys =
            lease.snapshots.iter().flat_map(|(snapshotter, keys)| keys.iter().map(move |key| format!("{snapshotter}/{namespace}/{key}")));
        if lease.labels.contains_key(FLAT_LABEL) {
            self.marks.flat_content.extend(lease.content.iter().map(|digest| (namespace.to_owned(), digest.clone())));
            self.marks.flat_snapshots.extend(full_keys);
            return Ok(());
        }
        lease.content.iter().try_for_each(|digest| self.content(namespace, digest))?;
        full_keys.collect::<Vec<_>>().iter().try_for_each(|full_key| self.snapshot(full_key))
    }

    /// Marks what names this in a back reference.
    fn kept_for(&mut self, node: &Node) -> Result<()> {
        for child in self.state.back.get(node).into_iter().flatten() {
            match child {
                Node::Content(namespace, digest) => self.content(namespace, digest)?,
                Node::Snapshot(full_key) => self.snapshot(full_key)?,
                Node::Image(..) | Node::Container(..) => {}
            }
        }
        Ok(())
    }

    /// A blob and what its labels point at.
    fn content(&mut self, namespace: &str, digest: &Digest) -> Result<()> {
        let key = (namespace.to_owned(), digest.clone());
        let Some(record) = self.state.content.get(&key) else { return Ok(()) };
        if !self.marks.content.insert(key) {
            return Ok(());
        }
        self.labels(namespace, &record.labels)?;
        self.kept_for(&Node::Content(namespace.to_owned(), digest.clone()))
    }

    /// A blob, and what it says itself when it is a document.
    fn descriptor(&mut self, namespace: &str, descriptor: &Descriptor) -> Result<()> {
        let known = self.state.content.contains_key(&(namespace.to_owned(), descriptor.digest.clone()));
        self.content(namespace, &descriptor.digest)?;
        if !known || !is_document(descriptor) {
            return Ok(());
        }
        let Some(bytes) = self.read(namespace, &descriptor.digest)? else { return Ok(()) };
        let document = Document::parse(&bytes)?;
        let labelled = self.labelled_children(namespace, &descriptor.digest);
        for child in document.children() {
            if labelled.is_empty() || labelled.contains(&child.digest) {
                self.descriptor(namespace, child)?;
            }
        }
        if let Document::Manifest(manifest) = &document
            && self.state.content.contains_key(&(namespace.to_owned(), manifest.config.digest.clone()))
        {
            self.layers(namespace, &manifest.config.digest)?;
        }
        Ok(())
    }

    /// What a document's labels name. A client that labels a document says what of it is to be kept: the layers that it has unpacked
    /// need not be.
    fn labelled_children(&self, namespace: &str, document: &Digest) -> BTreeSet<Digest> {
        let record = self.state.content.get(&(namespace.to_owned(), document.clone()));
        let labels = record.into_iter().flat_map(|record| &record.labels);
        labels.filter(|(label, _)| label.starts_with(CONTENT_LABEL)).filter_map(|(_, value)| value.parse().ok()).collect()
    }

    /// The snapshots that an image's config names. What is no image config (an artifact's, say) names none.
    fn layers(&mut self, namespace: &str, config: &Digest) -> Result<()> {
        let Some(bytes) = self.read(namespace, config)? else { return Ok(()) };
        let Ok(diff_ids) = diff_ids(&bytes) else { return Ok(()) };
        let names: Vec<&'static str> = self.store.snapshotter_names();
        for chain_id in chain_ids(&diff_ids) {
            names.iter().try_for_each(|snapshotter| self.snapshot(&format!("{snapshotter}/{namespace}/{chain_id}")))?;
        }
        Ok(())
    }

    /// A document; `None` if it has been removed since.
    fn read(&self, namespace: &str, digest: &Digest) -> Result<Option<Vec<u8>>> {
        match self.store.content_files().read_verified(digest, DOCUMENT_MAX) {
            Err(_) if !self.is_current && !self.store.content(namespace).contains(digest)? => Ok(None),
            read => read.map(Some),
        }
    }

    /// A snapshot and its parents.
    fn snapshot(&mut self, full_key: &str) -> Result<()> {
        let mut next = Some(full_key.to_owned());
        while let Some(full_key) = next.take() {
            let Some(record) = self.state.snapshots.get(&full_key) else { break };
            if !self.marks.snapshots.insert(full_key.clone()) {
                break;
            }
            let (snapshotter, namespace, _) = split_snapshot_key(&full_key)?;
            self.labels(&namespace, &record.labels)?;
            self.kept_for(&Node::Snapshot(full_key))?;
            next = record.parent.as_ref().map(|parent| format!("{snapshotter}/{namespace}/{parent}"));
        }
        Ok(())
    }

    /// containerd's reference labels, with their `.suffix` and `/suffix` forms.
    fn labels(&mut self, namespace: &str, labels: &Labels) -> Result<()> {
        for (label, value) in labels {
            if let Some(rest) = label.strip_prefix(CONTENT_LABEL) {
                if matches!(rest.as_bytes().first(), None | Some(b'.' | b'/'))
                    && let Ok(digest) = value.parse()
                {
                    self.content(namespace, &digest)?;
                }
            } else if let Some(rest) = label.strip_prefix(SNAPSHOT_LABEL) {
                let snapshotter = rest.split(['.', '/']).next().unwrap_or(rest);
                self.snapshot(&format!("{snapshotter}/{namespace}/{value}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
