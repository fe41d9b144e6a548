//! `_ping`, `version`, `info`, `events`, `system/df`, `auth`.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, header};
use rcontainerd_core::Core;
use rcontainerd_core::events::EventQuery;
use rcontainerd_types::Error;

use crate::wire::error::{ApiError, ApiResult};
use crate::wire::query::Query;
use crate::wire::version::ApiVersion;
use crate::wire::{filters, json, time};
use crate::{convert, versions};

pub(super) fn routes() -> Router<Core> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/events", get(events))
        .route("/system/df", get(disk_usage))
}

pub(crate) async fn ping() -> Response {
    let headers = [
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("content-type", "text/plain; charset=utf-8"),
    ];
    (headers, "OK").into_response()
}

async fn version(State(core): State<Core>) -> ApiResult {
    Ok(json::ok(convert::system::version(&core.system.version().await?)))
}

async fn info(State(core): State<Core>, version: ApiVersion) -> ApiResult {
    let mut body = convert::system::info(&core.system.info().await?);
    versions::info(version, &mut body);
    Ok(json::ok(body))
}

async fn disk_usage(State(core): State<Core>, version: ApiVersion, query: Query) -> ApiResult {
    let wanted = query.all("type");
    if let Some(unknown) = wanted.iter().find(|kind| !["container", "image", "volume", "build-cache"].contains(&kind.as_str())) {
        return Err(ApiError::bad_request(format!("unknown object type: {unknown}")));
    }
    let mut body = convert::system::disk_usage(&core.system.disk_usage().await?);
    versions::disk_usage(version, &mut body);
    let keep = |kind: &str| wanted.is_empty() || wanted.iter().any(|name| name == kind);
    if !keep("image") {
        body.images = None;
        body.layers_size = 0;
    }
    body.containers = body.containers.filter(|_| keep("container"));
    body.volumes = body.volumes.filter(|_| keep("volume"));
    body.build_cache = body.build_cache.filter(|_| keep("build-cache"));
    Ok(json::ok(body))
}

/// One JSON object per line, the head at once.
async fn events(State(core): State<Core>, query: Query) -> ApiResult {
    let command =
        EventQuery { since: time::parameter(&query, "since")?, until: time::parameter(&query, "until")?, filters: filters::parse(&query)? };
    let stream = core.events.subscribe(command).await?;
    let lines = stream.map(|event| {
        let mut line = serde_json::to_vec(&convert::event::event(&event?)).map_err(|error| Error::internal(error.to_string()))?;
        line.push(b'\n');
        Ok::<_, Error>(Bytes::from(line))
    });
    Ok(streaming("application/json", Body::from_stream(lines)))
}

/// A 200 whose body grows.
pub(super) fn streaming(kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
