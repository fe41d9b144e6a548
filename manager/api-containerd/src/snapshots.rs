//! `ctr snapshots`

use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use proto_containerd::events;
use proto_containerd::services::snapshots::v1 as api;
use proto_containerd::services::snapshots::v1::snapshots_server::Snapshots;
use proto_containerd::types::Mount as WireMount;
use rcontainerd_core::primitives::store::records::Resource;
use rcontainerd_core::primitives::store::{Kind, Mount, SnapshotInfo, Snapshotter, Store};
use rcontainerd_types::{Error, Result};
use tonic::{Request, Response, Status};

use crate::Service;
use crate::convert::{Answer, answer, blocking, labels, lease, masked_labels, namespace, signed, timestamp, unimplemented, wire_labels};
use crate::filter::{self, Filters};

/// Snapshots per message of a list.
const PER_MESSAGE: usize = 100;

/// Where a request is to act.
struct Scope {
    store: Store,
    namespace: String,
    lease: Option<String>,
}

impl Scope {
    fn of<T>(service: &Service, request: &Request<T>) -> Result<Self, Status> {
        Ok(Self { store: service.core.store.clone(), namespace: namespace(request)?, lease: lease(request) })
    }

    fn snapshotter(&self, name: &str) -> Result<Arc<dyn Snapshotter>> {
        self.store.snapshotter(&self.namespace, name)
    }

    /// Lets the request's lease hold what is about to be made: no collection may come in between.
    fn hold(&self, snapshotter: &dyn Snapshotter, key: &str) -> Result<()> {
        match &self.lease {
            Some(lease) => {
                let resource = Resource::Snapshot { snapshotter: snapshotter.name().to_owned(), key: key.to_owned() };
                self.store.leases(&self.namespace).add(lease, &resource)
            }
            None => Ok(()),
        }
    }
}

