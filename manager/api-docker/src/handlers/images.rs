//! Images. Names have slashes, so what follows a name is split off by hand.

mod transfer;

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use proto_docker::image::PruneResponse;
use rcontainerd_core::Core;
use rcontainerd_core::images::{Image, RemoveImage};
use rcontainerd_types::{Platform, Reference};

use crate::wire::error::{ApiError, ApiResult};
use crate::wire::query::Query;
use crate::wire::version::ApiVersion;
use crate::wire::{filters, json};
use crate::{convert, versions};

pub(super) fn routes() -> Router<Core> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(transfer::create))
        .route("/images/load", post(transfer::load))
        .route("/images/get", get(transfer::save_many))
        .route("/images/search", get(search))
        .route("/images/prune", post(prune))
        .route("/images/{*name}", get(read).post(write).delete(remove))
        .route("/distribution/{*name}", get(transfer::distribution))
        .route("/auth", post(transfer::auth))
}

/// What stands behind an image's name in the path.
fn split<'a>(path: &'a str, verbs: &[&'a str]) -> Result<(String, &'a str), ApiError> {
    let found = verbs.iter().find_map(|verb| Some((path.strip_suffix(verb)?.strip_suffix('/')?.to_owned(), *verb)));
    found.filter(|(name, _)| !name.is_empty()).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "page not found"))
}

async fn read(State(core): State<Core>, version: ApiVersion, Path(path): Path<String>, query: Query) -> ApiResult {
    let (name, verb) = split(&path, &["json", "history", "get"])?;
    let platform = transfer::platform(&query)?;
    match (name, verb) {
        (name, "json") => inspect(&core, version, &name, platform, query.flag("manifests")).await,
        (name, "history") => {
            let lines = core.images.history(&name, platform).await?;
            Ok(json::ok(lines.iter().map(convert::image::history).collect::<Vec<_>>()))
        }
        (name, _) => transfer::save(&core, vec![name], platform).await,
    }
}

async fn write(State(core): State<Core>, Path(path): Path<String>, query: Query, headers: HeaderMap) -> ApiResult {
    match split(&path, &["tag", "push"])? {
        (name, "tag") => tag(&core, &name, &query).await,
        (name, _) => transfer::push(&core, &name, &query, &headers).await,
    }
}

async fn list(State(core): State<Core>, version: ApiVersion, query: Query) -> ApiResult {
    let mut filters = filters::parse(&query)?;
    if let Some(pattern) = query.text("filter").filter(|_| version < ApiVersion::v1(41)) {
        filters.0.entry("reference".to_owned()).or_default().push(pattern.to_owned());
    }
    let images = core.images.list(convert::image::filters(&filters)?).await?;
    let shared = if query.flag("shared-size") { core.images.shared_sizes().await? } else { BTreeMap::new() };
    let manifests = if query.flag("manifests") { core.images.manifests().await? } else { BTreeMap::new() };
    let bodies = images.map(|image| {
        let (shared, found) = (shared.get(&image.id).copied(), manifests.get(&image.id));
        let mut body = convert::image::summary(image);
        if let Some(bytes) = shared {
            body.shared_size = convert::container::signed(bytes);
        }
        if let Some(found) = found {
            let listed: Vec<_> = found.iter().map(convert::image::manifest).collect();
            // Of an image with its platforms: all that they take, packed and unpacked.
            body.size = listed.iter().map(|manifest| manifest.size.total).sum();
            body.manifests = Some(listed);
        }
        versions::image_summary(version, &mut body);
        body
    });
    Ok(json::list(bodies))
}

async fn inspect(core: &Core, version: ApiVersion, name: &str, platform: Option<Platform>, manifests: bool) -> ApiResult {
    let image: Image = match platform {
        None => core.images.inspect(name).await?,
        Some(_) if manifests => {
            return Err(ApiError::bad_request("conflicting options: manifests and platform options cannot both be set"));
        }
        Some(platform) => core.images.inspect_platform(name, platform).await?,
    };
    let driver = core.system.info().await?.storage_driver;
    let mut body = convert::image::inspect(&image, &driver);
    if manifests {
        let all = core.images.manifests().await?;
        body.manifests = all.get(&image.id).map(|found| found.iter().map(convert::image::manifest).collect());
    }
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
    if query.text("platforms").is_some() {
        return Err(ApiError::unsupported(
            "removing one platform of an image",
            "remove the image, then load or pull the platforms to keep",
        ));
    }
    let command = RemoveImage { name, force: query.flag("force"), keep_parents: query.flag("noprune") };
    let containers = core.containers.clone();
    let removed = core.images.remove(command, move |image| Ok(containers.made_from(image))).await?;
    Ok(json::ok(removed.iter().map(convert::image::removed).collect::<Vec<_>>()))
}

/// `GET /images/search`.
async fn search(State(core): State<Core>, query: Query, headers: HeaderMap) -> ApiResult {
    let Some(term) = query.text("term") else { return Err(ApiError::bad_request("missing parameter \"term\"")) };
    let limit: u32 = query.number("limit")?.filter(|limit| *limit > 0).unwrap_or(25);
    if !(1..=100).contains(&limit) {
        return Err(ApiError::bad_request(format!("Limit {limit} is outside the range of [1, 100]")));
    }
    let filters = filters::parse(&query)?;
    filters.accept(&["is-automated", "is-official", "stars"])?;
    let wanted = convert::image::search_filter(&filters)?;
    let found = core.images.search(term, limit, &transfer::credentials(&headers)?).await.map_err(transfer::refused)?;
    Ok(json::ok(found.iter().filter(|one| wanted(one)).map(convert::image::search_result).collect::<Vec<_>>()))
}

async fn prune(State(core): State<Core>, query: Query) -> ApiResult {
    let command = convert::image::prune(filters::parse(&query)?)?;
    let containers = core.containers.clone();
    let pruned = core.images.prune(command, move |image| Ok(containers.made_from(image))).await?;
    let removed: Vec<_> = pruned.removed.iter().map(convert::image::removed).collect();
    let images_deleted = Some(removed).filter(|removed| !removed.is_empty());
    Ok(json::ok(PruneResponse { images_deleted, space_reclaimed: pruned.space_reclaimed }))
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
