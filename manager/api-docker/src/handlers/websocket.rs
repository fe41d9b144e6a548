//! `GET /containers/{id}/attach/ws`: attach for browsers. Each message of the client is input, each piece of output is a binary message,
//! both bare.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use rcontainerd_core::Core;
use rcontainerd_core::containers::AttachContainer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use crate::session::{Session, upgrade};
use crate::wire::detach::DetachScanner;
use crate::wire::error::{ApiError, ApiResult};
use crate::wire::query::Query;
use crate::wire::raw_stream::Framing;
use crate::wire::version::ApiVersion;

/// Bytes of output in one message, and between the session and the socket.
const CHUNK: usize = 32 << 10;
/// A message longer than this is no typing.
const MESSAGE_MAX: usize = 1 << 20;

pub(super) async fn attach(
    State(core): State<Core>,
    version: ApiVersion,
    Path(id): Path<String>,
    query: Query,
    mut request: Request,
) -> ApiResult {
    core.containers.resolve_id(&id).await?;
    let accept = accept_key(request.headers())?;
    let detach = DetachScanner::parse(query.get("detachKeys").unwrap_or(""))?;
    let command = AttachContainer {
        id,
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let Some((on, protocol)) = upgrade(&mut request) else { return Err(no_handshake()) };
    let io = core.containers.attach(command).await?;
    let detach = io.tty.then_some(detach);
    let session = Session { io: Box::pin(std::future::ready(io)), framing: Framing::Raw, detach, version };
    tokio::spawn(async move {
        match on.await {
            Ok(connection) => serve(session, TokioIo::new(connection)).await,
            Err(error) => tracing::debug!(%error, "client went away before its websocket was open"),
        }
    });
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocol);
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

fn no_handshake() -> ApiError {
    ApiError::bad_request("not a websocket handshake: expected Upgrade: websocket and Sec-WebSocket-Key")
}

fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, ApiError> {
    let is_websocket = headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_websocket).ok_or_else(no_handshake)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| no_handshake())
}

async fn serve<S>(session: Session, connection: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let limits = WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
    let socket = WebSocketStream::from_raw_socket(connection, Role::Server, Some(limits)).await;
    let (ours, theirs) = tokio::io::duplex(CHUNK);
    let (reader, writer) = tokio::io::split(theirs);
    let bridge = tokio::spawn(bridge(socket, ours));
    session.pump(reader, writer).await;
    if let Err(error) = bridge.await {
        tracing::debug!(%error, "websocket was cut off");
    }
}

/// Messages to bytes and back, until either side ends.
async fn bridge<S>(socket: WebSocketStream<S>, session: DuplexStream)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut out, mut messages) = socket.split();
    let (mut output, mut input) = tokio::io::split(session);
    let incoming = async {
        while let Some(Ok(message)) = messages.next().await {
            let data = match message {
                Message::Text(text) => text.as_bytes().to_vec(),
                Message::Binary(data) => data.to_vec(),
                Message::Close(_) => break,
                // Pings are answered by the protocol's own code.
                _ => continue,
            };
            if input.write_all(&data).await.is_err() {
                break;
            }
        }
        // The session sees the end of input; its output may go on.
        drop(input.shutdown().await);
        std::future::pending::<()>().await;
    };
    let outgoing = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(read @ 1..) = output.read(&mut chunk).await {
            if out.send(Message::binary(chunk[..read].to_vec())).await.is_err() {
                return;
            }
        }
        drop(out.close().await);
    };
    tokio::select! {
        () = incoming => {}
        () = outgoing => {}
    }
}
