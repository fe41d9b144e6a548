//! `ctr containers`

use std::collections::BTreeMap;

use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use prost_types::Any;
use proto_containerd::events;
use proto_containerd::services::containers::v1 as api;
use proto_containerd::services::containers::v1::containers_server::Containers;
use rcontainerd_core::NAMESPACE;
use rcontainerd_core::primitives::store::Store;
use rcontainerd_core::primitives::store::records::{AnyValue, ContainerRecord};
use rcontainerd_types::{Error, Result};
use tonic::{Request, Response, Status};

use crate::Service;
use crate::convert::{Answer, answer, blocking, labels, masked_labels, namespace, timestamp, wire_labels};
use crate::filter::{self, Filters};

pub(crate) fn any(value: AnyValue) -> Any {
    Any { type_url: value.type_url, value: value.value }
}

pub(crate) fn value(any: Any) -> AnyValue {
    AnyValue { type_url: any.type_url, value: any.value }
}

fn wire(record: ContainerRecord) -> api::Container {
    api::Container {
        id: record.id,
        labels: wire_labels(record.labels),
        image: record.image,
        runtime: Some(api::container::Runtime { name: record.runtime_name, options: record.runtime_options.map(any) }),
        spec: record.spec.map(any),
        snapshotter: record.snapshotter,
        snapshot_key: record.snapshot_key,
        created_at: timestamp(record.created),
        updated_at: timestamp(record.updated),
        extensions: record.extensions.into_iter().map(|(key, extension)| (key, any(extension))).collect(),
        sandbox: record.sandbox,
    }
}

fn record(container: api::Container) -> Result<ContainerRecord> {
    let runtime = container.runtime.ok_or_else(|| Error::invalid(format!("container {:?} names no runtime", container.id)))?;
    let now = Timestamp::now();
    Ok(ContainerRecord {
        id: container.id,
        labels: labels(container.labels),
        image: container.image,
        runtime_name: runtime.name,
        runtime_options: runtime.options.map(value),
        spec: container.spec.map(value),
        snapshotter: container.snapshotter,
        snapshot_key: container.snapshot_key,
        sandbox: container.sandbox,
        created: now,
        updated: now,
        extensions: container.extensions.into_iter().map(|(key, extension)| (key, value(extension))).collect::<BTreeMap<_, _>>(),
    })
}

/// Docker's containers have records of their own above these: changing them from beneath would break both views.
fn refuse_docker(namespace: &str) -> Result<(), Status> {
    if namespace == NAMESPACE {
        return Err(Status::failed_precondition(format!(
            "namespace {NAMESPACE:?} belongs to the Docker API: use it to change containers there"
        )));
    }
    Ok(())
}

fn found(store: &Store, namespace: &str, filters: &[String]) -> Result<Vec<api::Container>> {
    let filters = Filters::parse(filters)?;
    let passes = |record: &ContainerRecord| {
        filters.pass(|path| match path {
            ["id"] => Some(record.id.clone()),
            ["image"] => Some(record.image.clone()),
            ["runtime", "name"] => Some(record.runtime_name.clone()),
            path => filter::label(&record.labels, path),
        })
    };
    Ok(store.containers(namespace).list()?.into_iter().filter(passes).map(wire).collect())
}

#[tonic::async_trait]
impl Containers for Service {
    async fn get(&self, request: Request<api::GetContainerRequest>) -> Answer<api::GetContainerResponse> {
        let containers = self.core.store.containers(&namespace(&request)?);
        answer(move || Ok(api::GetContainerResponse { container: Some(wire(containers.get(&request.get_ref().id)?)) })).await
    }

    async fn list(&self, request: Request<api::ListContainersRequest>) -> Answer<api::ListContainersResponse> {
        let (store, namespace) = (self.core.store.clone(), namespace(&request)?);
        answer(move || Ok(api::ListContainersResponse { containers: found(&store, &namespace, &request.get_ref().filters)? })).await
    }

    type ListStreamStream = BoxStream<'static, Result<api::ListContainerMessage, Status>>;

