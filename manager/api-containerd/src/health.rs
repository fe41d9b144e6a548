//! gRPC's health protocol: whoever gets an answer here is served.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use proto_containerd::grpc::health::v1::health_check_response::ServingStatus;
use proto_containerd::grpc::health::v1::health_server::Health;
use proto_containerd::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use tonic::{Request, Response, Status};

use crate::Service;
use crate::convert::Answer;

const SERVING: HealthCheckResponse = HealthCheckResponse { status: ServingStatus::Serving as i32 };

/// All services live and end together: only the whole server is known by (the empty) name.
fn check(service: &str) -> Result<(), Status> {
    match service {
        "" => Ok(()),
        other => Err(Status::not_found(format!("health of service {other:?} is not known: ask for the server's, with an empty name"))),
    }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Answer<HealthCheckResponse> {
        check(&request.get_ref().service)?;
        Ok(Response::new(SERVING))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// It changes no more until the connection ends.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Answer<Self::WatchStream> {
        check(&request.get_ref().service)?;
        Ok(Response::new(Box::pin(stream::iter([Ok(SERVING)]).chain(stream::pending()))))
    }
}
