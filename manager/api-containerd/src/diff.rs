//! Layers applied and written for clients that unpack and commit by themselves.

use jiff::Timestamp;
use proto_containerd::services::diff::v1 as api;
use proto_containerd::services::diff::v1::diff_server::Diff;
use proto_containerd::types::Mount as WireMount;
use rcontainerd_core::primitives::diff;
use rcontainerd_core::primitives::store::Mount;
use rcontainerd_types::{Error, Result};
use tonic::Request;

use crate::Service;
use crate::convert::{Answer, answer, from_wire, labels, lease, namespace, to_wire, unimplemented};

fn mounts(mounts: Vec<WireMount>) -> Vec<Mount> {
    mounts.into_iter().map(|mount| Mount { fstype: mount.r#type, source: mount.source, options: mount.options }).collect()
}

#[tonic::async_trait]
impl Diff for Service {
    async fn apply(&self, request: Request<api::ApplyRequest>) -> Answer<api::ApplyResponse> {
        let (store, namespace) = (self.core.store.clone(), namespace(&request)?);
        let request = request.into_inner();
        if !request.payloads.is_empty() {
            return unimplemented("applying layers through stream processors");
        }
        answer(move || {
            let layer = from_wire(request.diff)?;
            let applied = diff::apply(&store, &namespace, &layer, &mounts(request.mounts), request.sync_fs)?;
            Ok(api::ApplyResponse { applied: Some(to_wire(applied)) })
        })
        .await
    }

    async fn diff(&self, request: Request<api::DiffRequest>) -> Answer<api::DiffResponse> {
        let (store, namespace, lease) = (self.core.store.clone(), namespace(&request)?, lease(&request));
        let request = request.into_inner();
        answer(move || {
            let wanted = diff::Difference {
                left: mounts(request.left),
                right: mounts(request.right),
                media_type: request.media_type,
                reference: request.r#ref,
                labels: labels(request.labels),
                latest: request.source_date_epoch.map(epoch).transpose()?,
                lease,
            };
            Ok(api::DiffResponse { diff: Some(to_wire(diff::write(&store, &namespace, wanted)?)) })
        })
        .await
    }
}

fn epoch(time: prost_types::Timestamp) -> Result<Timestamp> {
    let malformed = |_| Error::invalid(format!("source_date_epoch {} s {} ns is no time", time.seconds, time.nanos));
    Timestamp::new(time.seconds, time.nanos).map_err(malformed)
}
