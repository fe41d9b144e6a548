//! `volumes`.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::StatusCode;
use proto_docker::volume::{VolumeCreateRequest, VolumeList, VolumePruneResponse};
use rcontainerd_core::Core;
use rcontainerd_core::volumes::RemoveVolume;

use crate::wire::error::ApiResult;
use crate::wire::json::{Json, OptionalJson};
use crate::wire::query::Query;
use crate::wire::version::ApiVersion;
use crate::wire::{filters, json};
use crate::{convert, versions};

pub(super) fn routes() -> Router<Core> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

async fn list(State(core): State<Core>, query: Query) -> ApiResult {
    let volumes = core.volumes.list(filters::parse(&query)?).await?;
    Ok(json::ok(VolumeList { volumes: volumes.iter().map(convert::volume::volume).collect(), warnings: None }))
}

async fn create(State(core): State<Core>, OptionalJson(body): OptionalJson<VolumeCreateRequest>) -> ApiResult {
    let volume = core.volumes.create(convert::volume::create(body)?).await?;
    Ok(Json(StatusCode::CREATED, convert::volume::volume(&volume)).into_response())
}

async fn inspect(State(core): State<Core>, Path(name): Path<String>) -> ApiResult {
    Ok(json::ok(convert::volume::volume(&core.volumes.inspect(&name).await?)))
}

async fn remove(State(core): State<Core>, Path(name): Path<String>, query: Query) -> ApiResult {
    core.volumes.remove(RemoveVolume { name, force: query.flag("force") }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn prune(State(core): State<Core>, version: ApiVersion, query: Query) -> ApiResult {
    let mut filters = filters::parse(&query)?;
    versions::volume_prune(version, &mut filters);
    let report = core.volumes.prune(filters).await?;
    Ok(json::ok(VolumePruneResponse { volumes_deleted: Some(report.deleted), space_reclaimed: report.space_reclaimed }))
}
