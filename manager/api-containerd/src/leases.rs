//! `ctr leases`

use jiff::Timestamp;
use proto_containerd::services::leases::v1 as api;
use proto_containerd::services::leases::v1::leases_server::Leases;
use rcontainerd_core::primitives::store::records::{LeaseRecord, Resource};
use rcontainerd_types::{Error, Result, id};
use tonic::{Request, Response};

use crate::Service;
use crate::convert::{Answer, answer, blocking, digest, labels, namespace, timestamp, wire_labels};
use crate::filter::{self, Filters};

/// containerd's label for the moment from which a lease no longer counts.
const EXPIRE: &str = "containerd.io/gc.expire";

fn wire(lease: LeaseRecord) -> api::Lease {
    api::Lease { id: lease.id, created_at: timestamp(lease.created), labels: wire_labels(lease.labels) }
}

fn resource(resource: Option<api::Resource>) -> Result<Resource> {
    let resource = resource.ok_or_else(|| Error::invalid("no resource in the request"))?;
    match resource.r#type.as_str() {
        "content" => digest(&resource.id).map(Resource::Content),
        "ingests" => Ok(Resource::Ingest(resource.id)),
        other => match other.strip_prefix("snapshots/") {
            Some(snapshotter) => Ok(Resource::Snapshot { snapshotter: snapshotter.to_owned(), key: resource.id }),
            None => Err(Error::invalid(format!("unknown type of resource {other:?}: expected content, ingests or snapshots/NAME"))),
        },
    }
}

#[tonic::async_trait]
impl Leases for Service {
    async fn create(&self, request: Request<api::CreateRequest>) -> Answer<api::CreateResponse> {
        let leases = self.core.store.leases(&namespace(&request)?);
        let request = request.into_inner();
        answer(move || {
            let lease_id = if request.id.is_empty() { id::generate()?[..24].to_owned() } else { request.id };
            let labels = labels(request.labels);
            let expires = match labels.get(EXPIRE) {
                Some(date) => Some(date.parse::<Timestamp>().map_err(|err| Error::invalid(format!("label {EXPIRE}: {err}")))?),
                None => None,
            };
            Ok(api::CreateResponse { lease: Some(wire(leases.create(&lease_id, labels, expires)?)) })
        })
        .await
    }

    async fn delete(&self, request: Request<api::DeleteRequest>) -> Answer<()> {
        let leases = self.core.store.leases(&namespace(&request)?);
        let request = request.into_inner();
        blocking(move || leases.delete(&request.id)).await?;
        self.collect(request.sync).await.map(Response::new)
    }

    async fn list(&self, request: Request<api::ListRequest>) -> Answer<api::ListResponse> {
        let leases = self.core.store.leases(&namespace(&request)?);
        answer(move || {
            let filters = Filters::parse(&request.get_ref().filters)?;
            let passes = |lease: &LeaseRecord| {
                filters.pass(|path| match path {
                    ["id"] => Some(lease.id.clone()),
                    path => filter::label(&lease.labels, path),
                })
            };
            Ok(api::ListResponse { leases: leases.list()?.into_iter().filter(passes).map(wire).collect() })
        })
        .await
    }

    async fn add_resource(&self, request: Request<api::AddResourceRequest>) -> Answer<()> {
        let leases = self.core.store.leases(&namespace(&request)?);
        let request = request.into_inner();
        answer(move || leases.add(&request.id, &resource(request.resource)?)).await
    }

    async fn delete_resource(&self, request: Request<api::DeleteResourceRequest>) -> Answer<()> {
        let leases = self.core.store.leases(&namespace(&request)?);
        let request = request.into_inner();
        answer(move || leases.remove(&request.id, &resource(request.resource)?)).await
    }

    async fn list_resources(&self, request: Request<api::ListResourcesRequest>) -> Answer<api::ListResourcesResponse> {
        let leases = self.core.store.leases(&namespace(&request)?);
        answer(move || {
            let lease = leases.get(&request.get_ref().id)?;
            let content = lease.content.iter().map(|digest| api::Resource { id: digest.to_string(), r#type: "content".into() });
            let ingests = lease.ingests.iter().map(|key| api::Resource { id: key.clone(), r#type: "ingests".into() });
            let snapshots = lease.snapshots.iter().flat_map(|(snapshotter, keys)| {
                keys.iter().map(move |key| api::Resource { id: key.clone(), r#type: format!("snapshots/{snapshotter}") })
            });
            Ok(api::ListResourcesResponse { resources: content.chain(ingests).chain(snapshots).collect() })
        })
        .await
    }
}
