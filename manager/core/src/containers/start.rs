//! Start: network, files, bundle, shim, process. Steps with undo; the caller holds the container's operation lock.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_network::files::{self, DnsOptions};
use rcontainerd_network::{AttachRequest, Attachment};
use rcontainerd_task::{AttachStream, CreateTask, RuntimeOptions, Stdio, Task};
use rcontainerd_types::{Error, ErrorKind, Result};

use super::model::{Container, Endpoint, PublishedPort, Status};
use super::registry::{Entry, Live};
use super::runstate::RunState;
use super::{exit, resolve};
use crate::engine::{Engine, NAMESPACE, blocking, container_event, make_dir, remove_dir};
use crate::rootfs::{Rootfs, diagnose, users};
use crate::spec;

/// Name of the socket on which the shim gives the output to attached clients.
pub(super) const OUTPUT_SOCKET: &str = "out";
pub(super) const STDIN_FIFO: &str = "in";

pub(super) async fn start(engine: &Arc<Engine>, entry: &Arc<Entry>, console_size: Option<(u16, u16)>) -> Result<()> {
    startable(entry)?;
    match run(engine, entry, console_size, 0).await {
        Ok(()) => Ok(()),
        Err(err) => {
            let err = blame(explain(engine, &entry.record(), err).await);
            failed(engine, entry, &err).await;
            Err(err)
        }
    }
}

fn startable(entry: &Entry) -> Result<()> {
    match entry.record().state.status {
        Status::Created | Status::Exited | Status::Restarting => Ok(()),
        Status::Running => Err(Error::new(ErrorKind::NotModified, format!("container {} is already started", entry.id))),
        Status::Paused => Err(Error::conflict("cannot start a paused container, try unpause instead")),
        Status::Removing | Status::Dead => Err(Error::conflict("container is marked for removal and cannot be started")),
    }
}

/// Runs the container's process once; everything is undone on failure.
pub(super) async fn run(engine: &Arc<Engine>, entry: &Arc<Entry>, console_size: Option<(u16, u16)>, restarts: u32) -> Result<()> {
    let container = entry.record();
    let console_size = console_size.or(container.host_config.console_size);
    let mut state = RunState::new(container.state.run + 1, Timestamp::now());
    state.restart_count = restarts;
    let mut undo = Undo::new(engine, &container.id);
    let result = launch(engine, entry, &container, console_size, &mut state, &mut undo).await;
    match result {
        Ok(task) => {
            running(engine, entry, &state, &task);
            remember(engine, entry);
            exit::watch(engine, entry, state.run, task);
            Ok(())
        }
        Err(err) => {
            undo.roll_back().await;
            Err(err)
        }
    }
}

async fn launch(
    engine: &Arc<Engine>,
    entry: &Arc<Entry>,
    container: &Container,
    console_size: Option<(u16, u16)>,
    state: &mut RunState,
    undo: &mut Undo,
) -> Result<Task> {
    let run_dir = engine.run_dir(&container.id);
    undo.run_dir = true;
    prepare_run_dir(&run_dir, container.config.open_stdin)?;
    connect(engine, container, state, undo).await?;
    let (spec, rootfs) = bundle_parts(engine, container, console_size, state).await?;
    let key = engine.task_key(&container.id);
    undo.bundle = true;
    engine.tasks.create_bundle(&key, &spec).await?;
    state.write(&run_dir)?;
    let stdio = stdio(engine, container, &run_dir)?;
    let request = CreateTask { key, rootfs, stdio, terminal: container.config.tty, runtime: RuntimeOptions::default() };
    let task = engine.tasks.create(request).await?;
    undo.task = Some(task.clone());
    hand_out(entry, &run_dir, &task).await?;
    task.start(None).await?;
    Ok(task)
}

fn prepare_run_dir(dir: &Path, stdin: bool) -> Result<()> {
    remove_dir(dir)?;
    make_dir(dir, 0o700)?;
    if stdin {
        let fifo = dir.join(STDIN_FIFO);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
            .map_err(|err| Error::io(format!("make {}", fifo.display()), err.into()))?;
    }
    Ok(())
}

/// Makes the network namespace and connects it, where the mode asks for one.
async fn connect(engine: &Arc<Engine>, container: &Container, state: &mut RunState, undo: &mut Undo) -> Result<()> {
    if container.host_config.network_mode != "bridge" {
        return Ok(());
    }
    let request = attach_request(container)?;
    let network = Arc::clone(&engine.network);
    let id = container.id.clone();
    let netns = blocking(move || network.create_netns(&id)).await?;
    undo.netns = Some(netns.clone());
    let network = Arc::clone(&engine.network);
    let request = AttachRequest { netns: netns.clone(), ..request };
    let attachment = blocking(move || network.attach(&request)).await?;
    undo.attachment = Some(attachment.clone());
    state.netns = Some(netns);
    state.networks.insert("bridge".to_owned(), endpoint(&attachment));
    state.ports = attachment.ports.iter().map(published).collect();
    state.attachment = Some(attachment);
    Ok(())
}

