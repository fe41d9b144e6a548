//! One module per group of endpoints; a handler reads parameters, calls core once, and prints.

mod containers;
mod execs;
mod files;
mod images;
mod networks;
mod streams;
mod system;
mod unsupported;
mod volumes;
mod websocket;

#[cfg(test)]
pub(crate) use system::ping;

use axum::Router;
use axum::extract::FromRequestParts;
use http::request::Parts;
use rcontainerd_core::Core;

use crate::wire::error::ApiError;
use crate::wire::version::ApiVersion;

/// Every page, without version.
pub(crate) fn routes() -> Router<Core> {
    Router::new()
        .merge(system::routes())
        .merge(containers::routes())
        .merge(streams::routes())
        .merge(execs::routes())
        .merge(files::routes())
        .merge(images::routes())
        .merge(volumes::routes())
        .merge(networks::routes())
        .merge(unsupported::routes())
}

impl<S: Send + Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = ApiError;

    /// The version that the request's path named, else the newest.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get().copied().unwrap_or(Self::MAX))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_routes_are_in_each_others_way() {
        assert!(super::routes().has_routes());
    }
}
