//! `networks`: what is there can be listed and inspected.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use rcontainerd_core::Core;

use crate::wire::error::{ApiError, ApiResult};
use crate::wire::query::Query;
use crate::wire::version::ApiVersion;
use crate::wire::{filters, json};
use crate::{convert, versions};

pub(super) fn routes() -> Router<Core> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(no_user_networks))
        .route("/networks/prune", post(no_user_networks))
        .route("/networks/{id}", get(inspect).delete(no_user_networks))
        .route("/networks/{id}/connect", post(no_user_networks))
        .route("/networks/{id}/disconnect", post(no_user_networks))
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

async fn inspect(State(core): State<Core>, version: ApiVersion, Path(id): Path<String>) -> ApiResult {
    let mut body = convert::network::network(&core.networks.inspect(&id).await?);
    versions::network(version, &mut body);
    Ok(json::ok(body))
}

async fn no_user_networks() -> ApiError {
    ApiError::unsupported("creating and changing networks", "use bridge, host or none")
}