fn attach_request(container: &Container) -> Result<AttachRequest> {
    let endpoint = container.endpoints.values().next().cloned().unwrap_or_default();
    let ip = match endpoint.ipv4_address.as_str() {
        "" => None,
        text => Some(text.parse::<Ipv4Addr>().map_err(|_| Error::invalid(format!("invalid IPv4 address: {text}")))?),
    };
    let mac = [container.config.mac_address.as_str(), endpoint.mac_address.as_str()].into_iter().find(|text| !text.is_empty());
    let mac = mac.map(parse_mac).transpose()?;
    let ports = resolve::port_requests(&container.config, &container.host_config)?;
    Ok(AttachRequest { container: container.id.clone(), netns: PathBuf::new(), mac, ip, ports })
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let parsed = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    parsed.ok_or_else(|| Error::invalid(format!("{text:?} is not a valid mac address")))
}

fn endpoint(attachment: &Attachment) -> Endpoint {
    Endpoint {
        network_id: crate::networks::id_of("bridge"),
        endpoint_id: rcontainerd_types::Digest::sha256(format!("bridge/{}", attachment.container).as_bytes()).hex().to_owned(),
        ipv4_address: attachment.address.addr().to_string(),
        ipv4_prefix_len: attachment.address.prefix_len(),
        ipv4_gateway: attachment.gateway.to_string(),
        mac_address: attachment.mac_string(),
        ..Endpoint::default()
    }
}

fn published(port: &rcontainerd_network::BoundPort) -> PublishedPort {
    PublishedPort {
        container_port: port.container_port,
        protocol: port.protocol.as_str().to_owned(),
        host_ip: port.host_ip.to_string(),
        host_port: port.host_port,
    }
}

/// config.json and the mounts of the root filesystem.
async fn bundle_parts(
    engine: &Arc<Engine>,
    container: &Container,
    console_size: Option<(u16, u16)>,
    state: &RunState,
) -> Result<(Vec<u8>, Vec<rcontainerd_task::Mount>)> {
    let (engine, container, state) = (Arc::clone(engine), container.clone(), state.clone());
    blocking(move || {
        let snapshots = engine.store.snapshotter(NAMESPACE, &container.snapshotter)?;
        let mounts = snapshots.mounts(&container.snapshot_key)?;
        let rootfs = Rootfs::open(&snapshots.layer_dirs(&container.snapshot_key)?)?;
        let user = users::resolve(&rootfs, &container.config.user, &container.host_config.group_add)?;
        let files = write_files(&engine, &container, &state)?;
        let inputs = spec::Inputs {
            host: &engine.host,
            user: &user,
            netns: state.netns.as_deref(),
            cgroups_path: cgroups_path(&engine, &container)?,
            files,
            init: &engine.config.init,
            console_size,
        };
        let spec =
            serde_json::to_vec(&spec::build(&container, &inputs)?).map_err(|err| Error::internal(format!("encode config.json: {err}")))?;
        let mount = |mount: rcontainerd_store::Mount| rcontainerd_task::Mount {
            fstype: mount.fstype,
            source: mount.source,
            target: String::new(),
            options: mount.options,
        };
        Ok((spec, mounts.into_iter().map(mount).collect()))
    })
    .await
}

fn cgroups_path(engine: &Engine, container: &Container) -> Result<String> {
    let parent = match container.host_config.resources.cgroup_parent.as_str() {
        "" => &engine.config.cgroup_parent,
        own => own,
    };
    if parent.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!("invalid cgroup parent {parent:?}: it must not contain '..'")));
    }
    Ok(format!("/{}/{}", parent.trim_matches('/'), container.id))
}

/// /etc/hosts, /etc/hostname and /etc/resolv.conf as this run needs them.
fn write_files(engine: &Engine, container: &Container, state: &RunState) -> Result<spec::Files> {
    let dir = engine.container_dir(&container.id);
    let shares_host = container.host_config.network_mode == "host";
    let files = spec::Files { hosts: dir.join("hosts"), hostname: dir.join("hostname"), resolv_conf: dir.join("resolv.conf") };
    let host_file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hosts = if shares_host && container.host_config.extra_hosts.is_empty() {
        host_file("/etc/hosts")
    } else {
        hosts(engine, container, state)?
    };
    let resolv_conf = files::resolv_conf(&host_file("/etc/resolv.conf"), &dns(container)?, shares_host);
    for (path, text) in [(&files.hosts, hosts), (&files.hostname, format!("{}\n", container.hostname)), (&files.resolv_conf, resolv_conf)] {
        std::fs::write(path, text).map_err(|err| Error::io(format!("write {}", path.display()), err))?;
    }
    Ok(files)
}

