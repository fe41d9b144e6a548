//! `ctr namespaces`

use proto_containerd::events;
use proto_containerd::services::namespaces::v1 as api;
use proto_containerd::services::namespaces::v1::namespaces_server::Namespaces;
use rcontainerd_core::primitives::namespaces;
use rcontainerd_types::{Error, Result};
use tonic::{Request, Response};

use crate::Service;
use crate::convert::{Answer, answer, blocking, labels, masked_labels, wire_labels};

#[tonic::async_trait]
impl Namespaces for Service {
    async fn get(&self, request: Request<api::GetNamespaceRequest>) -> Answer<api::GetNamespaceResponse> {
        let (store, name) = (self.core.store.clone(), request.into_inner().name);
        answer(move || {
            let found = namespaces::list(&store)?.remove(&name);
            let labels = found.ok_or_else(|| Error::not_found(format!("namespace {name:?} not found")))?;
            Ok(api::GetNamespaceResponse { namespace: Some(api::Namespace { name, labels: wire_labels(labels) }) })
        })
        .await
    }

    async fn list(&self, _request: Request<api::ListNamespacesRequest>) -> Answer<api::ListNamespacesResponse> {
        let store = self.core.store.clone();
        answer(move || {
            let all = namespaces::list(&store)?.into_iter();
            let namespaces = all.map(|(name, labels)| api::Namespace { name, labels: wire_labels(labels) }).collect();
            Ok(api::ListNamespacesResponse { namespaces })
        })
        .await
    }

    async fn create(&self, request: Request<api::CreateNamespaceRequest>) -> Answer<api::CreateNamespaceResponse> {
        let (store, namespace) = (self.core.store.clone(), request.into_inner().namespace);
        let made = blocking(move || {
            let namespace = given(namespace)?;
            namespaces::create(&store, &namespace.name, &labels(namespace.labels.clone()))?;
            Ok(namespace)
        });
        let namespace = made.await?;
        let event = events::NamespaceCreate { name: namespace.name.clone(), labels: namespace.labels.clone() };
        self.announce(&namespace.name, "/namespaces/create", &event);
        Ok(Response::new(api::CreateNamespaceResponse { namespace: Some(namespace) }))
    }

    async fn update(&self, request: Request<api::UpdateNamespaceRequest>) -> Answer<api::UpdateNamespaceResponse> {
        let (store, request) = (self.core.store.clone(), request.into_inner());
        let updated = blocking(move || {
            let namespace = given(request.namespace)?;
            let mut current = namespaces::list(&store)?.remove(&namespace.name).unwrap_or_default();
            let others = masked_labels(request.update_mask.as_ref(), &mut current, labels(namespace.labels))?;
            if let Some(path) = others.first() {
                return Err(Error::invalid(format!("cannot update {path:?} of a namespace")));
            }
            namespaces::set_labels(&store, &namespace.name, &current)?;
            Ok(api::Namespace { name: namespace.name, labels: wire_labels(current) })
        });
        let namespace = updated.await?;
        let event = events::NamespaceUpdate { name: namespace.name.clone(), labels: namespace.labels.clone() };
        self.announce(&namespace.name, "/namespaces/update", &event);
        Ok(Response::new(api::UpdateNamespaceResponse { namespace: Some(namespace) }))
    }

    async fn delete(&self, request: Request<api::DeleteNamespaceRequest>) -> Answer<()> {
        let (store, name) = (self.core.store.clone(), request.into_inner().name);
        let wanted = name.clone();
        blocking(move || namespaces::delete(&store, &wanted)).await?;
        self.announce(&name, "/namespaces/delete", &events::NamespaceDelete { name: name.clone() });
        Ok(Response::new(()))
    }
}

fn given(namespace: Option<api::Namespace>) -> Result<api::Namespace> {
    namespace.ok_or_else(|| Error::invalid("no namespace in the request"))
}
