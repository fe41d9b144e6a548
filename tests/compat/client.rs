//! A gRPC client of its own, written against the protobuf files alone: pull → snapshot → container → task → exec → delete.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::{Message, Name};
use prost_types::Any;
use proto_containerd::services::containers::v1 as containers;
use proto_containerd::services::containers::v1::containers_client::ContainersClient;
use proto_containerd::services::content::v1::ReadContentRequest;
use proto_containerd::services::content::v1::content_client::ContentClient;
use proto_containerd::services::events::v1 as events;
use proto_containerd::services::events::v1::events_client::EventsClient;
use proto_containerd::services::images::v1 as images;
use proto_containerd::services::images::v1::images_client::ImagesClient;
use proto_containerd::services::snapshots::v1 as snapshots;
use proto_containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use proto_containerd::services::tasks::v1 as tasks;
use proto_containerd::services::tasks::v1::tasks_client::TasksClient;
use proto_containerd::services::transfer::v1::TransferRequest;
use proto_containerd::services::transfer::v1::transfer_client::TransferClient;
use proto_containerd::types::Mount;
use proto_containerd::types::transfer::{ImageStore, OciRegistry, RegistryResolver};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::support::CtrHost;

const NAMESPACE: &str = "demo";

async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(Duration::from_secs(10));
    endpoint.connect_with_connector(connector).await.expect("connect")
}

/// In the namespace.
fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", NAMESPACE.parse().expect("a header"));
    request
}

fn any<M: Message + Name>(message: &M) -> Option<Any> {
    Some(Any { type_url: M::full_name(), value: message.encode_to_vec() })
}

fn json_any(kind: &str, value: &Value) -> Option<Any> {
    Some(Any { type_url: format!("types.containerd.io/opencontainers/runtime-spec/1/{kind}"), value: value.to_string().into_bytes() })
}

async fn pull(channel: &Channel, image: &str) {
    let resolver = RegistryResolver { default_scheme: "http".into(), ..RegistryResolver::default() };
    let source = any(&OciRegistry { reference: image.to_owned(), resolver: Some(resolver) });
    let destination = any(&ImageStore { name: image.to_owned(), ..ImageStore::default() });
    let transfer = TransferRequest { source, destination, options: None };
    TransferClient::new(channel.clone()).transfer(request(transfer)).await.expect("pull");
}

fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

async fn document(channel: &Channel, digest: &str) -> Value {
    let read = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
    let mut answer = ContentClient::new(channel.clone()).read(request(read)).await.expect("read").into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = answer.message().await.expect("a piece") {
        bytes.extend(piece.data);
    }
    assert_eq!(digest_of(&bytes), digest, "content is what its name says");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The snapshot that the image's layers make: its name follows from the configuration alone.
async fn top_layer(channel: &Channel, image: &str) -> String {
    let get = images::GetImageRequest { name: image.to_owned() };
    let found = ImagesClient::new(channel.clone()).get(request(get)).await.expect("image").into_inner().image.expect("image");
    let manifest = document(channel, &found.target.expect("a target").digest).await;
    let config = document(channel, manifest["config"]["digest"].as_str().expect("a digest")).await;
    let layers = config["rootfs"]["diff_ids"].as_array().expect("layers").iter().map(|id| id.as_str().expect("an id").to_owned());
    layers.reduce(|chain, layer| digest_of(format!("{chain} {layer}").as_bytes())).expect("an image with layers")
}

async fn prepare(channel: &Channel, key: &str, parent: String) -> Vec<Mount> {
    let labels = HashMap::from([("purpose".to_owned(), "test".to_owned())]);
    let prepare = snapshots::PrepareSnapshotRequest { snapshotter: String::new(), key: key.to_owned(), parent, labels };
    SnapshotsClient::new(channel.clone()).prepare(request(prepare)).await.expect("prepare").into_inner().mounts
}

fn process(args: &[&str]) -> Value {
    json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}})
}

fn spec(cgroup: &str) -> Value {
    let namespaces: Vec<Value> = ["pid", "mount", "ipc", "uts", "network"].iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": process(&["sh", "-c", "echo started; exec sleep 1000"]),
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"cgroupsPath": cgroup, "namespaces": namespaces},
    })
}