fn hosts(engine: &Engine, container: &Container, state: &RunState) -> Result<String> {
    let extra = container.host_config.extra_hosts.iter().map(|entry| extra_host(engine, entry)).collect::<Result<Vec<_>>>()?;
    let full = match container.config.domainname.as_str() {
        "" => container.hostname.clone(),
        domain => format!("{0}.{domain} {0}", container.hostname),
    };
    let own = state.attachment.as_ref().map(|attachment| (IpAddr::V4(attachment.address.addr()), full.as_str()));
    Ok(files::hosts(own, &extra))
}

/// `name:address` or `name:host-gateway`.
fn extra_host(engine: &Engine, entry: &str) -> Result<(IpAddr, String)> {
    let bad = || Error::invalid(format!("bad format for add-host: \"{entry}\""));
    let (name, address) = entry.split_once([':', '=']).ok_or_else(bad)?;
    if address == "host-gateway" {
        let bridge = engine.network.bridge()?;
        return Ok((IpAddr::V4(bridge.gateway), name.to_owned()));
    }
    let address =
        address.trim_matches(['[', ']']).parse().map_err(|_| Error::invalid(format!("invalid IP address in add-host: \"{address}\"")))?;
    Ok((address, name.to_owned()))
}

fn dns(container: &Container) -> Result<DnsOptions> {
    let host_config = &container.host_config;
    let parse = |text: &String| text.parse().map_err(|_| Error::invalid(format!("invalid IP address for --dns: {text}")));
    let servers = host_config.dns.iter().map(parse).collect::<Result<Vec<IpAddr>>>()?;
    Ok(DnsOptions { servers, search: host_config.dns_search.clone(), options: host_config.dns_options.clone() })
}

fn stdio(engine: &Engine, container: &Container, run_dir: &Path) -> Result<Stdio> {
    let log = resolve::LogPlan::parse(&container.host_config.log_config)?;
    let output = log.uri(&super::logs::path(engine, &container.id), run_dir.join(OUTPUT_SOCKET)).to_string();
    let stdin = if container.config.open_stdin { run_dir.join(STDIN_FIFO).to_string_lossy().into_owned() } else { String::new() };
    let stderr = if container.config.tty { String::new() } else { output.clone() };
    Ok(Stdio { stdin, stdout: output, stderr })
}

/// Connects the clients that attached before the start, so that they miss nothing.
async fn hand_out(entry: &Entry, run_dir: &Path, task: &Task) -> Result<()> {
    for client in entry.take_pending() {
        if client.output.is_closed() && client.task.is_closed() {
            continue;
        }
        let output = AttachStream::connect(&run_dir.join(OUTPUT_SOCKET)).await?;
        // The client may have gone away meanwhile, or wants one half only: then the other is dropped.
        drop(client.output.send(output));
        drop(client.task.send(task.clone()));
    }
    Ok(())
}

/// From here on the container is running for everybody.
fn running(engine: &Engine, entry: &Entry, state: &RunState, task: &Task) {
    let live = Live { task: task.clone(), run: state.run, netns: state.netns.clone(), attachment: state.attachment.clone() };
    entry.set_live(Some(live));
    let event = container_event(&entry.record(), "start", &[]);
    engine.update_volatile(entry, vec![event], |container| apply(container, state, task.pid()));
    entry.phase.send_modify(|phase| {
        phase.running = true;
        phase.error = None;
    });
}

/// Writes that it runs, so that a reboot finds it was; off the start's path, since STATE tells it to a new manager anyway. A container
/// that is removed at its end needs no such record.
fn remember(engine: &Arc<Engine>, entry: &Arc<Entry>) {
    if entry.record().host_config.auto_remove {
        return;
    }
    let (engine, entry) = (Arc::clone(engine), Arc::clone(entry));
    tokio::spawn(async move {
        if entry.phase.borrow().removed {
            return;
        }
        if let Err(err) = engine.rewrite(&entry).await {
            tracing::error!(container = entry.id, "record that it runs: {err}");
        }
    });
}

/// The record of a running container.
pub(super) fn apply(container: &mut Container, state: &RunState, pid: u32) {
    let own = &mut container.state;
    own.status = Status::Running;
    own.pid = pid;
    own.exit_code = 0;
    own.error.clear();
    own.oom_killed = false;
    own.manually_stopped = false;
    own.started_at = Some(state.started_at);
    own.finished_at = None;
    own.restart_count = state.restart_count;
    own.networks.clone_from(&state.networks);
    own.ports.clone_from(&state.ports);
    own.run = state.run;
}

