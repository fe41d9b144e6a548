//! Images on their way in and out: pull, load, save; and the credentials for it.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use proto_docker::auth::{AuthConfig, AuthResponse};
use rcontainerd_core::Core;
use rcontainerd_core::images::{Credentials, ImportImage, LoadedImage, Pull, PullEvent, PullImage, PushImage};
use rcontainerd_types::{Error, ErrorKind, Platform, Reference};
use std::convert::Infallible;

use super::stream_of;
use crate::convert;
use crate::wire::error::{ApiError, ApiResult};
use crate::wire::json::{self, JsonBody};
use crate::wire::query::Query;
use crate::wire::{pipe, progress};

/// Clients differ in whether they pad.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// `POST /images/create`: `fromImage` pulls, `fromSrc=-` makes an image of the body, a tar of a root filesystem.
pub(super) async fn create(state: State<Core>, query: Query, headers: HeaderMap, request: Request) -> ApiResult {
    match query.text("fromSrc") {
        Some(source) if query.text("fromImage").is_none() => import(state, &query, source, request).await,
        _ => pull(state, query, headers).await,
    }
}

async fn import(State(core): State<Core>, query: &Query, source: &str, request: Request) -> ApiResult {
    if source != "-" {
        let what = format!("importing from {source}: fetching archives is not the engine's business");
        return Err(ApiError::unsupported(&what, "fetch it and pipe it into `import -`"));
    }
    let command = ImportImage {
        reference: super::super::files::reference(query.text("repo"), query.text("tag"))?,
        message: query.text("message").unwrap_or("Imported from -").to_owned(),
        changes: query.all("changes"),
        platform: query.text("platform").map(str::parse::<Platform>).transpose()?,
    };
    let id = core.images.import(command, pipe::reader(request.into_body())).await?;
    Ok(stream_of("application/json", Body::from(progress::line(&progress::status(id.to_string())))))
}

/// `POST /images/create?fromImage=…`. A pull that fails before it has begun answers with a status, later ones in the stream.
async fn pull(State(core): State<Core>, query: Query, headers: HeaderMap) -> ApiResult {
    let Some(image) = query.text("fromImage") else {
        return Err(ApiError::bad_request("missing parameter \"fromImage\""));
    };
    let (reference, all_tags) = reference(image, query.text("tag"))?;
    let platform = query.text("platform").map(str::parse::<Platform>).transpose()?;
    let credentials = credentials(&headers)?;
    let mut pull = core.images.pull(PullImage { reference, platform, credentials, all_tags });
    let mut first = Vec::new();
    while first.len() < 2 {
        match pull.next().await {
            Some(event) => first.push(event),
            None => break,
        }
    }
    if first.len() < 2 {
        pull.finish().await.map_err(refused)?;
        return Ok(stream_of("application/json", Body::from(lines(&first))));
    }
    let head = stream::once(std::future::ready(Ok::<_, Infallible>(lines(&first))));
    Ok(stream_of("application/json", Body::from_stream(head.chain(rest(pull)))))
}

/// As dockerd's, a pull's answer is never 401: by that docker's clients ask for a password, where no terminal is for ever.
pub(super) fn refused(error: Error) -> ApiError {
    match error.kind() {
        ErrorKind::Unauthenticated => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.message()),
        _ => error.into(),
    }
}

/// The `platform` of an image that is here: an object of the image-spec as JSON, or `os/arch[/variant]`; one at most.
pub(super) fn platform(query: &Query) -> Result<Option<Platform>, ApiError> {
    let given = query.all("platform");
    let text = match &given[..] {
        [] => return Ok(None),
        [one] if one.is_empty() => return Ok(None),
        [one] => one,
        _ => return Err(ApiError::unsupported("choosing several platforms at once", "name one, or none for all")),
    };
    if !text.starts_with('{') {
        return Ok(Some(text.parse()?));
    }
    let parsed: Platform =
        serde_json::from_str(text).map_err(|error| ApiError::bad_request(format!("invalid platform {text}: {error}")))?;
    Ok(Some(parsed.to_string().parse()?))
}

