//! containerd's gRPC API over the core's primitives: translate, call, translate back. Beside it our own administration service.
//!
//! Clients keep content, images, leases, snapshots, container records and run tasks; what is not offered answers `Unimplemented`.

pub mod admin;
mod containers;
mod content;
mod convert;
mod diff;
mod event_fields;
mod events;
mod filter;
mod health;
mod images;
mod introspection;
mod leases;
mod namespaces;
mod sandboxes;
mod snapshots;
mod streaming;
mod tasks;
mod transfer;
mod version;
mod write;

use proto_containerd::{grpc, services};
use rcontainerd_core::Core;
use tonic::service::{Routes, RoutesBuilder};

/// Largest message that we take, in bytes: a content write of ctr has 1 MiB of data.
const MESSAGE_MAX: usize = 16 << 20;

/// All services; to be served on the native socket.
pub fn router(core: Core) -> Routes {
    let mut routes = RoutesBuilder::default();
    let service = Service { core, streams: streaming::Streams::default() };
    routes
        .add_service(grpc::health::v1::health_server::HealthServer::new(service.clone()))
        .add_service(services::version::v1::version_server::VersionServer::new(service.clone()))
        .add_service(services::introspection::v1::introspection_server::IntrospectionServer::new(service.clone()))
        .add_service(services::namespaces::v1::namespaces_server::NamespacesServer::new(service.clone()))
        .add_service(services::images::v1::images_server::ImagesServer::new(service.clone()))
        .add_service(services::content::v1::content_server::ContentServer::new(service.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(services::leases::v1::leases_server::LeasesServer::new(service.clone()))
        .add_service(services::diff::v1::diff_server::DiffServer::new(service.clone()))
        .add_service(services::snapshots::v1::snapshots_server::SnapshotsServer::new(service.clone()))
        .add_service(services::containers::v1::containers_server::ContainersServer::new(service.clone()))
        .add_service(services::tasks::v1::tasks_server::TasksServer::new(service.clone()))
        .add_service(services::sandbox::v1::store_server::StoreServer::new(service.clone()))
        .add_service(services::streaming::v1::streaming_server::StreamingServer::new(service.clone()))
        .add_service(services::transfer::v1::transfer_server::TransferServer::new(service.clone()))
        .add_service(proto_containerd::rcontainerd::admin::v1::admin_server::AdminServer::new(service.clone()))
        .add_service(services::events::v1::events_server::EventsServer::new(service));
    routes.routes()
}

/// The one handler behind all services.
#[derive(Clone)]
struct Service {
    core: Core,
    streams: streaming::Streams,
}

impl Service {
    /// Lets go of what a deletion left unreferenced: at once for a client that waits for it, else in the background.
    async fn collect(&self, sync: bool) -> Result<(), tonic::Status> {
        let transfers = self.core.transfers.clone();
        if sync {
            return transfers.collect().await.map_err(convert::status);
        }
        tokio::spawn(async move {
            if let Err(err) = transfers.collect().await {
                tracing::warn!("garbage collection after a deletion: {err}");
            }
        });
        Ok(())
    }
}
