//! Which networks there are: Docker's three, and the records of those that users made.
//!
//! ```text
//! docker.networks   id → Record        one row per user-defined network; its bridge is made again from it after a reboot
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{PoisonError, RwLock};

use jiff::Timestamp;
use rcontainerd_network::{BridgeNetwork, DEFAULT_NETWORK};
use rcontainerd_store::Store;
use rcontainerd_store::metadata::Table;
use rcontainerd_types::{Error, Result};
use serde::{Deserialize, Serialize};

use super::id_of;

pub(crate) const NETWORKS: Table<Record> = Table::new("docker.networks", 1);
/// Name and driver of the networks that are always there.
pub(crate) const BUILT_IN: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// A user-defined network, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    pub created: Timestamp,
    #[serde(default)]
    pub attachable: bool,
    /// As the user wrote them, for `inspect`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Auxiliary addresses by name.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, Ipv4Addr>,
    /// Where ports are published that name no address.
    #[serde(default)]
    pub host_binding: Option<IpAddr>,
    /// With the subnet that it got.
    pub bridge: BridgeNetwork,
}

/// What a container's network mode names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Default,
    Host,
    None,
    User(Box<Record>),
}

impl Found {
    pub fn id(&self) -> String {
        match self {
            Self::Default => built_in_ids()[0].clone(),
            Self::Host => built_in_ids()[1].clone(),
            Self::None => built_in_ids()[2].clone(),
            Self::User(record) => record.id.clone(),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Default => "bridge",
            Self::Host => "host",
            Self::None => "none",
            Self::User(record) => &record.name,
        }
    }

    /// The network service's id of it; `None` for modes without a bridge.
    pub fn bridge(&self) -> Option<&str> {
        match self {
            Self::Default => Some(DEFAULT_NETWORK),
            Self::User(record) => Some(&record.id),
            Self::Host | Self::None => None,
        }
    }
}

/// Of bridge, host and none.
fn built_in_ids() -> &'static [String; 3] {
    static IDS: std::sync::LazyLock<[String; 3]> = std::sync::LazyLock::new(|| BUILT_IN.map(|(name, _)| id_of(name)));
    &IDS
}

/// The records in memory; changes go through the service, which writes them.
#[derive(Default)]
pub(crate) struct Catalog {
    records: RwLock<BTreeMap<String, Record>>,
    /// Serialises create, remove and prune.
    order: tokio::sync::Mutex<()>,
}

impl Catalog {
    /// # Errors
    /// When the records cannot be read.
    pub fn load(store: &Store) -> Result<Self> {
        let records = store.metadata().read(|tx| tx.list(NETWORKS))?.into_iter().collect();
        Ok(Self { records: RwLock::new(records), order: tokio::sync::Mutex::default() })
    }

    pub fn all(&self) -> Vec<Record> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// One change of what networks there are at a time.
    pub async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.order.lock().await
    }

    /// Whether a bridge network (by the network service's id) has a way to the outside.
    pub fn leads_out(&self, id: &str) -> bool {
        !self.records.read().unwrap_or_else(PoisonError::into_inner).get(id).is_some_and(|record| record.bridge.internal)
    }

    pub fn insert(&self, record: Record) {
        self.records.write().unwrap_or_else(PoisonError::into_inner).insert(record.id.clone(), record);
    }

    pub fn remove(&self, id: &str) {
        self.records.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// By name, id or unambiguous prefix of the id.
    ///
    /// # Errors
    /// `NotFound` (`network x not found`), `InvalidArgument` for an ambiguous prefix.
    pub fn find(&self, wanted: &str) -> Result<Found> {
        let built_in = [Found::Default, Found::Host, Found::None];
        // Asked for each container of a list: nothing is copied for these.
        let named = |found: &&Found| found.name() == wanted || (wanted == "default" && **found == Found::Default);
        if let Some(found) = built_in.iter().find(named) {
            return Ok(found.clone());
        }
        let users = self.all().into_iter().map(|record| Found::User(Box::new(record)));
        let all: Vec<Found> = built_in.into_iter().chain(users).collect();
        let exact = |found: &&Found| found.name() == wanted || found.id() == wanted || (wanted == "default" && **found == Found::Default);
        if let Some(found) = all.iter().find(exact) {
            return Ok(found.clone());
        }
        let mut matches = all.iter().filter(|found| !wanted.is_empty() && found.id().starts_with(wanted));
        match (matches.next(), matches.next()) {
            (Some(found), None) => Ok(found.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!("network {wanted} is ambiguous: several ids start with it"))),
            (None, _) => Err(Error::not_found(format!("network {wanted} not found"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, id: &str) -> Record {
        Record {
            id: id.into(),
            name: name.into(),
            created: Timestamp::UNIX_EPOCH,
            attachable: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            auxiliary: BTreeMap::new(),
            host_binding: None,
            bridge: BridgeNetwork::new(id, "br-x"),
        }
    }

    #[test]
    fn a_name_comes_before_an_id_and_a_prefix_must_be_clear() {
        let catalog = Catalog::default();
        catalog.insert(record("abcd", "1111"));
        catalog.insert(record("mine", "abcd2222"));
        catalog.insert(record("other", "abce3333"));
        assert_eq!(catalog.find("abcd").expect("found").name(), "abcd");
        assert_eq!(catalog.find("abcd2").expect("found").name(), "mine");
        assert!(catalog.find("abc").expect_err("ambiguous").message().contains("ambiguous"));
        assert_eq!(catalog.find("nothing").expect_err("unknown").message(), "network nothing not found");
        assert_eq!(catalog.find("default").expect("found"), Found::Default);
        assert_eq!(catalog.find(&id_of("host")[..12]).expect("found"), Found::Host);
        assert!(catalog.find("").is_err());
    }
}
