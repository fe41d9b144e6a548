//! `networks`.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::StatusCode;
use proto_docker::network::{
    NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest, NetworkPruneResponse,
};
use rcontainerd_core::Core;
use rcontainerd_core::networks::{ConnectNetwork, DisconnectNetwork};

use crate::wire::error::{ApiError, ApiResult};
use crate::wire::json::{Json, JsonBody};
use crate::wire::query::Query;
use crate::wire::version::ApiVersion;
use crate::wire::{filters, json};
use crate::{convert, versions};

pub(super) fn routes() -> Router<Core> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

async fn list(State(core): State<Core>, version: ApiVersion, query: Query) -> ApiResult {
    let networks = core.networks.list(filters::parse(&query)?).await?;
    let bodies = networks.iter().map(|network| {
        let mut body = convert::network::network(network);
        versions::network_list(version, &mut body);
        body
    });
    Ok(json::ok(bodies.collect::<Vec<_>>()))
}

async fn inspect(State(core): State<Core>, version: ApiVersion, Path(id): Path<String>, query: Query) -> ApiResult {
    // `verbose` asks for a swarm's services, which no network here has.
    if query.text("scope").is_some_and(|scope| scope != "local") {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("network {id} not found")));
    }
    let mut body = convert::network::network(&core.networks.inspect(&id).await?);
    versions::network(version, &mut body);
    Ok(json::ok(body))
}

async fn create(State(core): State<Core>, JsonBody(body): JsonBody<NetworkCreateRequest>) -> ApiResult {
    let id = core.networks.create(convert::network::create(body)).await?;
    Ok(Json(StatusCode::CREATED, NetworkCreateResponse { id, warning: String::new() }).into_response())
}

async fn remove(State(core): State<Core>, Path(id): Path<String>) -> ApiResult {
    core.networks.remove(&id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn connect(State(core): State<Core>, Path(network): Path<String>, JsonBody(body): JsonBody<NetworkConnectRequest>) -> ApiResult {
    let endpoint = convert::create::endpoint(body.endpoint_config.unwrap_or_default());
    core.networks.connect(ConnectNetwork { network, container: body.container, endpoint }).await?;
    Ok(StatusCode::OK.into_response())
}

async fn disconnect(
    State(core): State<Core>,
    Path(network): Path<String>,
    JsonBody(body): JsonBody<NetworkDisconnectRequest>,
) -> ApiResult {
    core.networks.disconnect(DisconnectNetwork { network, container: body.container, force: body.force }).await?;
    Ok(StatusCode::OK.into_response())
}

async fn prune(State(core): State<Core>, query: Query) -> ApiResult {
    let removed = core.networks.prune(filters::parse(&query)?).await?;
    Ok(json::ok(NetworkPruneResponse { networks_deleted: (!removed.is_empty()).then_some(removed) }))
}
