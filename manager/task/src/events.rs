//! The other direction: shims publish their events here (ttrpc, service Events, method Forward).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use prost::{Message, Name};
use proto_containerd::events as wire;
use proto_containerd::services::events::ttrpc::v1::ForwardRequest;
use proto_containerd::types::Envelope;
use rcontainerd_types::{Error, Result};
use shim_ttrpc::{Code, Decoder, FrameType, Request, Response, Status, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;

use crate::types::{ExitStatus, TaskEvent, TaskEventKind};

/// Events kept for a slow subscriber; beyond it, the subscriber is told how many it missed.
const BACKLOG: usize = 4096;
const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// Distributes events to all subscribers.
#[derive(Debug)]
pub struct EventHub {
    sender: broadcast::Sender<TaskEvent>,
    sequence: AtomicU64,
}

/// Receives every event from the moment of `subscribe`.
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<TaskEvent>,
}

/// What [`EventStream::next`] gives.
#[derive(Clone, Debug)]
pub enum EventItem {
    Event(TaskEvent),
    /// The receiver was too slow and so many events were dropped: look at the tasks' states.
    Lagged(u64),
}

impl EventStream {
    /// `None` once the service is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<EventItem> {
        match self.receiver.recv().await {
            Ok(event) => Some(EventItem::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(EventItem::Lagged(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl EventHub {
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), sequence: AtomicU64::new(0) }
    }

    pub fn subscribe(&self) -> EventStream {
        EventStream { receiver: self.sender.subscribe() }
    }

    pub fn publish(&self, envelope: Envelope) {
        let any = envelope.event.unwrap_or_default();
        let event = TaskEvent {
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            time: envelope.timestamp.and_then(|time| SystemTime::try_from(time).ok()).unwrap_or_else(SystemTime::now),
            namespace: envelope.namespace,
            topic: envelope.topic,
            kind: kind_of(&any.type_url, &any.value),
            raw: (any.type_url, any.value),
        };
        // Nobody may be listening.
        drop(self.sender.send(event));
    }
}

/// Listens at `path` (0600), in place of an earlier manager's socket.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(path: &Path, hub: &Arc<EventHub>) -> Result<tokio::task::JoinHandle<()>> {
    let what = || format!("listen for events on {}", path.display());
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(what(), err)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|err| Error::io(what(), err))?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(|err| Error::io(what(), err))?;
    let hub = Arc::clone(hub);
    Ok(tokio::spawn(async move {
        // Connections end with the listener: a shim must not go on telling a service that is gone.
        let mut shims = tokio::task::JoinSet::new();
        loop {
            while shims.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((socket, _)) => drop(shims.spawn(serve_shim(socket, Arc::clone(&hub)))),
                Err(err) => {
                    tracing::warn!(%err, "accept on the event socket");
                    // Out of descriptors, most likely: others must be closed first.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }))
}

async fn serve_shim(mut socket: UnixStream, hub: Arc<EventHub>) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 4096];
    loop {
        let n = match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        decoder.push(&buffer[..n]);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) if frame.kind == FrameType::Request => {
                    let answer = Response::from_result(handle(&frame.payload, &hub));
                    let Ok(bytes) = encode(frame.stream, FrameType::Response, &answer) else { return };
                    if socket.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Ok(Some(_)) | Err(_) => return,
                Ok(None) => break,
            }
        }
    }
}

fn handle(payload: &[u8], hub: &EventHub) -> Result<Vec<u8>, Status> {
    let undecodable = |err: prost::DecodeError| Status::new(Code::InvalidArgument, err.to_string());
    let request = Request::decode(payload).map_err(undecodable)?;
    if (request.service.as_str(), request.method.as_str()) != (SERVICE, "Forward") {
        return Err(Status::new(Code::Unimplemented, format!("{}/{} is not served here", request.service, request.method)));
    }
    let forwarded = ForwardRequest::decode(request.payload.as_slice()).map_err(undecodable)?;
    hub.publish(forwarded.envelope.ok_or_else(|| Status::new(Code::InvalidArgument, "no envelope"))?);
    Ok(Vec::new())
}

fn kind_of(type_url: &str, value: &[u8]) -> TaskEventKind {
    decode_kind(type_url.rsplit('/').next().unwrap_or_default(), value).unwrap_or(TaskEventKind::Other)
}

fn decode_kind(name: &str, value: &[u8]) -> Option<TaskEventKind> {
    fn decode<M: Message + Name + Default>(name: &str, value: &[u8]) -> Option<M> {
        (name == M::full_name()).then(|| M::decode(value).ok()).flatten()
    }
    let exec = |id: &str, container: &str| (!id.is_empty() && id != container).then(|| id.to_owned());
    if let Some(event) = decode::<wire::TaskCreate>(name, value) {
        return Some(TaskEventKind::Create { id: event.container_id, pid: event.pid });
    }
    if let Some(event) = decode::<wire::TaskStart>(name, value) {
        return Some(TaskEventKind::Start { id: event.container_id, pid: event.pid });
    }
    if let Some(event) = decode::<wire::TaskExit>(name, value) {
        let exit = exit_status(event.exit_status, event.exited_at);
        return Some(TaskEventKind::Exit { exec_id: exec(&event.id, &event.container_id), id: event.container_id, pid: event.pid, exit });
    }
    if let Some(event) = decode::<wire::TaskDelete>(name, value) {
        let exit = exit_status(event.exit_status, event.exited_at);
        return Some(TaskEventKind::Delete { exec_id: exec(&event.id, &event.container_id), id: event.container_id, exit });
    }
    if let Some(event) = decode::<wire::TaskExecAdded>(name, value) {
        return Some(TaskEventKind::ExecAdded { id: event.container_id, exec_id: event.exec_id });
    }
    if let Some(event) = decode::<wire::TaskExecStarted>(name, value) {
        return Some(TaskEventKind::ExecStarted { id: event.container_id, exec_id: event.exec_id, pid: event.pid });
    }
    if let Some(event) = decode::<wire::TaskOom>(name, value) {
        return Some(TaskEventKind::Oom { id: event.container_id });
    }
    if let Some(event) = decode::<wire::TaskPaused>(name, value) {
        return Some(TaskEventKind::Paused { id: event.container_id });
    }
    decode::<wire::TaskResumed>(name, value).map(|event| TaskEventKind::Resumed { id: event.container_id })
}

/// What a shim says of an end.
pub fn exit_status(code: u32, at: Option<prost_types::Timestamp>) -> ExitStatus {
    let exited_at = at.and_then(|at| SystemTime::try_from(at).ok()).unwrap_or_else(SystemTime::now);
    ExitStatus { code, exited_at, known: true }
}
