//! Containers, but for what streams.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use http::StatusCode;
use http_body_util::BodyExt;
use proto_docker::config::Config;
use proto_docker::container::{CreateRequest, CreateResponse, PruneResponse, TopResponse, UpdateRequest, UpdateResponse};
use rcontainerd_core::Core;
use rcontainerd_core::containers::{
    InspectContainer, KillContainer, ListContainers, RemoveContainer, RenameContainer, RestartContainer, StartContainer, StopContainer,
    TopContainer,
};

use crate::wire::error::{ApiError, ApiResult};
use crate::wire::json::{Json, JsonBody};
use crate::wire::query::Query;
use crate::wire::version::ApiVersion;
use crate::wire::{filters, json};
use crate::{convert, versions};

pub(super) fn routes() -> Router<Core> {
    Router::new()
        .route("/containers/create", post(create))
        .route("/containers/json", get(list))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", delete(remove))
        .route("/containers/{id}/{alias}", delete(remove_link))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(unpause))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/top", get(top))
        .route("/containers/{id}/update", post(update))
}

async fn create(State(core): State<Core>, version: ApiVersion, query: Query, JsonBody(mut body): JsonBody<CreateRequest>) -> ApiResult {
    if body.config == Config::default() {
        return Err(ApiError::bad_request("Config cannot be empty in order to create a container"));
    }
    versions::create_request(version, &mut body);
    let text = |key| query.text(key).map(str::to_owned);
    let command = convert::create::command(text("name"), text("platform"), body)?;
    let created = core.containers.create(command).await?;
    Ok(Json(StatusCode::CREATED, CreateResponse { id: created.id, warnings: created.warnings }).into_response())
}

async fn list(State(core): State<Core>, version: ApiVersion, query: Query) -> ApiResult {
    let limit = query.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let command = ListContainers { all: query.flag("all"), limit, size: query.flag("size"), filters: filters::parse(&query)? };
    let containers = core.containers.list(command).await?;
    let bodies = containers.iter().map(|container| {
        let mut body = convert::container::summary(container);
        versions::container_summary(version, &mut body);
        body
    });
    Ok(json::list(bodies))
}

async fn inspect(State(core): State<Core>, version: ApiVersion, Path(id): Path<String>, query: Query) -> ApiResult {
    let details = core.containers.inspect(InspectContainer { id, size: query.flag("size") }).await?;
    let mut body = convert::container::inspect(&details);
    versions::container_inspect(version, &mut body);
    Ok(json::ok(body))
}

async fn start(State(core): State<Core>, Path(id): Path<String>, query: Query, request: Request) -> ApiResult {
    if query.text("checkpoint").is_some() {
        return Err(ApiError::unsupported("starting from a checkpoint", ""));
    }
    refuse_body(request).await?;
    core.containers.start(StartContainer { id, console_size: None }).await?;
    Ok(no_content())
}

/// Bodies of start went with 1.24; silently ignoring one would lose settings.
async fn refuse_body(request: Request) -> Result<(), ApiError> {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("failed to read request body: {error}")))?;
        let data = frame.into_data().unwrap_or_default();
        if !data.trim_ascii().is_empty() && data.trim_ascii() != b"{}" && data.trim_ascii() != b"null" {
            return Err(ApiError::bad_request(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
            ));
        }
    }
    Ok(())
}

async fn stop(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    let (timeout, signal) = (query.number("t")?, query.text("signal").map(str::to_owned));
    core.containers.stop(StopContainer { id, timeout, signal }).await?;
    Ok(no_content())
}

async fn restart(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    let (timeout, signal) = (query.number("t")?, query.text("signal").map(str::to_owned));
    core.containers.restart(RestartContainer { id, timeout, signal }).await?;
    Ok(no_content())
}

async fn kill(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    core.containers.kill(KillContainer { id, signal: query.text("signal").map(str::to_owned) }).await?;
    Ok(no_content())
}

async fn pause(State(core): State<Core>, Path(id): Path<String>) -> ApiResult {
    core.containers.pause(&id).await?;
    Ok(no_content())
}

async fn unpause(State(core): State<Core>, Path(id): Path<String>) -> ApiResult {
    core.containers.unpause(&id).await?;
    Ok(no_content())
}

async fn rename(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    let name = query.text("name").unwrap_or_default().to_owned();
    core.containers.rename(RenameContainer { id, name }).await?;
    Ok(no_content())
}

async fn remove(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    if query.flag("link") {
        core.containers.remove_link(&id).await?;
        return Ok(no_content());
    }
    core.containers.remove(RemoveContainer { id, force: query.flag("force"), volumes: query.flag("v") }).await?;
    Ok(no_content())
}

/// `container/alias`, with `link=1`.
async fn remove_link(State(core): State<Core>, Path((id, alias)): Path<(String, String)>, query: Query) -> ApiResult {
    let name = format!("{id}/{alias}");
    if !query.flag("link") {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("No such container: {name}")));
    }
    core.containers.remove_link(&name).await?;
    Ok(no_content())
}

async fn top(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    let table = core.containers.top(TopContainer { id, ps_args: query.text("ps_args").unwrap_or_default().to_owned() }).await?;
    Ok(json::ok(TopResponse { titles: table.titles, processes: table.processes }))
}

async fn update(State(core): State<Core>, Path(id): Path<String>, JsonBody(body): JsonBody<UpdateRequest>) -> ApiResult {
    let warnings = core.containers.update(convert::host_config::update_to_core(id, body)).await?;
    Ok(json::ok(UpdateResponse { warnings: Some(warnings).filter(|warnings| !warnings.is_empty()) }))
}

async fn prune(State(core): State<Core>, query: Query) -> ApiResult {
    let report = core.containers.prune(filters::parse(&query)?).await?;
    let deleted = Some(report.deleted).filter(|deleted| !deleted.is_empty());
    Ok(json::ok(PruneResponse { containers_deleted: deleted, space_reclaimed: report.space_reclaimed }))
}

fn no_content() -> axum::response::Response {
    StatusCode::NO_CONTENT.into_response()
}