fn mounts(mounts: Vec<Mount>) -> Vec<WireMount> {
    mounts
        .into_iter()
        .map(|mount| WireMount { r#type: mount.fstype, source: mount.source, target: String::new(), options: mount.options })
        .collect()
}

fn parent(text: &str) -> Option<&str> {
    if text.is_empty() { None } else { Some(text) }
}

fn wire(info: SnapshotInfo) -> api::Info {
    let kind = match info.kind {
        Kind::View => api::Kind::View,
        Kind::Active => api::Kind::Active,
        Kind::Committed => api::Kind::Committed,
    };
    api::Info {
        name: info.name,
        parent: info.parent.unwrap_or_default(),
        kind: kind.into(),
        created_at: timestamp(info.created),
        updated_at: timestamp(info.updated),
        labels: wire_labels(info.labels),
    }
}

#[tonic::async_trait]
impl Snapshots for Service {
    async fn prepare(&self, request: Request<api::PrepareSnapshotRequest>) -> Answer<api::PrepareSnapshotResponse> {
        let scope = Scope::of(self, &request)?;
        let request = request.into_inner();
        let event =
            events::SnapshotPrepare { key: request.key.clone(), parent: request.parent.clone(), snapshotter: request.snapshotter.clone() };
        let namespace = scope.namespace.clone();
        let made = blocking(move || {
            let snapshotter = scope.snapshotter(&request.snapshotter)?;
            scope.hold(&*snapshotter, &request.key)?;
            let made = snapshotter.prepare(&request.key, parent(&request.parent), labels(request.labels))?;
            Ok(mounts(made))
        });
        let mounts = made.await?;
        self.announce(&namespace, "/snapshot/prepare", &event);
        Ok(Response::new(api::PrepareSnapshotResponse { mounts }))
    }

    async fn view(&self, request: Request<api::ViewSnapshotRequest>) -> Answer<api::ViewSnapshotResponse> {
        let scope = Scope::of(self, &request)?;
        let request = request.into_inner();
        let event =
            events::SnapshotPrepare { key: request.key.clone(), parent: request.parent.clone(), snapshotter: request.snapshotter.clone() };
        let namespace = scope.namespace.clone();
        let made = blocking(move || {
            let snapshotter = scope.snapshotter(&request.snapshotter)?;
            scope.hold(&*snapshotter, &request.key)?;
            let made = snapshotter.view(&request.key, parent(&request.parent), labels(request.labels))?;
            Ok(mounts(made))
        });
        let mounts = made.await?;
        self.announce(&namespace, "/snapshot/prepare", &event);
        Ok(Response::new(api::ViewSnapshotResponse { mounts }))
    }

    async fn mounts(&self, request: Request<api::MountsRequest>) -> Answer<api::MountsResponse> {
        let scope = Scope::of(self, &request)?;
        let request = request.into_inner();
        answer(move || Ok(api::MountsResponse { mounts: mounts(scope.snapshotter(&request.snapshotter)?.mounts(&request.key)?) })).await
    }

    async fn commit(&self, request: Request<api::CommitSnapshotRequest>) -> Answer<()> {
        let scope = Scope::of(self, &request)?;
        let request = request.into_inner();
        if !request.parent.is_empty() {
            return unimplemented("committing onto another parent");
        }
        let event =
            events::SnapshotCommit { key: request.key.clone(), name: request.name.clone(), snapshotter: request.snapshotter.clone() };
        let namespace = scope.namespace.clone();
        let committed = blocking(move || {
            let snapshotter = scope.snapshotter(&request.snapshotter)?;
            scope.hold(&*snapshotter, &request.name)?;
            snapshotter.commit(&request.name, &request.key, labels(request.labels))
        });
        committed.await?;
        self.announce(&namespace, "/snapshot/commit", &event);
        Ok(Response::new(()))
    }

    async fn remove(&self, request: Request<api::RemoveSnapshotRequest>) -> Answer<()> {
        let scope = Scope::of(self, &request)?;
        let request = request.into_inner();
        let event = events::SnapshotRemove { key: request.key.clone(), snapshotter: request.snapshotter.clone() };
        let namespace = scope.namespace.clone();
        blocking(move || scope.snapshotter(&request.snapshotter)?.remove(&request.key)).await?;
        self.announce(&namespace, "/snapshot/remove", &event);
        Ok(Response::new(()))
    }

    async fn stat(&self, request: Request<api::StatSnapshotRequest>) -> Answer<api::StatSnapshotResponse> {
        let scope = Scope::of(self, &request)?;
        let request = request.into_inner();
        answer(move || Ok(api::StatSnapshotResponse { info: Some(wire(scope.snapshotter(&request.snapshotter)?.stat(&request.key)?)) }))
            .await
    }

    async fn update(&self, request: Request<api::UpdateSnapshotRequest>) -> Answer<api::UpdateSnapshotResponse> {
        let scope = Scope::of(self, &request)?;
        let request = request.into_inner();
        answer(move || {
            let info = request.info.ok_or_else(|| Error::invalid("no snapshot in the request"))?;
            let snapshotter = scope.snapshotter(&request.snapshotter)?;
            let mut current = snapshotter.stat(&info.name)?.labels;
            let others = masked_labels(request.update_mask.as_ref(), &mut current, labels(info.labels))?;
            if let Some(path) = others.first() {
                return Err(Error::invalid(format!("cannot update {path:?} of a snapshot")));
            }
            Ok(api::UpdateSnapshotResponse { info: Some(wire(snapshotter.set_labels(&info.name, current)?)) })
        })
        .await
    }

    type ListStream = BoxStream<'static, Result<api::ListSnapshotsResponse, Status>>;

    async fn list(&self, request: Request<api::ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let scope = Scope::of(self, &request)?;
        let request = request.into_inner();
        let found = blocking(move || {
            let filters = Filters::parse(&request.filters)?;
            let passes = |info: &SnapshotInfo| {
                filters.pass(|path| match path {
                    ["name"] => Some(info.name.clone()),
                    ["parent"] => info.parent.clone(),
                    ["kind"] => Some(format!("{:?}", info.kind).to_lowercase()),
                    path => filter::label(&info.labels, path),
                })
            };
            Ok(scope.snapshotter(&request.snapshotter)?.list()?.into_iter().filter(passes).map(wire).collect::<Vec<_>>())
        });
        let found = found.await?;
        let messages: Vec<_> = found.chunks(PER_MESSAGE).map(|info| Ok(api::ListSnapshotsResponse { info: info.to_vec() })).collect();
        Ok(Response::new(Box::pin(stream::iter(messages))))
    }

    async fn usage(&self, request: Request<api::UsageRequest>) -> Answer<api::UsageResponse> {
        let scope = Scope::of(self, &request)?;
        let request = request.into_inner();
        answer(move || {
            let usage = scope.snapshotter(&request.snapshotter)?.usage(&request.key)?;
            Ok(api::UsageResponse { size: signed(usage.size), inodes: signed(usage.inodes) })
        })
        .await
    }

    async fn cleanup(&self, _request: Request<api::CleanupRequest>) -> Answer<()> {
        unimplemented("Cleanup")
    }
}
