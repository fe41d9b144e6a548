//! The execs of running containers, in memory: they end with their container.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcontainerd_types::{Error, Result};
use tokio::sync::watch;

use super::Exec;

/// Ended execs kept for `inspect`; the oldest go first.
const KEPT: usize = 1000;

pub(crate) struct ExecEntry {
    record: watch::Sender<Exec>,
    /// Whether it has been started; it can be once.
    started: Mutex<bool>,
}

impl ExecEntry {
    pub fn record(&self) -> Exec {
        self.record.borrow().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Exec)) {
        self.record.send_modify(change);
    }

    /// Waits until the record is as asked for.
    pub async fn until(&self, mut reached: impl FnMut(&Exec) -> bool) -> Exec {
        let mut changes = self.record.subscribe();
        changes.wait_for(|exec| reached(exec)).await.expect("`self` holds the sender").clone()
    }
}

#[derive(Default)]
pub(crate) struct ExecTable(Mutex<HashMap<String, Arc<ExecEntry>>>);

impl ExecTable {
    pub fn insert(&self, exec: Exec) {
        let mut table = lock(&self.0);
        if table.len() >= KEPT {
            let ended = table.values().map(|entry| entry.record()).filter(|exec| exec.exit_code.is_some());
            if let Some(oldest) = ended.min_by_key(|exec| exec.created) {
                table.remove(&oldest.id);
            }
        }
        let entry = ExecEntry { record: watch::Sender::new(exec.clone()), started: Mutex::new(false) };
        table.insert(exec.id, Arc::new(entry));
    }

    /// By full id or unambiguous prefix.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn find(&self, id: &str) -> Result<Arc<ExecEntry>> {
        let table = lock(&self.0);
        if let Some(entry) = table.get(id) {
            return Ok(Arc::clone(entry));
        }
        let mut matches = table.iter().filter(|(own, _)| !id.is_empty() && own.starts_with(id));
        match (matches.next(), matches.next()) {
            (Some((_, entry)), None) => Ok(Arc::clone(entry)),
            _ => Err(Error::not_found(format!("No such exec instance: {id}"))),
        }
    }

    /// Ids of those not ended.
    pub fn of_container(&self, container: &str) -> Vec<String> {
        let table = lock(&self.0);
        let own = table.values().map(|entry| entry.record()).filter(|exec| exec.container_id == container && exec.exit_code.is_none());
        own.map(|exec| exec.id).collect()
    }

    /// A removed container's execs are forgotten.
    pub fn forget(&self, container: &str) {
        lock(&self.0).retain(|_, entry| entry.record.borrow().container_id != container);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ExecEntry {
    /// Claims the one start.
    ///
    /// # Errors
    /// `Conflict` when it was started already.
    pub fn claim(&self) -> Result<()> {
        let mut started = lock(&self.started);
        if std::mem::replace(&mut *started, true) {
            return Err(Error::conflict(format!("exec {} has already run", self.record().id)));
        }
        Ok(())
    }
}