/// Adds what the image says about the program, in plain words.
async fn explain(engine: &Arc<Engine>, container: &Container, err: Error) -> Error {
    let about_program = ["exec", "no such file", "permission denied", "executable file not found"];
    if !about_program.iter().any(|words| err.message().contains(words)) {
        return err;
    }
    let (engine, container) = (Arc::clone(engine), container.clone());
    let told = blocking(move || {
        let dirs = engine.store.snapshotter(NAMESPACE, &container.snapshotter)?.layer_dirs(&container.snapshot_key)?;
        Ok(diagnose::explain(&Rootfs::open(&dirs)?, &container.path, &container.config.env, &container.config.working_dir))
    });
    match told.await {
        Ok(Some(why)) => {
            let message = format!("{}: {why}", err.message());
            Error::new(err.kind(), message).with_source(err)
        }
        _ => err,
    }
}

/// A program that cannot be run is the request's fault, not ours.
pub(crate) fn blame(err: Error) -> Error {
    match (err.kind(), exit_code_of(&err)) {
        (ErrorKind::Internal | ErrorKind::NotFound, 126 | 127) => err.with_kind(ErrorKind::InvalidArgument),
        _ => err,
    }
}

/// The shell's code for a program that could not be started: 127 not found, 126 not executable, 128 anything else.
pub(crate) fn exit_code_of(err: &Error) -> i64 {
    let message = err.message();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&["executable file not found", "no such file or directory", "No such file or directory", "not in the image"]) {
        127
    } else if has(&["permission denied", "Permission denied", "exec format error", "Exec format error", "not executable", "is a directory"])
    {
        126
    } else {
        128
    }
}

/// A start that failed leaves its reason and code; `--rm` removes the container.
async fn failed(engine: &Arc<Engine>, entry: &Arc<Entry>, err: &Error) {
    let (message, code) = (err.message().to_owned(), exit_code_of(err));
    drop(entry.take_pending());
    let recorded = engine.update(entry, Vec::new(), move |container| {
        container.state.error = message;
        container.state.exit_code = code;
        if container.state.status == Status::Restarting {
            container.state.status = Status::Exited;
        }
    });
    if let Err(err) = recorded.await {
        tracing::warn!(container = entry.id, "record a failed start: {err}");
    }
    entry.phase.send_modify(|phase| {
        phase.running = false;
        phase.exits += 1;
        // The start's caller is told why; to those who wait it is an end like any other.
        phase.exit_code = code;
    });
    if entry.record().host_config.auto_remove
        && let Err(err) = super::remove::discard(engine, entry, true).await
    {
        tracing::warn!(container = entry.id, "remove after a failed start: {err}");
    }
}

/// What a start has made so far.
struct Undo {
    engine: Arc<Engine>,
    id: String,
    run_dir: bool,
    bundle: bool,
    task: Option<Task>,
    netns: Option<PathBuf>,
    attachment: Option<Attachment>,
}

impl Undo {
    fn new(engine: &Arc<Engine>, id: &str) -> Self {
        Self { engine: Arc::clone(engine), id: id.to_owned(), run_dir: false, bundle: false, task: None, netns: None, attachment: None }
    }

    /// Takes everything back, last first; failures are logged, the first error is the one told.
    async fn roll_back(self) {
        let key = self.engine.task_key(&self.id);
        let log = |what: &str, result: Result<()>| match result {
            Err(err) if err.kind() != ErrorKind::NotFound => tracing::warn!(container = self.id, "undo a failed start: {what}: {err}"),
            _ => {}
        };
        if let Some(task) = &self.task {
            log("kill", task.kill(None, crate::signal::KILL, true).await);
            if task.delete(None).await.is_err() {
                log("clean up", self.engine.tasks.cleanup_dead(&key).await.map(|_| ()));
            }
        }
        if self.bundle {
            log("remove the bundle", self.engine.tasks.remove_bundle(&key).await);
        }
        log("disconnect", release_network(&self.engine, self.netns.clone(), self.attachment.clone()).await);
        if self.run_dir {
            log("remove run files", remove_dir(&self.engine.run_dir(&self.id)));
        }
    }
}

/// Takes back the network of a run.
pub(super) async fn release_network(engine: &Engine, netns: Option<PathBuf>, attachment: Option<Attachment>) -> Result<()> {
    if netns.is_none() && attachment.is_none() {
        return Ok(());
    }
    let network = Arc::clone(&engine.network);
    blocking(move || {
        let detached = attachment.map_or(Ok(()), |attachment| network.detach(&attachment));
        let deleted = netns.map_or(Ok(()), |netns| network.delete_netns(&netns));
        detached.and(deleted)
    })
    .await
}
