//! Records of sandboxes (`ctr sandboxes ls`). Their life (the Controller) is not offered: no shim of ours runs a sandbox by itself yet.

use std::collections::HashMap;

use jiff::Timestamp;
use prost_types::Any;
use proto_containerd::events;
use proto_containerd::services::sandbox::v1 as api;
use proto_containerd::services::sandbox::v1::store_server::Store;
use proto_containerd::types as wire;
use proto_containerd::types::sandbox::Runtime;
use rcontainerd_core::primitives::sandboxes::{SandboxRecord, Sandboxes};
use rcontainerd_core::primitives::store::records::AnyValue;
use rcontainerd_types::{Error, Result};
use tonic::{Request, Response, Status};

use crate::Service;
use crate::containers::{any, value};
use crate::convert::{Answer, answer, blocking, labels, namespace, timestamp, wire_labels};
use crate::filter::{self, Filters};

fn wire(record: SandboxRecord) -> wire::Sandbox {
    wire::Sandbox {
        sandbox_id: record.id,
        runtime: Some(Runtime { name: record.runtime_name, options: record.runtime_options.map(any) }),
        spec: record.spec.map(any),
        labels: wire_labels(record.labels),
        created_at: timestamp(record.created),
        updated_at: timestamp(record.updated),
        extensions: record.extensions.into_iter().map(|(key, extension)| (key, any(extension))).collect(),
        sandboxer: record.sandboxer,
    }
}

fn extensions(extensions: HashMap<String, Any>) -> std::collections::BTreeMap<String, AnyValue> {
    extensions.into_iter().map(|(key, extension)| (key, value(extension))).collect()
}

fn record(sandbox: wire::Sandbox) -> SandboxRecord {
    let runtime = sandbox.runtime.unwrap_or_default();
    let now = Timestamp::now();
    SandboxRecord {
        id: sandbox.sandbox_id,
        labels: labels(sandbox.labels),
        runtime_name: runtime.name,
        runtime_options: runtime.options.map(value),
        spec: sandbox.spec.map(value),
        sandboxer: sandbox.sandboxer,
        created: now,
        updated: now,
        extensions: extensions(sandbox.extensions),
    }
}

/// Changes the fields that are named; all that can change when none is.
fn change(record: &mut SandboxRecord, wanted: wire::Sandbox, fields: &[String]) -> Result<()> {
    let wanted = self::record(wanted);
    if fields.is_empty() {
        (record.labels, record.extensions, record.spec) = (wanted.labels, wanted.extensions, wanted.spec);
        return Ok(());
    }
    for field in fields {
        match (field.as_str(), field.split_once('.')) {
            ("labels", _) => record.labels.clone_from(&wanted.labels),
            ("extensions", _) => record.extensions.clone_from(&wanted.extensions),
            ("spec", _) => record.spec.clone_from(&wanted.spec),
            ("runtime", _) => {
                (record.runtime_name, record.runtime_options) = (wanted.runtime_name.clone(), wanted.runtime_options.clone());
            }
            (_, Some(("labels", key))) => match wanted.labels.get(key) {
                Some(label) => drop(record.labels.insert(key.to_owned(), label.clone())),
                None => drop(record.labels.remove(key)),
            },
            (_, Some(("extensions", key))) => match wanted.extensions.get(key) {
                Some(extension) => drop(record.extensions.insert(key.to_owned(), extension.clone())),
                None => drop(record.extensions.remove(key)),
            },
            _ => return Err(Error::invalid(format!("cannot update {field:?} of a sandbox"))),
        }
    }
    Ok(())
}

fn given(sandbox: Option<wire::Sandbox>) -> Result<wire::Sandbox> {
    sandbox.ok_or_else(|| Error::invalid("no sandbox in the request"))
}

impl Service {
    fn sandboxes<T>(&self, request: &Request<T>) -> Result<Sandboxes, Status> {
        Ok(Sandboxes::new(self.core.store.clone(), &namespace(request)?))
    }
}

#[tonic::async_trait]
impl Store for Service {
    async fn create(&self, request: Request<api::StoreCreateRequest>) -> Answer<api::StoreCreateResponse> {
        let (sandboxes, namespace) = (self.sandboxes(&request)?, namespace(&request)?);
        let made = blocking(move || {
            let record = record(given(request.into_inner().sandbox)?);
            sandboxes.create(&record)?;
            Ok(wire(record))
        });
        let sandbox = made.await?;
        self.announce(&namespace, "/sandboxes/create", &events::SandboxCreate { sandbox_id: sandbox.sandbox_id.clone() });
        Ok(Response::new(api::StoreCreateResponse { sandbox: Some(sandbox) }))
    }

    async fn update(&self, request: Request<api::StoreUpdateRequest>) -> Answer<api::StoreUpdateResponse> {
        let sandboxes = self.sandboxes(&request)?;
        let request = request.into_inner();
        answer(move || {
            let sandbox = given(request.sandbox)?;
            let id = sandbox.sandbox_id.clone();
            let updated = sandboxes.update(&id, |record| change(record, sandbox, &request.fields))?;
            Ok(api::StoreUpdateResponse { sandbox: Some(wire(updated)) })
        })
        .await
    }

    async fn delete(&self, request: Request<api::StoreDeleteRequest>) -> Answer<api::StoreDeleteResponse> {
        let sandboxes = self.sandboxes(&request)?;
        answer(move || sandboxes.delete(&request.get_ref().sandbox_id).map(|()| api::StoreDeleteResponse {})).await
    }

    async fn list(&self, request: Request<api::StoreListRequest>) -> Answer<api::StoreListResponse> {
        let sandboxes = self.sandboxes(&request)?;
        answer(move || {
            let filters = Filters::parse(&request.get_ref().filters)?;
            let passes = |record: &SandboxRecord| {
                filters.pass(|path| match path {
                    ["id"] => Some(record.id.clone()),
                    ["runtime", "name"] => Some(record.runtime_name.clone()),
                    ["sandboxer"] => Some(record.sandboxer.clone()),
                    path => filter::label(&record.labels, path),
                })
            };
            Ok(api::StoreListResponse { list: sandboxes.list()?.into_iter().filter(passes).map(wire).collect() })
        })
        .await
    }

    async fn get(&self, request: Request<api::StoreGetRequest>) -> Answer<api::StoreGetResponse> {
        let sandboxes = self.sandboxes(&request)?;
        answer(move || Ok(api::StoreGetResponse { sandbox: Some(wire(sandboxes.get(&request.get_ref().sandbox_id)?)) })).await
    }
}
