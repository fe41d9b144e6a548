//! Processes added to running containers.

use axum::Router;
use axum::extract::{FromRequest, Path, Request, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use base64::Engine;
use http::StatusCode;
use proto_docker::container::IdResponse;
use proto_docker::exec::{ExecCreateRequest, ExecInspect, ExecProcessConfig, ExecStartRequest};
use rcontainerd_core::Core;
use rcontainerd_core::execs::{CreateExec, Exec, ResizeExec, StartExec};
use rcontainerd_types::Error;

use super::streams::size;
use crate::convert::host_config::console_size;
use crate::session::{self, Session, Starting, Transport};
use crate::versions;
use crate::wire::detach::DetachScanner;
use crate::wire::error::{ApiError, ApiResult};
use crate::wire::json::{self, Json, JsonBody, OptionalJson};
use crate::wire::query::Query;
use crate::wire::raw_stream::Framing;
use crate::wire::version::ApiVersion;

pub(super) fn routes() -> Router<Core> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    State(core): State<Core>,
    version: ApiVersion,
    Path(container): Path<String>,
    JsonBody(mut body): JsonBody<ExecCreateRequest>,
) -> ApiResult {
    versions::exec_create(version, &mut body);
    let cmd = body.cmd.map(|list| list.0).unwrap_or_default();
    if cmd.is_empty() {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    DetachScanner::parse(&body.detach_keys)?;
    let command = CreateExec {
        container,
        cmd,
        user: body.user,
        env: body.env.unwrap_or_default(),
        working_dir: body.working_dir,
        tty: body.tty,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        privileged: body.privileged,
        detach_keys: body.detach_keys,
        console_size: body.console_size.and_then(console_size),
    };
    let id = core.execs.create(command).await?;
    Ok(Json(StatusCode::CREATED, IdResponse { id }).into_response())
}

async fn start(State(core): State<Core>, version: ApiVersion, Path(id): Path<String>, mut request: Request) -> ApiResult {
    let upgrade = session::upgrade(&mut request);
    let OptionalJson(mut body) = OptionalJson::<ExecStartRequest>::from_request(request, &()).await?;
    versions::exec_start(version, &mut body);
    let exec = core.execs.inspect(&id).await?;
    let command = StartExec { id, detach: body.detach, console_size: body.console_size.and_then(console_size) };
    if body.detach || exec.running || exec.exit_code.is_some() {
        // One that ran already is refused here, while there is still a status to say it with.
        core.execs.start(command).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let transport = match upgrade {
        Some((on, protocol)) => Transport::Upgrade { on, protocol },
        None => Transport::Plain(axum::body::Body::empty()),
    };
    let framing = Framing::of(body.tty);
    let detach = exec.request.tty.then(|| DetachScanner::parse(&exec.request.detach_keys)).transpose()?;
    let io: Starting = Box::pin(async move {
        match core.execs.start(command).await {
            Ok(Some(io)) => io,
            Ok(None) => session::refusal(framing, &Error::internal("the process was started without streams")),
            Err(error) => session::refusal(framing, &error),
        }
    });
    Ok(Session { io, framing, detach, version }.serve(transport).await)
}

async fn resize(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    let (rows, columns) = size(&query)?;
    core.execs.resize(ResizeExec { id, rows, columns }).await?;
    Ok(StatusCode::OK.into_response())
}

async fn inspect(State(core): State<Core>, version: ApiVersion, Path(id): Path<String>) -> ApiResult {
    let exec = core.execs.inspect(&id).await?;
    let mut body = body(&exec);
    if exec.start_failed {
        versions::failed_exec(version, &mut body);
    }
    Ok(json::ok(body))
}

/// The bytes of the key sequence, in base64: dockerd's clients read them so.
fn detach_keys(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let keys = DetachScanner::parse(text).map(|scanner| scanner.keys().to_vec()).unwrap_or_default();
    base64::engine::general_purpose::STANDARD.encode(keys)
}

fn body(exec: &Exec) -> ExecInspect {
    let request = &exec.request;
    let (entrypoint, arguments) = request.cmd.split_first().map_or_else(Default::default, |(first, rest)| (first.clone(), rest.to_vec()));
    ExecInspect {
        id: exec.id.clone(),
        running: exec.running,
        exit_code: exec.exit_code,
        process_config: ExecProcessConfig {
            tty: request.tty,
            entrypoint,
            arguments,
            privileged: Some(request.privileged),
            user: request.user.clone(),
        },
        open_stdin: request.attach_stdin,
        open_stderr: request.attach_stderr,
        open_stdout: request.attach_stdout,
        can_remove: false,
        container_id: exec.container_id.clone(),
        detach_keys: detach_keys(&request.detach_keys),
        pid: exec.pid.into(),
    }
}
