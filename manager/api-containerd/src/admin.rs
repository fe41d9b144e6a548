//! What the manager's own command asks of it: not containerd's, on the same socket.

use std::path::Path;

use proto_containerd::rcontainerd::admin::v1::admin_client::AdminClient;
use proto_containerd::rcontainerd::admin::v1::admin_server::Admin;
use proto_containerd::rcontainerd::admin::v1::{self as wire, FsckRequest, FsckResponse};
use rcontainerd_core::fsck::FsckCommand;
use rcontainerd_types::{Error, ErrorKind, Finding, Result, Severity};
use tonic::transport::Endpoint;
use tonic::{Request, Response};

use crate::Service;
use crate::convert::{Answer, status};

#[tonic::async_trait]
impl Admin for Service {
    async fn fsck(&self, request: Request<FsckRequest>) -> Answer<FsckResponse> {
        let FsckRequest { quick, repair, refetch } = request.into_inner();
        let findings = self.core.fsck.run(FsckCommand { quick, repair, refetch }).await.map_err(status)?;
        Ok(Response::new(FsckResponse { findings: findings.into_iter().map(to_wire).collect() }))
    }
}

/// Asks the manager that listens at `socket`; waits as long as it takes.
///
/// # Errors
/// `Unavailable` when nobody listens; the manager's own words.
pub async fn fsck(socket: &Path, command: FsckCommand) -> Result<Vec<Finding>> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    let refused = |err| Error::new(ErrorKind::Unavailable, format!("no manager answers at {}: {err}", socket.display()));
    // The name is for the protocol's sake: the connector knows where to go.
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.map_err(refused)?;
    let FsckCommand { quick, repair, refetch } = command;
    let answer = AdminClient::new(channel).max_decoding_message_size(crate::MESSAGE_MAX).fsck(FsckRequest { quick, repair, refetch }).await;
    let answer = answer.map_err(|status| Error::internal(status.message().to_owned()))?;
    Ok(answer.into_inner().findings.into_iter().map(from_wire).collect())
}

fn to_wire(finding: Finding) -> wire::Finding {
    let Finding { severity, subject, observed, cost, remedy } = finding;
    let severity = match severity {
        Severity::Ok => wire::Severity::Ok,
        Severity::Degraded => wire::Severity::Degraded,
        Severity::Broken => wire::Severity::Broken,
    };
    wire::Finding { severity: severity.into(), subject, observed, cost, remedy }
}

fn from_wire(finding: wire::Finding) -> Finding {
    let severity = match finding.severity() {
        wire::Severity::Ok => Severity::Ok,
        wire::Severity::Degraded => Severity::Degraded,
        wire::Severity::Broken => Severity::Broken,
    };
    let wire::Finding { subject, observed, cost, remedy, .. } = finding;
    Finding { severity, subject, observed, cost, remedy }
}
