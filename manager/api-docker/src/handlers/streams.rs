//! Endpoints of a container that stream: attach, logs, stats, wait; and the terminal's size.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use proto_docker::container::{WaitError, WaitResponse};
use rcontainerd_core::Core;
use rcontainerd_core::containers::{
    AttachContainer, InspectContainer, LogsQuery, ResizeTty, StatsSample, WaitCondition, WaitContainer, Waited, Waiter,
};
use rcontainerd_core::io::{LogEntry, OutputKind};
use rcontainerd_types::Error;
use tokio::time::{Duration, Interval, MissedTickBehavior};

use super::system::streaming;
use crate::convert;
use crate::session::{Session, Transport};
use crate::versions;
use crate::wire::detach::DetachScanner;
use crate::wire::error::{ApiError, ApiResult};
use crate::wire::query::{Query, escape};
use crate::wire::raw_stream::{Framing, Source};
use crate::wire::time;
use crate::wire::version::ApiVersion;

pub(super) fn routes() -> Router<Core> {
    Router::new()
        .route("/containers/{id}/attach", post(attach))
        .route("/containers/{id}/attach/ws", get(super::websocket::attach))
        .route("/containers/{id}/logs", get(logs))
        .route("/containers/{id}/stats", get(stats))
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/resize", post(resize))
}

async fn attach(State(core): State<Core>, version: ApiVersion, Path(id): Path<String>, query: Query, request: Request) -> ApiResult {
    let detach = DetachScanner::parse(query.get("detachKeys").unwrap_or(""))?;
    let command = AttachContainer {
        id,
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let io = core.containers.attach(command).await?;
    let (framing, detach) = (Framing::of(io.tty), io.tty.then_some(detach));
    let io = Box::pin(std::future::ready(io));
    Ok(Session { io, framing, detach, version }.serve(Transport::of(request)).await)
}

async fn logs(State(core): State<Core>, version: ApiVersion, Path(id): Path<String>, query: Query) -> ApiResult {
    let command = LogsQuery {
        id: id.clone(),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        follow: query.flag("follow"),
        since: time::parameter(&query, "since")?,
        until: time::parameter(&query, "until")?,
        tail: tail(&query)?,
    };
    if !command.stdout && !command.stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let line = LogLine { timestamps: query.flag("timestamps"), details: query.flag("details") };
    let details = core.containers.inspect(InspectContainer { id, size: false }).await?;
    let framing = Framing::of(details.container.config.tty);
    let entries = core.containers.logs(command).await?;
    let body = entries.map(move |entry| {
        Ok::<_, std::convert::Infallible>(match entry {
            Ok(entry) => framing.encode(source(entry.kind), line.print(entry)),
            Err(error) => framing.encode(Source::SystemError, Bytes::from(error.message().to_owned())),
        })
    });
    Ok(streaming(versions::stream_type(version, framing), Body::from_stream(body)))
}

/// `all`, empty or a negative number: everything.
fn tail(query: &Query) -> Result<Option<u64>, ApiError> {
    if matches!(query.get("tail"), Some("all")) {
        return Ok(None);
    }
    Ok(query.number::<i64>("tail")?.and_then(|lines| u64::try_from(lines).ok()))
}

fn source(kind: OutputKind) -> Source {
    match kind {
        OutputKind::Stderr => Source::Stderr,
        OutputKind::Stdout | OutputKind::Console => Source::Stdout,
    }
}

/// What stands before each line.
#[derive(Clone, Copy)]
struct LogLine {
    timestamps: bool,
    /// The attributes, and the blank that ends them, which is printed without any, too.
    details: bool,
}

impl LogLine {
    fn print(self, entry: LogEntry) -> Bytes {
        if !self.timestamps && !self.details {
            return entry.data;
        }
        let mut line = Vec::new();
        if self.timestamps {
            line.extend_from_slice(time::rfc3339_fixed(entry.time).as_bytes());
            line.push(b' ');
        }
        if self.details {
            let attributes = entry.attributes.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
            line.extend_from_slice(attributes.collect::<Vec<_>>().join(",").as_bytes());
            line.push(b' ');
        }
        line.extend_from_slice(&entry.data);
        line.into()
    }
}

/// The head is sent at once, so that a client can start the container only after this has been subscribed.
async fn wait(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    let condition = match query.get("condition").unwrap_or("") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::bad_request(format!("invalid condition: \"{other}\""))),
    };
    let waiter = core.containers.wait(WaitContainer { id, condition }).await?;
    Ok(streaming("application/json", Body::from_stream(stream::once(waited(waiter)))))
}

