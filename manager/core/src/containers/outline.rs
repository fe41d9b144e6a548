//! What is in memory of every container: all that a list, an event, a policy, a stop or a check asks for. The rest, which is most of it,
//! is what a start, an exec or `inspect` asks for, and is read from the database then ([`crate::engine::Engine::record`]).
//!
//! The state is the memory's own: of a container that runs it is ahead of the record (STATE and the shim know it).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rcontainerd_store::metadata::Table;
use serde::Deserialize;

use super::config::{Config, EndpointRequest, HostConfig, RestartPolicy};
use super::model::{Container, MountPoint, State};

/// The table of containers, for those who walk all of it.
pub(crate) const OUTLINES: Table<Outline> = Table::new("docker.containers", 1);

/// A part of [`Container`]; its fields are where they are there.
#[derive(Clone, Debug, Deserialize)]
pub struct Outline {
    pub id: String,
    pub name: String,
    pub created: Timestamp,
    pub image_id: String,
    pub config: ConfigOutline,
    pub host_config: HostOutline,
    #[serde(default)]
    pub endpoints: BTreeMap<String, EndpointRequest>,
    #[serde(default)]
    pub left_mode: bool,
    pub path: String,
    pub args: Vec<String>,
    #[serde(default)]
    pub mounts: Vec<MountPoint>,
    pub snapshot_key: String,
    pub snapshotter: String,
    pub state: State,
}

/// A part of [`Config`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigOutline {
    pub image: String,
    pub exposed_ports: BTreeSet<String>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: String,
    pub stop_timeout: Option<i64>,
}

/// A part of [`HostConfig`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HostOutline {
    pub network_mode: String,
    pub restart_policy: RestartPolicy,
    pub auto_remove: bool,
    pub links: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

impl From<&Container> for Outline {
    fn from(container: &Container) -> Self {
        let Container { id, name, image_id, endpoints, path, args, mounts, snapshot_key, snapshotter, state, .. } = container.clone();
        Self {
            id,
            name,
            created: container.created,
            image_id,
            config: ConfigOutline::from(&container.config),
            host_config: HostOutline::from(&container.host_config),
            endpoints,
            left_mode: container.left_mode,
            path,
            args,
            mounts,
            snapshot_key,
            snapshotter,
            state,
        }
    }
}

impl From<&Config> for ConfigOutline {
    fn from(config: &Config) -> Self {
        Self {
            image: config.image.clone(),
            exposed_ports: config.exposed_ports.clone(),
            labels: config.labels.clone(),
            stop_signal: config.stop_signal.clone(),
            stop_timeout: config.stop_timeout,
        }
    }
}

impl From<&HostConfig> for HostOutline {
    fn from(host: &HostConfig) -> Self {
        Self {
            network_mode: host.network_mode.clone(),
            restart_policy: host.restart_policy.clone(),
            auto_remove: host.auto_remove,
            links: host.links.clone(),
            annotations: host.annotations.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcontainerd_store::{Options, SnapshotterChoice, Store};
    use rcontainerd_types::ErrorKind;
    use serde_json::{Value, json};

    use super::super::registry::{CONTAINERS, Registry};
    use super::*;

    /// As earlier versions wrote it: what is as it is by default, too.
    fn written(id: &str) -> Value {
        json!({
            "id": id, "name": format!("name-{id}"), "created": "2026-01-01T00:00:00Z", "image_id": "sha256:1", "platform": "linux/amd64",
            "config": {"image": "busybox", "hostname": "", "env": ["A=b"], "cmd": null, "entrypoint": null, "tty": false, "labels": {"a": "b"},
                       "exposed_ports": ["80/tcp"], "stop_signal": "TERM", "stop_timeout": 5, "healthcheck": null, "volumes": []},
            "host_config": {"binds": [], "network_mode": "bridge", "auto_remove": false, "privileged": false, "masked_paths": null,
                            "restart_policy": {"name": "always", "maximum_retry_count": 0}, "links": ["x:y"], "shm_size": 0,
                            "annotations": {"c": "d"}, "cap_add": ["ALL"], "resources": {"memory": 5, "cpu_shares": 0}},
            "endpoints": {"net": {"ipv4_address": "10.0.0.2", "aliases": ["z"], "mac_address": ""}},
            "path": "true", "args": ["1"], "snapshot_key": id, "snapshotter": "native", "hostname": id, "mounts": [
                {"kind": "volume", "name": "v", "destination": "/v", "read_write": true}],
            "state": {"status": "exited", "pid": 0, "exit_code": 3, "error": "", "networks": {}, "ports": [], "run": 1, "health": null}
        })
    }

    fn store_of(records: &[Value]) -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().expect("temporary directory");
        let store = Store::open_with(root.path(), &Options { snapshotter: SnapshotterChoice::Native }).expect("open");
        let table: Table<Value> = Table::new("docker.containers", 1);
        let put = |record: &Value| (record["id"].as_str().expect("an id").to_owned(), record.clone());
        store.metadata().write(|tx| records.iter().map(put).try_for_each(|(id, record)| tx.put(table, &id, &record))).expect("write");
        (root, store)
    }

    #[test]
    fn an_outline_is_a_part_of_the_record() {
        let container: Container = serde_json::from_value(written("a")).expect("a record");
        let read: Outline = serde_json::from_value(written("a")).expect("an outline");
        assert_eq!(format!("{read:?}"), format!("{:?}", Outline::from(&container)));
        assert_eq!((read.config.stop_timeout, read.host_config.links.len(), read.state.exit_code), (Some(5), 1, 3));
    }

    #[test]
    fn a_start_reads_no_configuration_but_an_outline_once() {
        let mut damaged = written("b");
        damaged["host_config"]["cap_add"] = json!(5);
        let (_root, store) = store_of(&[written("a"), damaged, written("c")]);
        let before = store.metadata().decoded();
        let registry = Registry::load(&store).expect("what a start does not need does not keep it from starting");
        assert_eq!(store.metadata().decoded() - before, 3, "each once");
        assert_eq!(registry.find("name-b").expect("it is there").view().host_config.network_mode, "bridge");
        let record = |id: &str| store.metadata().read(|tx| tx.get(CONTAINERS, id));
        assert_eq!(record("b").expect_err("its configuration cannot be read").kind(), ErrorKind::DataLoss);
        assert!(record("a").expect("whole").is_some());
        let told = crate::fsck::unreadable(&store).expect("a check reads all of it");
        assert_eq!(told.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_record_says_what_is_not_the_default_and_earlier_ones_mean_the_same() {
        let container: Container = serde_json::from_value(written("a")).expect("a record");
        let now = serde_json::to_value(&container).expect("encode");
        assert_eq!(
            now["config"],
            json!({"image": "busybox", "env": ["A=b"], "labels": {"a": "b"}, "exposed_ports": ["80/tcp"],
            "stop_signal": "TERM", "stop_timeout": 5})
        );
        assert_eq!(now["host_config"]["resources"], json!({"memory": 5}));
        assert_eq!(now["state"], json!({"status": "exited", "exit_code": 3, "run": 1}));
        let again: Container = serde_json::from_value(now).expect("a record");
        assert_eq!(format!("{again:?}"), format!("{container:?}"));
        let empty: HostConfig = serde_json::from_value(json!({})).expect("defaults");
        assert_eq!((serde_json::to_value(&empty).expect("encode"), empty), (json!({}), HostConfig::default()));
    }
}
