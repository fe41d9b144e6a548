//! Between the wire and the core: errors, namespaces, times, descriptors.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use jiff::Timestamp;
use proto_containerd::types as wire;
use rcontainerd_types::{Descriptor, Digest, Error, ErrorKind, Result, id};
use tonic::{Code, Request, Response, Status};

pub(crate) type Answer<T> = Result<Response<T>, Status>;

/// The one place where a kind of failure becomes a status.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn status(err: Error) -> Status {
    let code = match err.kind() {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::Conflict | ErrorKind::NotModified => Code::FailedPrecondition,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::DataLoss => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    };
    Status::new(code, err.message())
}

/// Runs blocking work and answers with what it gives.
pub(crate) async fn answer<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Answer<T> {
    blocking(work).await.map(Response::new)
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(status),
        Err(err) => Err(Status::internal(format!("work was cut off: {err}"))),
    }
}

pub(crate) fn unimplemented<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{what} is not offered by rcontainerd yet")))
}

/// The namespace that the client works in.
pub(crate) fn namespace<T>(request: &Request<T>) -> Result<String, Status> {
    let value = header(request, "containerd-namespace")
        .ok_or_else(|| Status::failed_precondition("namespace is required: send the header containerd-namespace"))?;
    id::validate_identifier(&value).map_err(status)?;
    Ok(value)
}

/// The lease that is to hold what the request makes.
pub(crate) fn lease<T>(request: &Request<T>) -> Option<String> {
    header(request, "containerd-lease")
}

fn header<T>(request: &Request<T>, name: &str) -> Option<String> {
    request.metadata().get(name)?.to_str().ok().filter(|value| !value.is_empty()).map(str::to_owned)
}

pub(crate) fn timestamp(time: Timestamp) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() })
}

pub(crate) fn system_time(time: SystemTime) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp::from(time))
}

pub(crate) fn labels(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().collect()
}

pub(crate) fn wire_labels(labels: BTreeMap<String, String>) -> HashMap<String, String> {
    labels.into_iter().collect()
}

pub(crate) fn digest(text: &str) -> Result<Digest> {
    text.parse()
}

pub(crate) fn to_wire(descriptor: Descriptor) -> wire::Descriptor {
    wire::Descriptor {
        media_type: descriptor.media_type,
        digest: descriptor.digest.to_string(),
        size: signed(descriptor.size),
        annotations: wire_labels(descriptor.annotations),
    }
}

pub(crate) fn from_wire(descriptor: Option<wire::Descriptor>) -> Result<Descriptor> {
    let descriptor = descriptor.ok_or_else(|| Error::invalid("the image has no target"))?;
    let size = u64::try_from(descriptor.size).map_err(|_| Error::invalid(format!("size {} is negative", descriptor.size)))?;
    let mut parsed = Descriptor::new(descriptor.media_type, digest(&descriptor.digest)?, size);
    parsed.annotations = labels(descriptor.annotations);
    Ok(parsed)
}

/// The wire counts bytes in signed numbers.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Applies a field mask's label paths: all labels, or single ones (`labels.key`).
pub(crate) fn masked_labels(
    mask: Option<&prost_types::FieldMask>,
    current: &mut BTreeMap<String, String>,
    wanted: BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let Some(mask) = mask.filter(|mask| !mask.paths.is_empty()) else {
        *current = wanted;
        return Ok(Vec::new());
    };
    let mut others = Vec::new();
    for path in &mask.paths {
        match path.strip_prefix("labels.") {
            Some(key) => match wanted.get(key).filter(|value| !value.is_empty()) {
                Some(value) => {
                    current.insert(key.to_owned(), value.clone());
                }
                None => {
                    current.remove(key);
                }
            },
            None if path == "labels" => current.clone_from(&wanted),
            None => others.push(path.clone()),
        }
    }
    Ok(others)
}