/// The name, and whether all tags of the repository are meant.
fn reference(image: &str, tag: Option<&str>) -> Result<(Reference, bool), ApiError> {
    let named: Reference = image.parse::<Reference>()?;
    let reference = match tag {
        Some(tag) if tag.contains(':') => named.with_digest(tag.parse()?),
        Some(tag) => named.with_tag(tag)?,
        None => named,
    };
    let all_tags = reference.tag().is_none() && reference.digest().is_none();
    Ok((reference, all_tags))
}

fn lines(events: &[PullEvent]) -> Bytes {
    events.iter().flat_map(|event| progress::line(&progress::pull_message(event))).collect()
}

/// What is still to come, then the outcome if it is a failure. Dropped with the connection, it cancels the pull.
fn rest(pull: Pull) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(Some(pull), |pull| async move {
        let mut pull = pull?;
        if let Some(event) = pull.next().await {
            return Some((Ok(lines(&[event])), Some(pull)));
        }
        let error = pull.finish().await.err()?;
        Some((Ok(progress::line(&progress::error_message(&error))), None))
    })
}

/// From `X-Registry-Auth`: base64url of an [`AuthConfig`].
pub(super) fn credentials(headers: &HeaderMap) -> Result<Credentials, ApiError> {
    let Some(value) = headers.get("x-registry-auth") else {
        return Ok(Credentials::Anonymous);
    };
    let refuse = |why: String| ApiError::bad_request(format!("invalid X-Registry-Auth header: {why}"));
    let text = value.to_str().map_err(|_| refuse("not ASCII".to_owned()))?.replace('+', "-").replace('/', "_");
    if text.is_empty() {
        return Ok(Credentials::Anonymous);
    }
    let bytes = BASE64.decode(text.as_bytes()).map_err(|error| refuse(error.to_string()))?;
    let auth: AuthConfig = serde_json::from_slice(&bytes).map_err(|error| refuse(format!("must be JSON: {error}")))?;
    Ok(from_auth(auth))
}

pub(super) fn from_auth(auth: AuthConfig) -> Credentials {
    if !auth.registrytoken.is_empty() {
        return Credentials::RegistryToken(auth.registrytoken);
    }
    if !auth.identitytoken.is_empty() {
        return Credentials::IdentityToken(auth.identitytoken);
    }
    if !auth.username.is_empty() {
        return Credentials::Basic { username: auth.username, password: auth.password };
    }
    let packed = base64::engine::general_purpose::STANDARD.decode(&auth.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match packed.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((username, password)) => {
            Credentials::Basic { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() }
        }
        None => Credentials::Anonymous,
    }
}

/// `POST /auth`: whether a registry takes these credentials.
pub(super) async fn auth(State(core): State<Core>, JsonBody(body): JsonBody<AuthConfig>) -> ApiResult {
    let server = body.serveraddress.clone();
    let identity_token = core.images.login(&server, &from_auth(body)).await?.unwrap_or_default();
    Ok(json::ok(AuthResponse { status: "Login Succeeded".to_owned(), identity_token }))
}

/// `GET /distribution/{name}/json`: what the name stands for at its registry. `…/manifest` is ours: the documents as they are there.
pub(super) async fn distribution(State(core): State<Core>, Path(path): Path<String>, headers: HeaderMap) -> ApiResult {
    if let Some(name) = path.strip_suffix("/manifest") {
        let reference = name.parse::<Reference>()?.or_latest();
        let found = core.images.remote_manifest(&reference, &credentials(&headers)?).await.map_err(refused)?;
        return Ok(json::ok(convert::image::remote_manifest(&found)?));
    }
    let name = path.strip_suffix("/json").ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "page not found"))?;
    let reference = name.parse::<Reference>()?.or_latest();
    let found = core.images.remote(&reference, &credentials(&headers)?).await?;
    Ok(json::ok(convert::image::distribution(&found)))
}

