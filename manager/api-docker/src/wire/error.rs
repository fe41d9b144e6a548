//! Failures as HTTP answers: `{"message": "…"}` with a status.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use proto_docker::error::ErrorResponse;
use rcontainerd_types::{Error, ErrorKind};

/// An answer that tells of a failure.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// What we do not offer; `what` names it, `remedy` says what to do instead (may be empty).
    pub(crate) fn unsupported(what: &str, remedy: &str) -> Self {
        let tail = if remedy.is_empty() { String::new() } else { format!(": {remedy}") };
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not supported yet{tail}"))
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// The one mapping from what went wrong to HTTP.
pub(crate) fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorKind::AlreadyExists | ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::ResourceExhausted | ErrorKind::Cancelled | ErrorKind::DataLoss | ErrorKind::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        if matches!(error.kind(), ErrorKind::Internal | ErrorKind::DataLoss) {
            tracing::error!(?error, "request failed");
        }
        Self::new(status(error.kind()), error.message())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        (self.status, axum::Json(ErrorResponse { message: self.message })).into_response()
    }
}

pub(crate) type ApiResult<T = Response> = Result<T, ApiError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_modified_has_no_body() {
        let response = ApiError::from(Error::new(ErrorKind::NotModified, "already stopped")).into_response();
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert!(response.headers().get(http::header::CONTENT_TYPE).is_none());
    }
}
