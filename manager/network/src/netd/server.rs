//! netd's side.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use rcontainerd_types::{Error, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::{Answer, Request, Serve};
use crate::dns::serve::Resolver;

/// How long a netd that serves nobody waits for its manager's first word: one that was killed before will never come.
const LONELY: Duration = Duration::from_secs(10);

/// Serves until the manager is gone and nothing is left to serve. Its socket stays, for a later netd may have it by then. Writes a line to standard output once the socket can be connected.
///
/// # Errors
/// When the socket cannot be made; a request that fails is answered with its error.
pub async fn run(socket: &Path) -> Result<()> {
    let listener = listen(socket)?;
    let mut out = std::io::stdout();
    writeln!(out, "ready").and_then(|()| out.flush()).map_err(|err| Error::io("tell that netd is ready", err))?;
    let mut resolver = Resolver::default();
    loop {
        // Served containers are left alone with their netd for as long as the manager is away.
        let patience = if resolver.is_idle() { LONELY } else { Duration::MAX };
        let Ok(accepted) = tokio::time::timeout(patience, listener.accept()).await else { return Ok(()) };
        let (stream, _) = accepted.map_err(|err| Error::io("accept the manager's connection", err))?;
        // One manager at a time: the root directory's lock sees to it.
        if let Err(err) = follow(stream, &mut resolver).await {
            tracing::warn!("the manager's connection: {err}");
        }
        if resolver.is_idle() {
            return Ok(());
        }
    }
}

fn listen(socket: &Path) -> Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(format!("remove {}", socket.display()), err)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(|err| Error::io(format!("listen on {}", socket.display()), err))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(socket, mode).map_err(|err| Error::io(format!("set the mode of {}", socket.display()), err))?;
    Ok(listener)
}

async fn follow(stream: UnixStream, resolver: &mut Resolver) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let done = serde_json::from_str(&line)
            .map_err(|err| err.to_string())
            .and_then(|request| act(resolver, request).map_err(|err| err.to_string()));
        let mut answer = serde_json::to_vec(&Answer { error: done.err() })?;
        answer.push(b'\n');
        writer.write_all(&answer).await?;
    }
    Ok(())
}

fn act(resolver: &mut Resolver, request: Request) -> Result<()> {
    match request {
        Request::Sync { serve, endpoints } => return sync(resolver, serve, endpoints),
        Request::Serve(Serve { container, netns, view }) => return resolver.serve(&container, &netns, view),
        Request::Stop { container } => resolver.stop(&container),
        Request::Join(endpoint) => resolver.names().join(endpoint),
        Request::Leave { network, container } => resolver.names().leave(&network, &container),
    }
    Ok(())
}

/// One namespace that cannot be served does not keep the others from it.
fn sync(resolver: &mut Resolver, serve: Vec<Serve>, endpoints: Vec<crate::dns::Endpoint>) -> Result<()> {
    let wanted: HashSet<&String> = serve.iter().map(|serve| &serve.container).collect();
    for container in resolver.containers() {
        if !wanted.contains(&container) {
            resolver.stop(&container);
        }
    }
    *resolver.names() = crate::dns::Names::default();
    for endpoint in endpoints {
        resolver.names().join(endpoint);
    }
    serve.into_iter().map(|Serve { container, netns, view }| resolver.serve(&container, &netns, view)).fold(Ok(()), Result::and)
}