    async fn list_stream(&self, request: Request<api::ListContainersRequest>) -> Answer<Self::ListStreamStream> {
        let (store, namespace) = (self.core.store.clone(), namespace(&request)?);
        let found = blocking(move || found(&store, &namespace, &request.get_ref().filters)).await?;
        let messages = found.into_iter().map(|container| Ok(api::ListContainerMessage { container: Some(container) }));
        Ok(Response::new(Box::pin(stream::iter(messages))))
    }

    async fn create(&self, request: Request<api::CreateContainerRequest>) -> Answer<api::CreateContainerResponse> {
        let namespace = namespace(&request)?;
        refuse_docker(&namespace)?;
        let containers = self.core.store.containers(&namespace);
        let container = request.into_inner().container;
        let made = blocking(move || {
            let record = record(container.ok_or_else(|| Error::invalid("no container in the request"))?)?;
            containers.create(&record)?;
            Ok(wire(record))
        });
        let container = made.await?;
        let runtime =
            container.runtime.clone().map(|runtime| events::container_create::Runtime { name: runtime.name, options: runtime.options });
        let event = events::ContainerCreate { id: container.id.clone(), image: container.image.clone(), runtime };
        self.announce(&namespace, "/containers/create", &event);
        Ok(Response::new(api::CreateContainerResponse { container: Some(container) }))
    }

    async fn update(&self, request: Request<api::UpdateContainerRequest>) -> Answer<api::UpdateContainerResponse> {
        let namespace = namespace(&request)?;
        refuse_docker(&namespace)?;
        let containers = self.core.store.containers(&namespace);
        let request = request.into_inner();
        let updated = blocking(move || {
            let container = request.container.ok_or_else(|| Error::invalid("no container in the request"))?;
            let id = container.id.clone();
            containers.update(&id, |record| change(record, container, request.update_mask.as_ref())).map(wire)
        });
        let container = updated.await?;
        let (image, labels, snapshot_key) = (container.image.clone(), container.labels.clone(), container.snapshot_key.clone());
        let event = events::ContainerUpdate { id: container.id.clone(), image, labels, snapshot_key };
        self.announce(&namespace, "/containers/update", &event);
        Ok(Response::new(api::UpdateContainerResponse { container: Some(container) }))
    }

    async fn delete(&self, request: Request<api::DeleteContainerRequest>) -> Answer<()> {
        let namespace = namespace(&request)?;
        refuse_docker(&namespace)?;
        let containers = self.core.store.containers(&namespace);
        let id = request.into_inner().id;
        let wanted = id.clone();
        blocking(move || containers.delete(&wanted)).await?;
        self.announce(&namespace, "/containers/delete", &events::ContainerDelete { id });
        Ok(Response::new(()))
    }
}

fn change(record: &mut ContainerRecord, wanted: api::Container, mask: Option<&prost_types::FieldMask>) -> Result<()> {
    let all = mask.is_none_or(|mask| mask.paths.is_empty());
    let others = masked_labels(mask, &mut record.labels, labels(wanted.labels))?;
    let mut extensions: BTreeMap<String, AnyValue> =
        wanted.extensions.into_iter().map(|(key, extension)| (key, value(extension))).collect();
    if all {
        record.image = wanted.image;
        record.spec = wanted.spec.map(value);
        record.snapshot_key = wanted.snapshot_key;
        record.extensions = extensions;
        return Ok(());
    }
    for path in others {
        match (path.as_str(), path.strip_prefix("extensions.")) {
            ("image", _) => record.image.clone_from(&wanted.image),
            ("spec", _) => record.spec = wanted.spec.clone().map(value),
            ("snapshot_key", _) => record.snapshot_key.clone_from(&wanted.snapshot_key),
            ("extensions", _) => record.extensions.clone_from(&extensions),
            (_, Some(key)) => match extensions.remove(key) {
                Some(extension) => {
                    record.extensions.insert(key.to_owned(), extension);
                }
                None => {
                    record.extensions.remove(key);
                }
            },
            _ => return Err(Error::invalid(format!("cannot update {path:?} of a container"))),
        }
    }
    Ok(())
}