async fn create_container(channel: &Channel, id: &str, image: &str, cgroup: &str) {
    let container = containers::Container {
        id: id.to_owned(),
        image: image.to_owned(),
        runtime: Some(containers::container::Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: json_any("Spec", &spec(cgroup)),
        snapshot_key: id.to_owned(),
        ..containers::Container::default()
    };
    let create = containers::CreateContainerRequest { container: Some(container) };
    ContainersClient::new(channel.clone()).create(request(create)).await.expect("create a container");
}

/// Follows the exits of a container, from before it runs.
async fn exits(channel: &Channel, id: &str) -> tonic::Streaming<proto_containerd::types::Envelope> {
    let filters = vec![format!("namespace=={NAMESPACE},topic==\"/tasks/exit\",event.container_id=={id}")];
    EventsClient::new(channel.clone()).subscribe(Request::new(events::SubscribeRequest { filters })).await.expect("subscribe").into_inner()
}

async fn exec(tasks: &mut TasksClient<Channel>, id: &str, output: &str) {
    let (container_id, exec_id) = (id.to_owned(), "e1".to_owned());
    let exec = tasks::ExecProcessRequest {
        container_id: container_id.clone(),
        stdout: output.to_owned(),
        exec_id: exec_id.clone(),
        spec: json_any("Process", &process(&["sh", "-c", "echo inside; exit 7"])),
        ..tasks::ExecProcessRequest::default()
    };
    tasks.exec(request(exec.clone())).await.expect("exec");
    assert_eq!(tasks.exec(request(exec)).await.expect_err("twice").code(), Code::AlreadyExists);
    let start = tasks::StartRequest { container_id: container_id.clone(), exec_id: exec_id.clone() };
    assert!(tasks.start(request(start)).await.expect("start").into_inner().pid > 0);
    let wait = tasks::WaitRequest { container_id: container_id.clone(), exec_id: exec_id.clone() };
    assert_eq!(tasks.wait(request(wait)).await.expect("wait").into_inner().exit_status, 7);
    let delete = tasks::DeleteProcessRequest { container_id, exec_id };
    let deleted = tasks.delete_process(request(delete)).await.expect("delete").into_inner();
    assert!(deleted.exit_status == 7 && deleted.pid > 0, "{deleted:?}");
}

async fn end(tasks: &mut TasksClient<Channel>, id: &str) {
    let container_id = id.to_owned();
    let delete = tasks::DeleteTaskRequest { container_id: container_id.clone() };
    assert_eq!(tasks.delete(request(delete.clone())).await.expect_err("it runs").code(), Code::FailedPrecondition);
    let kill = tasks::KillRequest { container_id: container_id.clone(), signal: 9, all: true, ..tasks::KillRequest::default() };
    tasks.kill(request(kill)).await.expect("kill");
    let wait = tasks::WaitRequest { container_id, exec_id: String::new() };
    assert_eq!(tasks.wait(request(wait)).await.expect("wait").into_inner().exit_status, 137);
    assert_eq!(tasks.delete(request(delete.clone())).await.expect("delete").into_inner().exit_status, 137);
    assert_eq!(tasks.delete(request(delete)).await.expect_err("gone").code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_snapshot_container_task_exec_delete() {
    let host = CtrHost::start("");
    let (image, id) = (host.image(), "c1");
    let channel = connect(&host.socket()).await;
    pull(&channel, &image).await;
    let rootfs = prepare(&channel, id, top_layer(&channel, &image).await).await;
    create_container(&channel, id, &image, &host.cgroup(id)).await;
    let mut exits = exits(&channel, id).await;

    let mut tasks = TasksClient::new(channel.clone());
    let (log, exec_log) = (host.host.path().join("c1.log"), host.host.path().join("e1.log"));
    let create = tasks::CreateTaskRequest {
        container_id: id.to_owned(),
        rootfs,
        stdout: format!("file://{}", log.display()),
        ..tasks::CreateTaskRequest::default()
    };
    let created = tasks.create(request(create.clone())).await.expect("create a task").into_inner();
    assert!(created.pid > 0);
    assert_eq!(tasks.create(request(create)).await.expect_err("twice").code(), Code::AlreadyExists);
    let start = tasks::StartRequest { container_id: id.to_owned(), exec_id: String::new() };
    assert_eq!(tasks.start(request(start)).await.expect("start").into_inner().pid, created.pid);
    exec(&mut tasks, id, &format!("file://{}", exec_log.display())).await;
    end(&mut tasks, id).await;

    assert_eq!(std::fs::read_to_string(&log).expect("its output"), "started\n");
    assert_eq!(std::fs::read_to_string(&exec_log).expect("its output"), "inside\n");
    for _ in ["of the exec", "of the task"] {
        let told = tokio::time::timeout(Duration::from_secs(30), exits.message()).await.expect("in time");
        assert_eq!(told.expect("an event").expect("an event").namespace, NAMESPACE);
    }
    let delete = containers::DeleteContainerRequest { id: id.to_owned() };
    ContainersClient::new(channel.clone()).delete(request(delete)).await.expect("delete the container");
    let remove = snapshots::RemoveSnapshotRequest { snapshotter: String::new(), key: id.to_owned() };
    SnapshotsClient::new(channel.clone()).remove(request(remove)).await.expect("remove the snapshot");
    let delete = images::DeleteImageRequest { name: image, sync: true };
    ImagesClient::new(channel).delete(request(delete)).await.expect("delete the image");
    host.assert_clean();
}
