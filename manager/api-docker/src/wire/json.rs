//! JSON bodies in and out, with dockerd's words for malformed ones.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use super::error::ApiError;

/// A request body larger than this is refused; the largest real create bodies are a few KiB.
const BODY_MAX: usize = 4 << 20;

/// A JSON body that must be there.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// A JSON body that may be missing (`Content-Length: 0`), which reads as the default.
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Err(ApiError::bad_request("invalid JSON: got EOF while reading request body"));
        }
        check_content_type(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_content_type(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, BODY_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<http_body_util::LengthLimitError>().is_some() => {
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("request body is larger than {BODY_MAX} bytes")))
        }
        Err(error) => Err(ApiError::bad_request(format!("failed to read request body: {error}"))),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let media = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if media.is_empty() || media == "application/json" {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("unsupported Content-Type header ({media}): must be 'application/json'")))
}

/// Parses one JSON value that must be all there is.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let what = if error.is_eof() { "unexpected EOF".to_owned() } else { error.to_string() };
        ApiError::bad_request(format!("invalid JSON: {what}"))
    })
}

/// A JSON answer as dockerd writes it: with a line feed at the end.
pub(crate) struct Json<T>(pub(crate) StatusCode, pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        answer(self.0, serde_json::to_vec(&self.1))
    }
}

fn answer(status: StatusCode, written: serde_json::Result<Vec<u8>>) -> Response {
    match written {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (status, [kind], bytes).into_response()
        }
        Err(error) => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("answer cannot be written as JSON: {error}")).into_response()
        }
    }
}

/// 200 with a JSON body.
pub(crate) fn ok<T: Serialize>(value: T) -> Response {
    Json(StatusCode::OK, value).into_response()
}

/// 200 with a list, each of whose elements is made, written and dropped in its turn: of ten thousand there is never more than one.
pub(crate) fn list<T: Serialize>(elements: impl IntoIterator<Item = T>) -> Response {
    let mut bytes = Vec::new();
    let written = serde_json::Serializer::new(&mut bytes).collect_seq(elements);
    answer(StatusCode::OK, written.map(|()| bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_docker::exec::ExecStartRequest;

    async fn body(text: &str, kind: Option<&str>) -> Result<ExecStartRequest, String> {
        let mut request = Request::post("/");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let request = request.body(Body::from(text.to_owned())).expect("a request");
        JsonBody::from_request(request, &()).await.map(|JsonBody(value)| value).map_err(|error| error.message().to_owned())
    }

    #[tokio::test]
    async fn malformed_bodies_are_told_apart() {
        assert_eq!(body("", None).await, Err("invalid JSON: got EOF while reading request body".into()));
        assert_eq!(body("{", None).await, Err("invalid JSON: unexpected EOF".into()));
        assert!(body("{}{}", None).await.expect_err("two values").starts_with("invalid JSON: trailing"));
        assert!(body(r#"{"Detach":5}"#, None).await.expect_err("a number").contains("expected a boolean"));
        let plain = body("{}", Some("text/plain")).await.expect_err("text");
        assert_eq!(plain, "unsupported Content-Type header (text/plain): must be 'application/json'");
        assert!(body(r#"{"Detach":true,"Unknown":1}"#, Some("application/json; charset=utf-8")).await.expect("good").detach);
    }

    #[tokio::test]
    async fn a_list_is_written_one_by_one() {
        struct Counted<'a>(&'a std::cell::Cell<usize>);
        impl Serialize for Counted<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.0.get() as u64)
            }
        }
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        let alive = std::cell::Cell::new(0);
        let elements = (0..3).map(|_| {
            alive.set(alive.get() + 1);
            Counted(&alive)
        });
        let response = list(elements);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(&body[..], b"[1,1,1]\n", "never more than one is there");
        let none = list(Vec::<u8>::new()).into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(&none[..], b"[]\n");
    }

    #[tokio::test]
    async fn endless_bodies_are_cut_off() {
        let error = body(&" ".repeat(BODY_MAX + 1), None).await.expect_err("too large");
        assert_eq!(error, format!("request body is larger than {BODY_MAX} bytes"));
    }
}
