//! Images. Names have slashes, so what follows a name is split off by hand.

mod transfer;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use rcontainerd_core::Core;
use rcontainerd_core::images::{Image, ImageUser, RemoveImage};
use rcontainerd_types::{Digest, Error, Reference};

use crate::wire::error::{ApiError, ApiResult};
use crate::wire::query::Query;
use crate::wire::version::ApiVersion;
use crate::wire::{filters, json};
use crate::{convert, versions};

pub(super) fn routes() -> Router<Core> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(transfer::pull))
        .route("/images/load", post(transfer::load))
        .route("/images/get", get(transfer::save_many))
        .route("/images/search", get(search))
        .route("/images/prune", post(prune))
        .route("/images/{*name}", get(read).post(write).delete(remove))
        .route("/auth", post(transfer::auth))
}

/// What stands behind an image's name in the path.
fn split<'a>(path: &'a str, verbs: &[&'a str]) -> Result<(String, &'a str), ApiError> {
    let found = verbs.iter().find_map(|verb| Some((path.strip_suffix(verb)?.strip_suffix('/')?.to_owned(), *verb)));
    found.filter(|(name, _)| !name.is_empty()).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "page not found"))
}

async fn read(State(core): State<Core>, version: ApiVersion, Path(path): Path<String>, query: Query) -> ApiResult {
    let (name, verb) = split(&path, &["json", "history", "get"])?;
    if query.text("platform").is_some() || query.flag("manifests") {
        return Err(ApiError::unsupported("choosing among the platforms of a local image", ""));
    }
    match (name, verb) {
        (name, "json") => inspect(&core, version, &name).await,
        (name, "history") => {
            let lines = core.images.history(&name).await?;
            Ok(json::ok(lines.iter().map(convert::image::history).collect::<Vec<_>>()))
        }
        (name, _) => transfer::save(&core, vec![name]).await,
    }
}

async fn write(State(core): State<Core>, Path(path): Path<String>, query: Query, _request: Request) -> ApiResult {
    match split(&path, &["tag", "push"])? {
        (name, "tag") => tag(&core, &name, &query).await,
        _ => Err(ApiError::unsupported("pushing images", "")),
    }
}

async fn list(State(core): State<Core>, version: ApiVersion, query: Query) -> ApiResult {
    if query.flag("manifests") {
        return Err(ApiError::unsupported("listing the platforms of images", ""));
    }
    let mut filters = filters::parse(&query)?;
    if let Some(pattern) = query.text("filter").filter(|_| version < ApiVersion::v1(41)) {
        filters.0.entry("reference".to_owned()).or_default().push(pattern.to_owned());
    }
    let images = core.images.list(convert::image::filters(&filters)?).await?;
    let bodies = images.iter().map(|image| {
        let mut body = convert::image::summary(image);
        versions::image_summary(version, &mut body);
        body
    });
    Ok(json::ok(bodies.collect::<Vec<_>>()))
}

async fn inspect(core: &Core, version: ApiVersion, name: &str) -> ApiResult {
    let image: Image = core.images.inspect(name).await?;
    let driver = core.system.info().await?.storage_driver;
    let mut body = convert::image::inspect(&image, &driver);
    versions::image_inspect(version, &mut body);
    Ok(json::ok(body))
}

async fn tag(core: &Core, name: &str, query: &Query) -> ApiResult {
    let repository: Reference = query.text("repo").unwrap_or_default().parse::<Reference>()?;
    let target = match query.text("tag") {
        Some(tag) => repository.with_tag(tag)?,
        None => repository.or_latest(),
    };
    core.images.tag(name, target).await?;
    Ok(StatusCode::CREATED.into_response())
}

async fn remove(State(core): State<Core>, Path(name): Path<String>, query: Query) -> ApiResult {
    let command = RemoveImage { name, force: query.flag("force") };
    let containers = core.containers.clone();
    let runtime = tokio::runtime::Handle::current();
    let users = move |image: &Digest| users(&runtime, &containers, image);
    let removed = core.images.remove(command, users).await?;
    Ok(json::ok(removed.iter().map(convert::image::removed).collect::<Vec<_>>()))
}

/// The containers made from an image. Runs on a blocking thread.
fn users(
    runtime: &tokio::runtime::Handle,
    containers: &rcontainerd_core::containers::Containers,
    image: &Digest,
) -> Result<Vec<ImageUser>, Error> {
    let all = rcontainerd_core::containers::ListContainers { all: true, ..Default::default() };
    let found = runtime.block_on(containers.list(all))?;
    let id = image.to_string();
    let user = |summary: rcontainerd_core::containers::ContainerSummary| ImageUser {
        container_id: summary.container.id,
        image_id: image.clone(),
        image_name: summary.container.config.image,
        running: summary.container.state.status.is_running(),
    };
    Ok(found.into_iter().filter(|summary| summary.container.image_id == id).map(user).collect())
}

async fn search() -> ApiError {
    ApiError::unsupported("searching registries", "pull by name")
}

async fn prune() -> ApiError {
    ApiError::unsupported("pruning images", "remove them by name or id")
}

/// An answer whose body is a tar archive or progress, as `kind` says.
fn stream_of(kind: &'static str, body: axum::body::Body) -> Response {
    super::system::streaming(kind, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_split_from_names_with_slashes() {
        let read = |path| split(path, &["json", "history", "get"]).ok();
        assert_eq!(read("busybox/json"), Some(("busybox".to_owned(), "json")));
        assert_eq!(read("localhost:5000/a/b:1/history"), Some(("localhost:5000/a/b:1".to_owned(), "history")));
        assert_eq!(read("json/json"), Some(("json".to_owned(), "json")));
        assert_eq!(read("a/nonsense"), None);
        assert_eq!(read("/json"), None);
    }
}
