//! The sandbox service: what a group of containers shares, kept by one main process, which is a container to the runtime.
//!
//! ```text
//! CreateSandbox ─→ created ── StartSandbox ─→ ready ── StopSandbox, or its end ─→ not ready ── ShutdownSandbox ─→ the shim ends
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use prost::Message;
use prost_types::Any;
use proto_containerd::pod::PodSandboxConfig;
use proto_containerd::runc::v1::Options;
use proto_containerd::runtime::sandbox::v1 as api;
use proto_containerd::task::v3::{CreateTaskRequest, WaitRequest};
use proto_containerd::types::{Metric, Platform};
use shim_ttrpc::{Code, Status};

use crate::bootstrap::kept_options;
use crate::connection::ReplyTo;
use crate::lifecycle::runtime_call;
use crate::pod::{self, Wishes};
use crate::server::Server;
use crate::service::{Answer, Told, empty, now, tell};
use crate::task::Phase;

/// The words of Kubernetes' API, which containerd's callers compare with.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// How containerd's clients know a runtime-spec configuration.
const SPEC_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

#[derive(Debug)]
pub struct Sandbox {
    pub id: String,
    created_at: SystemTime,
    /// When `StopSandbox` loses its patience.
    kill_at: Option<Instant>,
    stoppers: Vec<ReplyTo>,
}

impl Server {
    pub fn create_sandbox(&mut self, to: ReplyTo, request: api::CreateSandboxRequest) -> Answer {
        crate::args::identifier("sandbox id", &request.sandbox_id).map_err(|err| Status::new(Code::InvalidArgument, err.to_string()))?;
        if let Some(sandbox) = &self.sandbox {
            return Err(Status::new(Code::AlreadyExists, format!("this shim keeps sandbox {} already", sandbox.id)));
        }
        let bundle = PathBuf::from(&request.bundle_path);
        let options = kept_options(&bundle).map_err(|err| Status::unknown(format!("{err:#}")))?;
        write_config(&request, &bundle, &self.setup.namespace, &crate::options::decode(options.as_ref())?)?;
        let id = request.sandbox_id.clone();
        let task = CreateTaskRequest {
            id: request.sandbox_id,
            bundle: request.bundle_path,
            rootfs: request.rootfs,
            options,
            ..CreateTaskRequest::default()
        };
        let then: Told<u32> = Box::new(move |server, result| {
            if result.is_ok() {
                server.sandbox = Some(Sandbox { id, created_at: SystemTime::now(), kill_at: None, stoppers: Vec::new() });
            }
            server.reply(to, result.map(|_| Vec::new()));
        });
        self.begin_create(task, then).map(|()| None)
    }

    pub fn start_sandbox(&mut self, to: ReplyTo, request: &api::StartSandboxRequest) -> Answer {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let created_at = Some(sandbox.created_at.into());
        let path = self.container(&request.sandbox_id)?.bundle.join("config.json");
        let value = std::fs::read(&path).map_err(|err| Status::unknown(format!("read {}: {err}", path.display())))?;
        let spec = Some(Any { type_url: SPEC_URL.to_owned(), value });
        let then = tell(to, move |pid| api::StartSandboxResponse { pid, created_at, spec });
        self.begin_start(&request.sandbox_id, "", then).map(|()| None)
    }

