//! The daemon's life: sockets, services, ready, signals, farewell. Containers are not part of it: they live in their shims.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::stat::{Mode, umask};
use rcontainerd_core::fsck::REPAIRED;
use rcontainerd_types::Finding;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::config::Config;
use crate::logging::Log;
use crate::programs::Programs;
use crate::{collect, compose, notify, sockets};

/// Serves until SIGTERM or SIGINT.
pub fn run(config: &Config, args: &Args, log: &Log) -> Result<()> {
    // The caller's umask must not decide who reaches sockets and containers' root directories.
    umask(Mode::from_bits_truncate(0o022));
    rrun_sys::memory::keep_little();
    let [docker, native] = ["docker.sock", "rcontainerd.sock"].map(|name| config.state.join(name));
    // What can be refused is refused before anything is made.
    let mut passed = sockets::passed_by_systemd()?;
    let group = sockets::group(config.group.as_deref())?;
    let programs = Programs::find()?;
    for dir in [&config.root, &config.state] {
        sockets::check_dir(dir)?;
    }
    for socket in [&docker, &native] {
        sockets::check_free(socket, &passed)?;
    }
    sockets::safe_dir(&config.root)?;
    // The root's lock first: only its holder may touch stale sockets, or make a state directory.
    let store = compose::open_store(config)?;
    sockets::safe_dir(&config.state)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start the async runtime")?;
    // Before the sockets: who can connect may also ask us to end, and an end is an orderly one.
    let signals = Signals::watch(&runtime)?;
    let docker = sockets::listen(&docker, group, &mut passed)?;
    let native = sockets::listen(&native, group, &mut passed)?;
    for name in passed.keys() {
        tracing::warn!("systemd passed a socket that we do not serve: {name}");
    }
    let pid_file = PidFile::write(args.pid_file.as_deref())?;
    let served = runtime.block_on(serve(config, store, &programs, [docker, native], signals.ending(|| reload(args, log))));
    drop(pid_file);
    // Blocking work (an unpack, say) must not hold up the end: the store is crash-safe.
    runtime.shutdown_background();
    served
}

async fn serve(
    config: &Config,
    store: rcontainerd_store::Store,
    programs: &Programs,
    [docker, native]: [UnixListener; 2],
    ending: impl Future<Output = &'static str>,
) -> Result<()> {
    let core = compose::core(config, store.clone(), programs).await?;
    collect::spawn(store.clone(), core.images.clone());
    clean_up_behind_the_last(core.fsck.clone(), store.was_abandoned());
    let stop = CancellationToken::new();
    let docker = tokio::net::UnixListener::from_std(docker).context("prepare the Docker API's socket")?;
    let native = tokio::net::UnixListener::from_std(native).context("prepare the containerd API's socket")?;
    let pages = rcontainerd_api_docker::router(core.clone());
    let farewell = stop.clone();
    let docker = rcontainerd_api_docker::DockerListener::new(docker);
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
        signal = ending => told_to_end(signal, &core).await,
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
    store.say_farewell()?;
    Ok(())
}

/// What the last manager was about is removed, or told in the log where it may be data: `rcontainerd fsck --repair` mends that.
fn clean_up_behind_the_last(fsck: rcontainerd_core::fsck::Fsck, abandoned: bool) {
    tokio::spawn(async move {
        let found = fsck.at_start().await;
        // A check reads all records there are.
        rrun_sys::memory::release_heap();
        let findings = match found {
            Ok(findings) => findings,
            Err(err) => return tracing::warn!("look for what the last manager left: {err}"),
        };
        if abandoned && findings.is_empty() {
            tracing::info!("the last manager ended without notice; a quick check found nothing wrong");
        }
        for Finding { subject, cost, observed, remedy, .. } in findings {
            if remedy == REPAIRED {
                tracing::info!(subject, "left by the last manager: {observed}; removed");
            } else {
                tracing::warn!(subject, cost, remedy, "fsck: {observed}");
            }
        }
    });
}

/// Containers outlive the manager, but not the host: its init would wait for them and their shims until it loses patience.
async fn told_to_end(signal: &str, core: &rcontainerd_core::Core) {
    if notify::host_goes_down().await {
        tracing::info!(signal, "the host goes down: ending all containers");
        core.end_with_host().await;
    } else {
        tracing::info!(signal, "stopping; containers live on");
    }
}

/// The signals that mean something to us, caught from the moment this is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn watch(runtime: &tokio::runtime::Runtime) -> Result<Self> {
        let _context = runtime.enter();
        let watch = |kind, name| signal(kind).with_context(|| format!("watch for {name}"));
        Ok(Self {
            terminate: watch(SignalKind::terminate(), "SIGTERM")?,
            interrupt: watch(SignalKind::interrupt(), "SIGINT")?,
            hangup: watch(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    /// Resolves to the name of the signal that asks us to end; SIGHUP calls `reload` meanwhile.
    async fn ending(mut self, reload: impl Fn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}

/// Reads the configuration again and takes over what may change while the manager runs (docs/configuration.md): the log level.
/// A file with an error changes nothing.
fn reload(args: &Args, log: &Log) {
    notify::reloading();
    match Config::load(args).and_then(|config| log.set_level(&config.log_level).map(|()| config.log_level)) {
        Ok(level) => tracing::info!(log_level = level, "configuration read again"),
        Err(err) => tracing::error!("configuration not taken over: {err:#}"),
    }
    notify::notify("READY=1");
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
