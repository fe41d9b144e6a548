//! The daemon's life: sockets, services, ready, signals, farewell. Containers are not part of it: they live in their shims.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::programs::Programs;
use crate::{collect, compose, notify, sockets};

/// Serves until SIGTERM or SIGINT.
pub fn run(config: &Config, pid_file: Option<&Path>) -> Result<()> {
    sockets::safe_dir(&config.state)?;
    // The root's lock first: only its holder may touch stale sockets.
    let store = compose::open_store(config)?;
    let mut passed = sockets::passed_by_systemd()?;
    let group = sockets::group(config.group.as_deref())?;
    let docker = sockets::listen(&config.state.join("docker.sock"), group, &mut passed)?;
    let native = sockets::listen(&config.state.join("rcontainerd.sock"), group, &mut passed)?;
    for name in passed.keys() {
        tracing::warn!("systemd passed a socket that we do not serve: {name}");
    }
    let programs = Programs::find()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start the async runtime")?;
    let pid_file = PidFile::write(pid_file)?;
    let served = runtime.block_on(serve(config, store, &programs, docker, native));
    drop(pid_file);
    // Blocking work (an unpack, say) must not hold up the end: the store is crash-safe.
    runtime.shutdown_background();
    served
}

async fn serve(
    config: &Config,
    store: rcontainerd_store::Store,
    programs: &Programs,
    docker: UnixListener,
    native: UnixListener,
) -> Result<()> {
    let core = compose::core(config, store.clone(), programs).await?;
    collect::spawn(store);
    let stop = CancellationToken::new();
    let docker = tokio::net::UnixListener::from_std(docker).context("prepare the Docker API's socket")?;
    let native = tokio::net::UnixListener::from_std(native).context("prepare the containerd API's socket")?;
    let pages = rcontainerd_api_docker::router(core.clone());
    let farewell = stop.clone();
    let mut docker = tokio::spawn(async move { axum::serve(docker, pages).with_graceful_shutdown(farewell.cancelled_owned()).await });
    let routes = rcontainerd_api_containerd::router(core.clone());
    let farewell = stop.clone();
    let mut native = tokio::spawn(async move {
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(native);
        tonic::transport::Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, farewell.cancelled_owned()).await
    });
    notify::notify("READY=1");
    tracing::info!(root = %config.root.display(), state = %config.state.display(), "ready");
    tokio::select! {
        signal = ending() => tracing::info!(signal = signal?, "stopping; containers live on"),
        ended = &mut docker => ended.context("Docker API")?.context("serve the Docker API")?,
        ended = &mut native => ended.context("containerd API")?.context("serve the containerd API")?,
    }
    notify::notify("STOPPING=1");
    stop.cancel();
    // Followers of logs and events would hold a graceful end up for ever: they are cut off, clients see the end of the stream.
    docker.abort();
    native.abort();
    // What watches the containers lets go of the root; the containers do not notice.
    core.close();
    drop(core);
    Ok(())
}

/// Resolves to the name of the signal that asks us to end.
async fn ending() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// Removed when dropped, so that a script does not signal a stranger.
struct PidFile(Option<PathBuf>);

impl PidFile {
    fn write(path: Option<&Path>) -> Result<Self> {
        if let Some(path) = path {
            std::fs::write(path, format!("{}\n", std::process::id())).with_context(|| format!("write pid file {}", path.display()))?;
        }
        Ok(Self(path.map(Path::to_owned)))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(err) = std::fs::remove_file(path)
        {
            tracing::warn!("remove pid file {}: {err}", path.display());
        }
    }
}
