//! From a connection's request to a handler: the version in the path, the headers every answer carries, and dockerd's way of
//! saying that there is no such page.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use rcontainerd_core::Core;
use tower::ServiceExt;

use crate::handlers;
use crate::wire::drain;
use crate::wire::error::ApiError;
use crate::wire::version::{ApiVersion, split_path};

/// The whole API, with and without version in the path.
pub fn router(core: Core) -> Router {
    serving(handlers::routes(), core)
}

fn serving<S: Clone + Send + Sync + 'static>(pages: Router<S>, state: S) -> Router {
    let pages = pages.fallback(page_not_found).method_not_allowed_fallback(page_not_found).with_state(state);
    Router::new().fallback(move |request: Request| heard(pages.clone(), request))
}

/// A client that still sends when it is answered gets to see the answer; then the connection is closed.
async fn heard(pages: Router, request: Request) -> Response {
    let asks = request.headers().contains_key(http::header::EXPECT);
    let (head, body) = request.into_parts();
    let (body, answered) = drain::watch(body, asks);
    let mut response = dispatch(pages, Request::from_parts(head, body)).await;
    if answered.answered() {
        response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Pages that answer HEAD; on all others it is a method that there is not, as in dockerd.
fn has_head(path: &str) -> bool {
    path == "/_ping" || (path.starts_with("/containers/") && path.ends_with("/archive"))
}

/// Finds the version, hands the request on without it, marks the answer.
async fn dispatch(pages: Router, mut request: Request) -> Response {
    let (named, path) = split_path(request.uri().path());
    let plain = match *request.method() {
        Method::HEAD if !has_head(path) => Some(page_not_found().await.into_response()),
        Method::OPTIONS => Some(StatusCode::OK.into_response()),
        _ => None,
    };
    if let Some(mut response) = plain {
        mark(response.headers_mut());
        return response;
    }
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt;

    /// Pages of a test's own, served as the API's are.
    pub(crate) fn serve(pages: Router) -> Router {
        serving(pages, ())
    }

    async fn ask(method: Method, path: &str) -> (StatusCode, HeaderMap, String) {
        let pages = Router::new().route("/_ping", get(handlers::ping)).route("/echo", get(async |version: ApiVersion| version.to_string()));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let Ok(response) = serving(pages, ()).oneshot(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn ping_tells_what_clients_negotiate_with() {
        for method in [Method::GET, Method::HEAD] {
            for path in ["/_ping", "/v1.24/_ping", "/v1.51/_ping"] {
                let (status, headers, body) = ask(method.clone(), path).await;
                assert_eq!((status, body.as_str()), (StatusCode::OK, if method == Method::GET { "OK" } else { "" }), "{path}");
                assert_eq!(headers["api-version"], "1.51");
                assert_eq!(headers["ostype"], "linux");
                assert_eq!(headers["docker-experimental"], "false");
                assert!(headers.contains_key("builder-version") && headers.contains_key("server"));
            }
        }
    }

    #[tokio::test]
    async fn the_path_names_the_version_and_none_means_the_newest() {
        assert_eq!(ask(Method::GET, "/v1.41/echo").await.2, "1.41");
        assert_eq!(ask(Method::GET, "/echo").await.2, "1.51");
        let (status, headers, body) = ask(Method::GET, "/v1.99/_ping").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(body, r#"{"message":"client version 1.99 is too new. Maximum supported API version is 1.51"}"#);
        assert_eq!(headers["api-version"], "1.51");
    }

    #[tokio::test]
    async fn only_ping_and_archive_have_heads_and_options_are_welcome_everywhere() {
        let (status, headers, _) = ask(Method::HEAD, "/v1.41/echo").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(headers["ostype"], "linux");
        assert_eq!(ask(Method::OPTIONS, "/v1.41/nope").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn unknown_pages_and_methods_are_not_found() {
        for (method, path) in [(Method::GET, "/v1.41/nope"), (Method::DELETE, "/_ping"), (Method::GET, "/"), (Method::GET, "/v1.41")] {
            let (status, _, body) = ask(method, path).await;
            assert_eq!((status, body.as_str()), (StatusCode::NOT_FOUND, r#"{"message":"page not found"}"#), "{path}");
        }
    }
}
