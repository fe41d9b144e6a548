//! What clients may ask for and this engine does not offer (yet): each a clear answer instead of a missing page.

use axum::Router;
use axum::routing::{any, get, post};
use http::StatusCode;
use proto_docker::image::BuildPruneResponse;
use rcontainerd_core::Core;

use crate::wire::error::ApiError;
use crate::wire::json;

const SWARM: &str =
    "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

pub(super) fn routes() -> Router<Core> {
    let router = Router::new()
        .route("/build", post(|| refuse("building images")))
        .route("/build/cancel", post(|| refuse("building images")))
        .route("/build/prune", post(async || json::ok(BuildPruneResponse::default())))
        .route("/session", post(|| refuse("building images")))
        .route("/grpc", post(|| refuse("building images")))
        .route("/containers/{id}/checkpoints", any(|| refuse("checkpoints")))
        .route("/containers/{id}/checkpoints/{checkpoint}", any(|| refuse("checkpoints")))
        .route("/plugins", get(async || json::ok(Vec::<String>::new())))
        .route("/plugins/{*rest}", any(|| refuse("plugins")));
    ["swarm", "nodes", "services", "tasks", "secrets", "configs"].iter().fold(router, |router, family| {
        router.route(&format!("/{family}"), any(no_swarm)).route(&format!("/{family}/{{*rest}}"), any(no_swarm))
    })
}

async fn refuse(what: &'static str) -> ApiError {
    ApiError::unsupported(what, "")
}

async fn no_swarm() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, SWARM)
}
