//! From a connection's request to a handler: the version in the path, the headers every answer carries, and dockerd's way of
//! saying that there is no such page.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use rcontainerd_core::Core;
use tower::ServiceExt;

use crate::handlers;
use crate::wire::error::ApiError;
use crate::wire::version::{ApiVersion, split_path};

/// The whole API, with and without version in the path.
pub fn router(core: Core) -> Router {
    let pages = handlers::routes().fallback(page_not_found).method_not_allowed_fallback(page_not_found).with_state(core);
    Router::new().fallback(move |request: Request| dispatch(pages.clone(), request))
}

/// Finds the version, hands the request on without it, marks the answer.
async fn dispatch(pages: Router, mut request: Request) -> Response {
    let (named, path) = split_path(request.uri().path());
    let version = named.unwrap_or(ApiVersion::MAX);
    let mut response = match version.check().and_then(|_| without_version(request.uri(), path)) {
        Err(error) => error.into_response(),
        Ok(uri) => {
            *request.uri_mut() = uri;
            request.extensions_mut().insert(version);
            match pages.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    mark(response.headers_mut());
    response
}

fn without_version(uri: &Uri, path: &str) -> Result<Uri, ApiError> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    target.parse().map_err(|_| ApiError::bad_request(format!("malformed request path {path}")))
}

fn mark(headers: &mut HeaderMap) {
    let marks = [
        ("api-version", ApiVersion::MAX.to_string()),
        ("docker-experimental", "false".to_owned()),
        ("ostype", "linux".to_owned()),
        ("server", format!("rcontainerd/{} (linux)", env!("CARGO_PKG_VERSION"))),
    ];
    for (name, value) in marks {
        let value = HeaderValue::from_str(&value).expect("versions are plain ASCII");
        headers.insert(HeaderName::from_static(name), value);
    }
}

async fn page_not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "page not found")
}
