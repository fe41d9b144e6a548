//! containerd's gRPC API over the core's primitives: translate, call, translate back.
//!
//! What is here tells the truth about what the manager has and lets clients keep content, images, leases, snapshots and container records.
//! Tasks can be looked at, signalled, waited for; what is not offered answers `Unimplemented`.

mod containers;
mod content;
mod convert;
mod events;
mod filter;
mod images;
mod introspection;
mod leases;
mod namespaces;
mod snapshots;
mod tasks;
mod version;
mod write;

use proto_containerd::services;
use rcontainerd_core::Core;
use rcontainerd_core::primitives::store::gc::GcOptions;
use tonic::service::{Routes, RoutesBuilder};

/// Largest message that we take, in bytes: a content write of ctr has 1 MiB of data.
const MESSAGE_MAX: usize = 16 << 20;

/// All services; to be served on the native socket.
pub fn router(core: Core) -> Routes {
    let mut routes = RoutesBuilder::default();
    let service = Service { core };
    routes
        .add_service(services::version::v1::version_server::VersionServer::new(service.clone()))
        .add_service(services::introspection::v1::introspection_server::IntrospectionServer::new(service.clone()))
        .add_service(services::namespaces::v1::namespaces_server::NamespacesServer::new(service.clone()))
        .add_service(services::images::v1::images_server::ImagesServer::new(service.clone()))
        .add_service(services::content::v1::content_server::ContentServer::new(service.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(services::leases::v1::leases_server::LeasesServer::new(service.clone()))
        .add_service(services::snapshots::v1::snapshots_server::SnapshotsServer::new(service.clone()))
        .add_service(services::containers::v1::containers_server::ContainersServer::new(service.clone()))
        .add_service(services::tasks::v1::tasks_server::TasksServer::new(service.clone()))
        .add_service(services::events::v1::events_server::EventsServer::new(service));
    routes.routes()
}

/// The one handler behind all services.
#[derive(Clone)]
struct Service {
    core: Core,
}

impl Service {
    /// Lets go of what a deletion left unreferenced: at once for a client that waits for it, else in the background. What is younger than
    /// the store's grace period stays.
    async fn collect(&self, sync: bool) -> Result<(), tonic::Status> {
        let store = self.core.store.clone();
        let collected = tokio::task::spawn_blocking(move || {
            let collected = store.gc(&GcOptions::default());
            if let Err(err) = &collected {
                tracing::warn!(error = %err, "garbage collection after a deletion");
            }
            collected.map(drop)
        });
        match sync {
            true => collected.await.map_err(|err| tonic::Status::internal(err.to_string()))?.map_err(convert::status),
            false => Ok(()),
        }
    }
}