    /// Its containers end at once; its main process may take its time.
    pub fn stop_sandbox(&mut self, to: ReplyTo, request: &api::StopSandboxRequest) -> Answer {
        let id = &request.sandbox_id;
        self.sandbox(id)?;
        for other in self.containers.keys().filter(|other| *other != id).cloned().collect::<Vec<_>>() {
            self.signal(&other, libc::SIGKILL);
        }
        if self.container(id).map_or(Phase::Stopped, |container| container.init.phase) == Phase::Stopped {
            return empty();
        }
        let patience = Duration::from_secs(request.timeout_secs.into());
        self.signal(id, if patience.is_zero() { libc::SIGKILL } else { libc::SIGTERM });
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.stoppers.push(to);
            sandbox.kill_at = (!patience.is_zero()).then(|| Instant::now() + patience);
        }
        Ok(None)
    }

    pub fn sandbox_deadline(&self) -> Option<Instant> {
        self.sandbox.as_ref().and_then(|sandbox| sandbox.kill_at)
    }

    pub fn kill_sandbox(&mut self) {
        let Some(sandbox) = &mut self.sandbox else { return };
        sandbox.kill_at = None;
        let id = sandbox.id.clone();
        self.signal(&id, libc::SIGKILL);
    }

    /// A container's main process has ended: whoever waits for the sandbox's is told.
    pub fn sandbox_stopped(&mut self, id: &str) {
        let Some(sandbox) = self.sandbox.as_mut().filter(|sandbox| sandbox.id == id) else { return };
        sandbox.kill_at = None;
        for to in std::mem::take(&mut sandbox.stoppers) {
            self.reply(to, Ok(Vec::new()));
        }
    }

    /// The runtime sends it, which thaws what is paused; one that has ended meanwhile is what we want.
    fn signal(&mut self, id: &str, signal: i32) {
        let Ok(container) = self.container(id) else { return };
        if container.init.phase == Phase::Stopped {
            return;
        }
        let (mut command, mark) = runtime_call(container, "");
        command.args(["kill", id, &signal.to_string()]);
        let id = id.to_owned();
        let then = move |server: &mut Self, result: Result<(), Status>| {
            if let Err(status) = result
                && server.container(&id).is_ok_and(|container| container.init.phase != Phase::Stopped)
            {
                server.journal.write(&format!("signal {id}: {}", status.message));
            }
        };
        self.run_runtime("kill", command, mark, Box::new(then));
    }

    /// The task service's messages have the same fields under the same numbers.
    pub fn wait_sandbox(&mut self, to: ReplyTo, request: &api::WaitSandboxRequest) -> Answer {
        self.sandbox(&request.sandbox_id)?;
        self.wait(to, &WaitRequest { id: request.sandbox_id.clone(), exec_id: String::new() })
    }

    pub fn sandbox_status(&self, request: &api::SandboxStatusRequest) -> Answer {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let container = self.container(&request.sandbox_id).ok();
        let ready = container.is_some_and(|container| container.init.phase == Phase::Running);
        let mut info = std::collections::HashMap::new();
        if let Some(container) = container.filter(|_| request.verbose) {
            info.insert("bundle".to_owned(), container.bundle.display().to_string());
            info.insert("runtime".to_owned(), container.runtime.binary.display().to_string());
        }
        now(&api::SandboxStatusResponse {
            sandbox_id: request.sandbox_id.clone(),
            pid: container.map_or(0, |container| container.init.wire_pid()),
            state: if ready { READY } else { NOT_READY }.to_owned(),
            info,
            created_at: Some(sandbox.created_at.into()),
            exited_at: container.and_then(|container| container.init.exit).map(|exit| exit.at.into()),
            extra: None,
        })
    }

    pub fn ping_sandbox(&self, id: &str) -> Answer {
        self.sandbox(id)?;
        match self.container(id)?.init.phase {
            Phase::Stopped => Err(Status::precondition(format!("sandbox {id} has ended"))),
            _ => empty(),
        }
    }

    pub fn sandbox_metrics(&self, request: &api::SandboxMetricsRequest) -> Answer {
        let id = &request.sandbox_id;
        self.sandbox(id)?;
        let data = Some(self.usage(id)?);
        now(&api::SandboxMetricsResponse { metrics: Some(Metric { timestamp: Some(SystemTime::now().into()), id: id.clone(), data }) })
    }

    /// Everything that the shim keeps is removed, then it ends. Asked of a sandbox that could not be made too.
    pub fn shutdown_sandbox(&mut self, to: ReplyTo, request: &api::ShutdownSandboxRequest) -> Answer {
        if self.sandbox.is_some() {
            self.sandbox(&request.sandbox_id)?;
        }
        self.remove_next(to);
        Ok(None)
    }

    /// One after the other, the sandbox last: its containers are in its namespaces.
    fn remove_next(&mut self, to: ReplyTo) {
        let own = self.sandbox.as_ref().map(|sandbox| sandbox.id.clone());
        let next = self.containers.keys().find(|id| Some(*id) != own.as_ref()).or_else(|| self.containers.keys().next());
        let Some(id) = next.cloned() else {
            self.end();
            return self.reply(to, Ok(Vec::new()));
        };
        let removed = id.clone();
        let then: Told<_> = Box::new(move |server, result| match result {
            // Somebody else's delete may have come first.
            Err(status) if server.containers.contains_key(&removed) => server.reply(to, Err(status)),
            _ => server.remove_next(to),
        });
        // It cannot be unknown: it was just found.
        drop(self.begin_delete(&id, true, then));
    }

    fn sandbox(&self, id: &str) -> Result<&Sandbox, Status> {
        let sandbox = self.sandbox.as_ref().filter(|sandbox| sandbox.id == id);
        sandbox.ok_or_else(|| Status::not_found(format!("sandbox {id} is not kept by this shim")))
    }
}

pub fn platform() -> Answer {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let platform = Platform { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned(), ..Platform::default() };
    now(&api::PlatformResponse { platform: Some(platform) })
}

/// The bundle's configuration, if its maker left one there, completed and written back.
fn write_config(request: &api::CreateSandboxRequest, bundle: &Path, namespace: &str, options: &Options) -> Result<(), Status> {
    let path = bundle.join("config.json");
    let told = |what: &str, why: &dyn std::fmt::Display| Status::unknown(format!("{what} {}: {why}", path.display()));
    let given = match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|err| told("parse", &err))?,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => serde_json::Map::new(),
        Err(err) => return Err(told("read", &err)),
    };
    let pod = pod_config(request.options.as_ref())?;
    let pause = std::env::current_exe().map_err(|err| Status::unknown(format!("find this program: {err}")))?;
    let wishes = Wishes {
        id: &request.sandbox_id,
        namespace,
        netns: &request.netns_path,
        annotations: &request.annotations,
        rootfs: !request.rootfs.is_empty(),
        systemd_cgroup: options.systemd_cgroup,
        pod: pod.as_ref(),
        pause: &pause,
    };
    let config = pod::complete(given, &wishes)?;
    if config.get("root").and_then(|root| root.get("path")).is_some_and(|path| path == pod::EMPTY_ROOT) {
        std::fs::create_dir_all(bundle.join(pod::EMPTY_ROOT)).map_err(|err| told("make the root of", &err))?;
    }
    let text = serde_json::to_vec(&config).map_err(|err| told("write", &err))?;
    crate::disk::write_atomically(&path, &text).map_err(|err| told("write", &err))
}

fn pod_config(options: Option<&Any>) -> Result<Option<PodSandboxConfig>, Status> {
    let Some(any) = options.filter(|any| !any.type_url.is_empty()) else { return Ok(None) };
    let invalid = |why: String| Status::new(Code::InvalidArgument, format!("options of the sandbox: {why}"));
    match any.type_url.rsplit('/').next() {
        Some("runtime.v1.PodSandboxConfig") => {
            PodSandboxConfig::decode(any.value.as_slice()).map(Some).map_err(|err| invalid(err.to_string()))
        }
        _ => Err(invalid(format!("type {:?} is not understood, expected runtime.v1.PodSandboxConfig", any.type_url))),
    }
}
