//! Files of containers: `cp` both ways, `export`, `diff`; and `commit`, which makes an image of them.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode};
use proto_docker::config::Config;
use proto_docker::container::{Change, IdResponse};
use rcontainerd_core::Core;
use rcontainerd_core::containers::CommitContainer;
use rcontainerd_core::files::{ContainerPath, CopyInto, PathStat};
use rcontainerd_types::{Error, Reference};

use super::system::streaming;
use crate::convert;
use crate::wire::error::{ApiError, ApiResult};
use crate::wire::json::{self, Json, OptionalJson};
use crate::wire::pipe;
use crate::wire::query::Query;

const STAT: &str = "x-docker-container-path-stat";

pub(super) fn routes() -> Router<Core> {
    Router::new()
        .route("/containers/{id}/archive", get(archive).put(extract).head(stat))
        .route("/containers/{id}/export", get(export))
        .route("/containers/{id}/changes", get(changes))
        .route("/commit", axum::routing::post(commit))
}

fn path(container: String, query: &Query) -> Result<ContainerPath, ApiError> {
    match query.text("path") {
        Some(path) => Ok(ContainerPath { container, path: path.to_owned() }),
        None => Err(ApiError::bad_request("bad parameter: path cannot be empty")),
    }
}

fn with_stat(mut response: Response, stat: &PathStat) -> Response {
    let value = HeaderValue::from_str(&convert::files::stat_header(stat)).expect("base64 is plain ASCII");
    response.headers_mut().insert(STAT, value);
    response
}

async fn stat(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    let found = core.files.stat(path(id, &query)?).await?;
    Ok(with_stat(StatusCode::OK.into_response(), &found))
}

async fn archive(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    let (writer, chunks) = pipe::writer();
    let (found, task) = core.files.archive(path(id, &query)?, writer).await?;
    Ok(with_stat(streaming("application/x-tar", pipe::body(chunks, task)), &found))
}

async fn extract(State(core): State<Core>, Path(container): Path<String>, query: Query, request: Request) -> ApiResult {
    let path = path(container, &query)?;
    let command = CopyInto {
        container: path.container,
        path: path.path,
        keep_kinds: query.flag("noOverwriteDirNonDir"),
        as_user: query.flag("copyUIDGID"),
    };
    core.files.copy_into(command, pipe::reader(request.into_body())).await?;
    Ok(StatusCode::OK.into_response())
}

/// A failure before the first byte has a status.
async fn export(State(core): State<Core>, Path(id): Path<String>) -> ApiResult {
    let (writer, mut chunks) = pipe::writer();
    let task = tokio::spawn(async move { core.files.export(&id, writer).await });
    let Some(first) = chunks.recv().await else {
        task.await.map_err(|error| Error::internal(format!("export: {error}")))??;
        return Ok(streaming("application/octet-stream", Body::empty()));
    };
    Ok(streaming("application/octet-stream", pipe::body_after(first, chunks, task)))
}

/// `null` where nothing has changed, as dockerd says it.
async fn changes(State(core): State<Core>, Path(id): Path<String>) -> ApiResult {
    let changes: Vec<Change> = core.files.changes(&id).await?.iter().map(convert::files::change).collect();
    Ok(json::ok(Some(changes).filter(|changes| !changes.is_empty())))
}

async fn commit(State(core): State<Core>, query: Query, OptionalJson(body): OptionalJson<Option<Config>>) -> ApiResult {
    let Some(container) = query.text("container") else {
        return Err(ApiError::bad_request("bad parameter: missing container"));
    };
    let text = |key| query.text(key).unwrap_or_default().to_owned();
    let command = CommitContainer {
        id: container.to_owned(),
        reference: reference(query.text("repo"), query.text("tag"))?,
        comment: text("comment"),
        author: text("author"),
        pause: query.flag_or("pause", true),
        changes: query.all("changes"),
        config: convert::image::config_to_core(body.unwrap_or_default()),
    };
    let id = core.containers.commit(command).await?.to_string();
    Ok(Json(StatusCode::CREATED, IdResponse { id }).into_response())
}

/// The name of a new image; `None` leaves it without one.
pub(super) fn reference(repository: Option<&str>, tag: Option<&str>) -> Result<Option<Reference>, ApiError> {
    let Some(repository) = repository else { return Ok(None) };
    let named: Reference = repository.parse()?;
    if named.digest().is_some() {
        return Err(ApiError::bad_request("cannot import digest reference"));
    }
    Ok(Some(match tag {
        Some(tag) => named.with_tag(tag)?,
        None => named.or_latest(),
    }))
}
