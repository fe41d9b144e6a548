//! Bodies captured from dockerd 20.10 and from docker clients 20.10 and 28: read and written again, each must be the same JSON,
//! but for members that are declared here as gone.

use proto_docker::config::Config;
use proto_docker::container::{ContainerSummary, CreateRequest, TopResponse};
use proto_docker::events::Event;
use proto_docker::exec::{ExecCreateRequest, ExecInspect, ExecStartRequest};
use proto_docker::image::{HistoryItem, ImageInspect, ImageSummary};
use proto_docker::inspect::ContainerInspect;
use proto_docker::network::Network;
use proto_docker::stats::Stats;
use proto_docker::system::{DiskUsage, Info, Version};
use proto_docker::volume::VolumeList;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Went with API 1.42.
const GONE: [&str; 2] = [r#".HostConfig.KernelMemory: 0 → "(absent)""#, r#".HostConfig.KernelMemoryTCP: 0 → "(absent)""#];

fn captured(name: &str) -> String {
    let path = format!("{}/tests/captured/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every difference between two values, as `path: left → right`; numbers equal in value are the same.
fn differences(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let absent = Value::String("(absent)".to_owned());
                differences(&format!("{path}.{key}"), a.get(key).unwrap_or(&absent), b.get(key).unwrap_or(&absent), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), a, b, found);
            }
        }
        _ if left == right => {}
        _ => found.push(format!("{path}: {left} → {right}")),
    }
}

/// `known`: the differences that there must be, no more and no fewer.
fn same<T: DeserializeOwned + Serialize>(name: &str, text: &str, known: &[&str]) {
    let original: Value = serde_json::from_str(text).expect("captured JSON");
    let read: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let written = serde_json::to_value(&read).expect("writable");
    let mut found = Vec::new();
    differences("", &original, &written, &mut found);
    assert_eq!(found, known, "{name}");
}

#[test]
fn requests_of_docker_clients() {
    same::<CreateRequest>("create 20.10", &captured("create-request-20.10.json"), &GONE);
    same::<CreateRequest>("create 28", &captured("create-request-28.json"), &[]);
    same::<ExecCreateRequest>("exec create", &captured("exec-request-28.json"), &[]);
    same::<ExecStartRequest>("exec start", &captured("exec-start-request-28.json"), &[]);
}

#[test]
fn containers_of_dockerd() {
    same::<Vec<ContainerSummary>>("list", &captured("container-list-20.10.json"), &[]);
    same::<ContainerInspect>("inspect", &captured("container-inspect-20.10.json"), &GONE);
    same::<TopResponse>("top", &captured("container-top-20.10.json"), &[]);
    same::<Stats>("stats", &captured("container-stats-20.10.json"), &[]);
    same::<ExecInspect>("exec", &captured("exec-inspect-20.10.json"), &[]);
}

#[test]
fn images_of_dockerd() {
    same::<Vec<ImageSummary>>("list", &captured("image-list-20.10.json"), &["[0].RepoDigests: null → []"]);
    same::<ImageInspect>("inspect", &captured("image-inspect-20.10.json"), &[]);
    same::<Vec<HistoryItem>>("history", &captured("image-history-20.10.json"), &[]);
}

#[test]
fn the_rest_of_dockerd() {
    same::<Version>("version", &captured("version-20.10.json"), &[]);
    same::<Info>(
        "info",
        &captured("info-20.10.json"),
        &[r#".InitCommit.Expected: "" → "(absent)""#, r#".KernelMemory: true → "(absent)""#],
    );
    same::<VolumeList>("volumes", &captured("volume-list-20.10.json"), &[]);
    same::<Vec<Network>>("networks", &captured("network-list-20.10.json"), &[]);
    same::<Network>("network", &captured("network-inspect-20.10.json"), &[]);
    same::<DiskUsage>("df", &captured("system-df-20.10.json"), &[".Images[0].RepoDigests: null → []"]);
    let events = captured("events-20.10.jsonl");
    assert!(events.lines().count() > 5);
    events.lines().for_each(|line| same::<Event>("event", line, &[]));
}

#[test]
fn null_reads_as_missing_and_one_string_as_a_list() {
    let nulls: Config = serde_json::from_str(r#"{"Env":null,"Cmd":"true","User":null,"Tty":null,"Labels":null}"#).expect("readable");
    assert_eq!(nulls, Config { cmd: Some(vec!["true".to_owned()].into()), ..Config::default() });
    let body: CreateRequest = serde_json::from_str(r#"{"Image":"x","HostConfig":null,"NetworkingConfig":null}"#).expect("readable");
    assert_eq!((body.config.image.as_str(), body.host_config), ("x", None));
}
