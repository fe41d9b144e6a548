//! What an operation brings is held by a lease until a name holds it; what a failed one brought goes at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcontainerd_store::WriteTx;
use rcontainerd_store::metadata::{Durability, key};
use rcontainerd_store::records::{LEASES, LeaseRecord};
use rcontainerd_types::{Digest, Error, ErrorKind, Result, id};

use super::catalog::ImageRow;
use super::fetch;
use super::state::{State, blocking};

/// The lease of an operation that a crash cut off counts no longer than this.
const LEASE_HOURS: i64 = 24;
const PURPOSE: &str = "rcontainerd.io/purpose";

/// Why something is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What came of it is worth keeping when the network fails or the manager crashes: the next attempt goes on from there.
    Pull,
    /// Load, import or commit: the next attempt brings all of it again.
    Make,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Make => "make",
        }
    }

    /// Whether what has come so far helps another attempt after such a failure.
    fn resumes_after(self, err: &Error) -> bool {
        self == Self::Pull && matches!(err.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled)
    }
}

/// Ends with `settle`; dropped before (a cancelled pull), it lets go.
pub(super) struct Lease {
    holder: Arc<Holder>,
    settled: bool,
}

/// Adds to a lease from wherever the work is done.
pub(super) struct Holder {
    state: Arc<State>,
    namespace: String,
    id: String,
    purpose: Purpose,
}

impl Lease {
    pub(super) async fn take(state: &Arc<State>, namespace: &str, purpose: Purpose, content: Vec<Digest>) -> Result<Self> {
        let now = Timestamp::now();
        let record = LeaseRecord {
            id: format!("{}-{}", purpose.name(), id::short(&id::generate()?)),
            labels: [(PURPOSE.to_owned(), purpose.name().to_owned())].into(),
            created: now,
            expires: Some(now + SignedDuration::from_hours(LEASE_HOURS)),
            content,
            snapshots: BTreeMap::new(),
            ingests: Vec::new(),
        };
        let holder = Holder { state: Arc::clone(state), namespace: namespace.to_owned(), id: record.id.clone(), purpose };
        let holder = Arc::new(holder);
        let owner = Arc::clone(&holder);
        blocking(move || {
            let key = key(&owner.namespace, &owner.id);
            owner.state.store.forget_lost()?;
            owner.state.store.metadata().write_as(Durability::Volatile, |tx| tx.put(LEASES, &key, &record))
        })
        .await?;
        Ok(Self { holder, settled: false })
    }

    pub(super) fn holder(&self) -> Arc<Holder> {
        Arc::clone(&self.holder)
    }

    /// Lets go: a name holds it all, or it goes, unless the next attempt can use it or something else refers to it.
    ///
    /// # Errors
    /// That of `outcome`; else those of the database.
    pub(super) async fn settle<T>(mut self, outcome: Result<T>) -> Result<T> {
        let kept = outcome.as_ref().err().is_none_or(|err| self.holder.purpose.resumes_after(err));
        let holder = self.holder();
        let settled = blocking(move || holder.let_go(kept)).await;
        self.settled = settled.is_ok();
        match (outcome, settled) {
            (Err(err), Err(also)) => {
                tracing::warn!(lease = self.holder.id, error = %also, "give back what a failed {} brought", self.holder.purpose.name());
                Err(err)
            }
            (Ok(_), Err(err)) | (Err(err), Ok(())) => Err(err),
            (Ok(done), Ok(())) => Ok(done),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let holder = self.holder();
        tokio::task::spawn_blocking(move || {
            if let Err(err) = holder.let_go(holder.purpose == Purpose::Pull) {
                tracing::warn!(lease = holder.id, error = %err, "the lease of a cancelled operation stays until it expires");
            }
        });
    }
}

impl Holder {
    /// To be called before the blobs can be seen.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn content(&self, digests: impl IntoIterator<Item = Digest>) -> Result<()> {
        self.change(|record| record.content.extend(digests))
    }

    /// Holds the names that the layers of images will have once unpacked.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn layers<'a>(&self, rows: impl IntoIterator<Item = &'a ImageRow>) -> Result<()> {
        let snapshotter = self.state.store.snapshots(&self.namespace).name().to_owned();
        let chain = rows.into_iter().flat_map(|row| &row.layers).map(|layer| layer.chain_id.to_string());
        self.change(|record| record.snapshots.entry(snapshotter).or_default().extend(chain))
    }

    /// Lets go in the transaction that gives all that it holds a name.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn let_go_in(&self, tx: &WriteTx<'_>) -> Result<()> {
        tx.delete(LEASES, &key(&self.namespace, &self.id)).map(drop)
    }

    fn change(&self, change: impl FnOnce(&mut LeaseRecord)) -> Result<()> {
        let key = key(&self.namespace, &self.id);
        self.state.store.metadata().write_as(Durability::Volatile, |tx| {
            let held = tx.get(LEASES, &key)?;
            let mut record = held.ok_or_else(|| Error::internal(format!("lease {:?} is gone", self.id)))?;
            change(&mut record);
            tx.put(LEASES, &key, &record)
        })
    }

    fn let_go(&self, kept: bool) -> Result<()> {
        let store = &self.state.store;
        let key = key(&self.namespace, &self.id);
        if kept && self.purpose == Purpose::Pull {
            // Of a pull that failed: the next attempt finds it, whatever becomes of the host.
            store.settle(|_| Ok(()))?;
        }
        let held = store.metadata().write_freeing(Durability::Volatile, |tx| {
            let held = tx.get(LEASES, &key)?;
            tx.delete(LEASES, &key)?;
            Ok(held)
        })?;
        let Some(held) = held.filter(|_| !kept) else { return Ok(()) };
        // Nothing is written any more, so that what was in the way of the others has room to go.
        let snapshots = store.snapshots(&self.namespace);
        let undone = snapshots.discard_again().is_err();
        store.gc_held(&self.namespace, &held)?;
        for digest in held.content.iter().filter(|_| self.purpose == Purpose::Pull) {
            match store.content(&self.namespace).abort(&fetch::ingest_key(digest)) {
                Err(err) if !matches!(err.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => return Err(err),
                _ => {}
            }
        }
        if undone {
            // By the room that the others have left.
            snapshots.discard_again()?;
            store.gc_held(&self.namespace, &held)?;
        }
        Ok(())
    }
}

/// Drops the leases of what a manager that is gone was making: nobody goes on with that.
///
/// # Errors
/// Those of the database.
pub(super) fn drop_stale(state: &State, namespace: &str) -> Result<()> {
    let prefix = rcontainerd_store::metadata::prefix(namespace);
    let stale = state.store.metadata().read(|tx| tx.list_prefix(LEASES, &prefix))?.into_iter();
    let stale: Vec<String> = stale
        .filter(|(_, lease)| lease.labels.get(PURPOSE).is_some_and(|purpose| purpose == Purpose::Make.name()))
        .map(|(key, _)| key)
        .collect();
    if stale.is_empty() {
        return Ok(());
    }
    state.store.metadata().write_freeing(Durability::Volatile, |tx| stale.iter().try_for_each(|key| tx.delete(LEASES, key).map(drop)))
}