/// `POST /images/{name}/push`: what happens, and the failure if there is one, are told in the stream.
pub(super) async fn push(core: &Core, name: &str, query: &Query, headers: &HeaderMap) -> ApiResult {
    let platform = platform(query)?;
    let named: Reference = name.parse()?;
    if named.digest().is_some() {
        return Err(ApiError::bad_request("cannot push a digest reference"));
    }
    let reference = match query.text("tag") {
        Some(tag) => named.with_tag(tag)?,
        None => named,
    };
    let events = core.images.push(PushImage { reference, platform, credentials: credentials(headers)? });
    let lines = stream::unfold(events, |mut events| async move {
        let line: Bytes = match events.recv().await? {
            Ok(event) => progress::push_messages(&event).iter().map(progress::line).collect::<Vec<_>>().concat().into(),
            Err(error) => progress::line(&progress::error_message(&error)),
        };
        Some((Ok::<_, Infallible>(line), events))
    });
    Ok(stream_of("application/json", Body::from_stream(lines)))
}

/// `POST /images/load`: the body is the archive. As dockerd, a failure is told in the stream.
pub(super) async fn load(State(core): State<Core>, query: Query, request: Request) -> ApiResult {
    let platform = platform(&query)?;
    let lines: Vec<Bytes> = match core.images.load(pipe::reader(request.into_body()), platform).await {
        Ok(loaded) => loaded.iter().map(|image| progress::line(&progress::stream(loaded_line(image)))).collect(),
        Err(error) => vec![progress::line(&progress::error_message(&error))],
    };
    Ok(stream_of("application/json", Body::from(lines.concat())))
}

fn loaded_line(image: &LoadedImage) -> String {
    match &image.name {
        Some(name) => format!("Loaded image: {}\n", name.familiar()),
        None => format!("Loaded image ID: {}\n", image.id),
    }
}

/// `GET /images/get?names=…`.
pub(super) async fn save_many(State(core): State<Core>, query: Query) -> ApiResult {
    let names = query.all("names");
    if names.is_empty() {
        return Err(ApiError::bad_request("missing parameter \"names\""));
    }
    save(&core, names, platform(&query)?).await
}

/// An archive of the named images. A name that is not there answers with a status: the head waits for the first bytes.
pub(super) async fn save(core: &Core, names: Vec<String>, platform: Option<Platform>) -> ApiResult {
    let (writer, mut chunks) = pipe::writer();
    let images = core.images.clone();
    let task = tokio::spawn(async move { images.save(names, platform, writer).await });
    let Some(first) = chunks.recv().await else {
        task.await.map_err(|error| Error::internal(format!("save: {error}")))??;
        return Ok(archive(Body::empty()));
    };
    Ok(archive(pipe::body_after(first, chunks, task)))
}

fn archive(body: Body) -> Response {
    stream_of("application/x-tar", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> HeaderMap {
        let packed = base64::engine::general_purpose::URL_SAFE.encode(json);
        HeaderMap::from_iter([(http::HeaderName::from_static("x-registry-auth"), packed.parse().expect("a header"))])
    }

    #[test]
    fn credentials_come_in_four_shapes() {
        let read = |json| credentials(&header(json)).expect("good");
        let basic = || Credentials::Basic { username: "u".into(), password: "p:q".into() };
        assert_eq!(read(r#"{"username":"u","password":"p:q","serveraddress":"x"}"#), basic());
        assert_eq!(read(r#"{"auth":"dTpwOnE="}"#), basic());
        assert_eq!(read("{}"), Credentials::Anonymous);
        assert_eq!(credentials(&HeaderMap::new()).expect("none"), Credentials::Anonymous);
        assert!(credentials(&header("[")).is_err());
    }

    #[test]
    fn a_pull_without_tag_means_all_tags_and_digests_are_no_tags() {
        assert!(reference("busybox", None).expect("good").1);
        let (named, all) = reference("localhost:5000/a", Some("1.0")).expect("good");
        assert_eq!((named.to_string().as_str(), all), ("localhost:5000/a:1.0", false));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(reference("busybox", Some(&digest)).expect("good").0.to_string(), format!("docker.io/library/busybox@{digest}"));
        assert!(reference("Not/Good", None).is_err());
    }
}
