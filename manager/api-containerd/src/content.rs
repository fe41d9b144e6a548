//! `ctr content`

use futures_util::stream::{self, BoxStream};
use proto_containerd::events;
use proto_containerd::services::content::v1 as api;
use proto_containerd::services::content::v1::content_server::Content;
use rcontainerd_core::primitives::store::{BlobInfo, IngestStatus};
use rcontainerd_types::{Error, Result};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::Service;
use crate::convert::{Answer, answer, blocking, digest, labels, lease, masked_labels, namespace, signed, status, timestamp, wire_labels};
use crate::filter::{self, Filters};
use crate::write::Writing;

/// Blobs per message of a list.
const PER_MESSAGE: usize = 100;
/// Bytes per message of a read.
const CHUNK: usize = 1 << 20;
/// Messages of a read or write under way.
const IN_FLIGHT: usize = 4;

fn wire(info: BlobInfo) -> api::Info {
    api::Info {
        digest: info.digest.to_string(),
        size: signed(info.size),
        created_at: timestamp(info.created),
        updated_at: timestamp(info.updated),
        labels: wire_labels(info.labels),
    }
}

fn wire_status(ingest: IngestStatus) -> api::Status {
    api::Status {
        started_at: timestamp(ingest.started),
        updated_at: timestamp(ingest.updated),
        r#ref: ingest.key,
        offset: signed(ingest.offset),
        total: signed(ingest.total.unwrap_or(0)),
        expected: ingest.expected.map(|digest| digest.to_string()).unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl Content for Service {
    async fn info(&self, request: Request<api::InfoRequest>) -> Answer<api::InfoResponse> {
        let content = self.core.store.content(&namespace(&request)?);
        answer(move || Ok(api::InfoResponse { info: Some(wire(content.info(&digest(&request.get_ref().digest)?)?)) })).await
    }

    async fn update(&self, request: Request<api::UpdateRequest>) -> Answer<api::UpdateResponse> {
        let content = self.core.store.content(&namespace(&request)?);
        let request = request.into_inner();
        answer(move || {
            let info = request.info.ok_or_else(|| Error::invalid("no blob in the request"))?;
            let digest = digest(&info.digest)?;
            let mut current = content.info(&digest)?.labels;
            let others = masked_labels(request.update_mask.as_ref(), &mut current, labels(info.labels))?;
            match others.first() {
                Some(path) => Err(Error::invalid(format!("cannot update {path:?} of content"))),
                None => Ok(api::UpdateResponse { info: Some(wire(content.set_labels(&digest, current)?)) }),
            }
        })
        .await
    }

    type ListStream = BoxStream<'static, Result<api::ListContentResponse, Status>>;

    async fn list(&self, request: Request<api::ListContentRequest>) -> Answer<Self::ListStream> {
        let content = self.core.store.content(&namespace(&request)?);
        let found = blocking(move || {
            let filters = Filters::parse(&request.get_ref().filters)?;
            let passes = |info: &BlobInfo| {
                filters.pass(|path| match path {
                    ["digest"] => Some(info.digest.to_string()),
                    ["size"] => Some(info.size.to_string()),
                    path => filter::label(&info.labels, path),
                })
            };
            Ok(content.list()?.into_iter().filter(passes).map(wire).collect::<Vec<_>>())
        });
        let found = found.await?;
        let messages: Vec<_> = found.chunks(PER_MESSAGE).map(|info| Ok(api::ListContentResponse { info: info.to_vec() })).collect();
        Ok(Response::new(Box::pin(stream::iter(messages))))
    }

    async fn delete(&self, request: Request<api::DeleteContentRequest>) -> Answer<()> {
        let namespace = namespace(&request)?;
        let content = self.core.store.content(&namespace);
        let wanted = request.into_inner().digest;
        let event = events::ContentDelete { digest: wanted.clone() };
        blocking(move || content.delete(&digest(&wanted)?)).await?;
        self.announce(&namespace, "/content/delete", &event);
        Ok(Response::new(()))
    }

    type ReadStream = BoxStream<'static, Result<api::ReadContentResponse, Status>>;

    async fn read(&self, request: Request<api::ReadContentRequest>) -> Answer<Self::ReadStream> {
        let content = self.core.store.content(&namespace(&request)?);
        let request = request.into_inner();
        let wanted = request.digest.clone();
        let reader = blocking(move || content.reader(&digest(&wanted)?)).await?;
        let offset = u64::try_from(request.offset).unwrap_or(0);
        let all = reader.size();
        if offset > all {
            return Err(Status::out_of_range(format!("content {}: offset {offset} is beyond its {all} bytes", request.digest)));
        }
        let end = match u64::try_from(request.size) {
            Ok(size) if size > 0 => all.min(offset.saturating_add(size)),
            _ => all,
        };
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        tokio::task::spawn_blocking(move || {
            let mut at = offset;
            while at < end {
                let mut data = vec![0; CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK))];
                let message = match reader.read_at(&mut data, at) {
                    Ok(0) => Err(Status::data_loss(format!("content {}: cut short on disk", request.digest))),
                    Ok(read) => {
                        data.truncate(read);
                        Ok(api::ReadContentResponse { offset: signed(at), data })
                    }
                    Err(err) => Err(Status::internal(format!("read content {}: {err}", request.digest))),
                };
                at += message.as_ref().map_or(0, |message| message.data.len() as u64);
                let failed = message.is_err();
                // A client that hangs up ends the read.
                if sender.blocking_send(message).is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn status(&self, request: Request<api::StatusRequest>) -> Answer<api::StatusResponse> {
        let content = self.core.store.content(&namespace(&request)?);
        answer(move || Ok(api::StatusResponse { status: Some(wire_status(content.ingest_status(&request.get_ref().r#ref)?)) })).await
    }

    async fn list_statuses(&self, request: Request<api::ListStatusesRequest>) -> Answer<api::ListStatusesResponse> {
        let content = self.core.store.content(&namespace(&request)?);
        answer(move || {
            let filters = Filters::parse(&request.get_ref().filters)?;
            let passes = |ingest: &IngestStatus| filters.pass(|path| (path == ["ref"]).then(|| ingest.key.clone()));
            Ok(api::ListStatusesResponse { statuses: content.ingests()?.into_iter().filter(passes).map(wire_status).collect() })
        })
        .await
    }

    type WriteStream = BoxStream<'static, Result<api::WriteContentResponse, Status>>;

    async fn write(&self, request: Request<Streaming<api::WriteContentRequest>>) -> Answer<Self::WriteStream> {
        let mut writing = Writing::new(self.core.store.clone(), namespace(&request)?, lease(&request));
        let mut messages = request.into_inner();
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(async move {
            loop {
                // The client has gone or is done: what was not committed stays for a resume.
                let Ok(Some(message)) = messages.message().await else { return };
                let answer;
                (writing, answer) = match tokio::task::spawn_blocking(move || writing.take(message)).await {
                    Ok(step) => step,
                    Err(err) => {
                        tracing::error!(error = %err, "content write was cut off");
                        return;
                    }
                };
                let ended = answer.is_err();
                if sender.send(answer.map_err(status)).await.is_err() || ended {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn abort(&self, request: Request<api::AbortRequest>) -> Answer<()> {
        let content = self.core.store.content(&namespace(&request)?);
        // A stream that the client has just closed may not have let go of it yet.
        answer(move || content.discard(&request.get_ref().r#ref)).await
    }
}