async fn waited(waiter: Waiter) -> Result<Bytes, std::convert::Infallible> {
    // Why a start failed is told by the start itself: clients print what stands here as a failure of waiting.
    let body = match waiter.await {
        Ok(Waited { exit_code, .. }) => WaitResponse { error: None, status_code: exit_code },
        Err(error) => WaitResponse { error: Some(WaitError { message: error.message().to_owned() }), status_code: -1 },
    };
    let mut line = serde_json::to_vec(&body).expect("numbers and strings can always be written as JSON");
    line.push(b'\n');
    Ok(line.into())
}

async fn resize(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    let (rows, columns) = size(&query)?;
    core.containers.resize(ResizeTty { id, rows, columns }).await?;
    Ok(StatusCode::OK.into_response())
}

/// `h` and `w`, in that order.
pub(super) fn size(query: &Query) -> Result<(u16, u16), ApiError> {
    let side = |key| query.number::<u16>(key)?.ok_or_else(|| ApiError::bad_request(format!("missing parameter \"{key}\"")));
    Ok((side("h")?, side("w")?))
}

async fn stats(State(core): State<Core>, Path(id): Path<String>, query: Query) -> ApiResult {
    let follow = query.flag_or("stream", true);
    let one_shot = query.flag("one-shot");
    if follow && one_shot {
        return Err(ApiError::bad_request("cannot have stream=true and one-shot=true"));
    }
    let details = core.containers.inspect(InspectContainer { id, size: false }).await?;
    let (id, name) = (details.container.id, details.container.name);
    let first = core.containers.stats(&id).await?;
    let mut sampler = Sampler { core, id, name, every: every_second(), before: None };
    sampler.every.tick().await;
    if follow {
        return Ok(sampler.stream(first));
    }
    if one_shot || first.read.is_none() {
        return Ok(streaming("application/json", Body::from(sampler.line(&first)?)));
    }
    sampler.before = Some(first);
    let second = sampler.next().await?;
    Ok(streaming("application/json", Body::from(sampler.line(&second)?)))
}

fn every_second() -> Interval {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}

/// Takes a sample a second and remembers the last.
struct Sampler {
    core: Core,
    id: String,
    name: String,
    every: Interval,
    before: Option<StatsSample>,
}

impl Sampler {
    async fn next(&mut self) -> Result<StatsSample, Error> {
        self.every.tick().await;
        self.core.containers.stats(&self.id).await
    }

    fn line(&self, sample: &StatsSample) -> Result<Bytes, Error> {
        let body = convert::stats::stats(&self.id, &self.name, sample, self.before.as_ref());
        let mut line = serde_json::to_vec(&body).map_err(|error| Error::internal(format!("stats of {}: {error}", self.id)))?;
        line.push(b'\n');
        Ok(line.into())
    }

    /// Ends when the container is gone.
    fn stream(self, first: StatsSample) -> Response {
        let lines = stream::unfold((self, Some(first)), |(mut sampler, first)| async move {
            let sample = match first {
                Some(sample) => sample,
                None => sampler.next().await.ok()?,
            };
            let line = sampler.line(&sample);
            sampler.before = Some(sample);
            Some((line, (sampler, None)))
        });
        streaming("application/json", Body::from_stream(lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).expect("a query")
    }

    #[test]
    fn tail_is_a_number_or_all() {
        assert_eq!(tail(&query("tail=all")).expect("all"), None);
        assert_eq!(tail(&query("tail=-1")).expect("all"), None);
        assert_eq!(tail(&query("")).expect("all"), None);
        assert_eq!(tail(&query("tail=0")).expect("none"), Some(0));
        assert!(tail(&query("tail=x")).is_err());
    }

    #[test]
    fn log_lines_are_stamped_with_nine_digits() {
        let time = "2026-11-21T04:11:17.5Z".parse().expect("a time");
        let attributes = [("b", "1 & 2"), ("a", "x")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let entry = LogEntry { kind: OutputKind::Stdout, time, attributes, data: Bytes::from_static(b"hi\n") };
        let stamped = LogLine { timestamps: true, details: false }.print(entry.clone());
        assert_eq!(&stamped[..], b"2026-11-21T04:11:17.500000000Z hi\n");
        assert_eq!(&LogLine { timestamps: false, details: true }.print(entry.clone())[..], b"a=x,b=1+%26+2 hi\n");
        assert_eq!(&LogLine { timestamps: false, details: false }.print(entry)[..], b"hi\n");
    }

    #[tokio::test]
    async fn only_a_failure_of_waiting_itself_is_an_error() {
        let failed: Waiter = Box::pin(async { Err(Error::internal("lost")) });
        assert_eq!(&waited(failed).await.expect("a line")[..], b"{\"Error\":{\"Message\":\"lost\"},\"StatusCode\":-1}\n");
        let fine: Waiter = Box::pin(async { Ok(Waited { exit_code: 3, error: Some("no such program".into()) }) });
        assert_eq!(&waited(fine).await.expect("a line")[..], b"{\"StatusCode\":3}\n");
    }
}
