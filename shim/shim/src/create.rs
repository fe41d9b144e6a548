//! `Create`: rootfs, streams, and the runtime's `create`. What fails is undone.

use std::path::{Path, PathBuf};

use proto_containerd::events::{TaskCreate, TaskIo};
use proto_containerd::task::v3 as api;
use shim_ttrpc::{Code, Status};

use crate::connection::ReplyTo;
use crate::io::console::ConsoleSocket;
use crate::mounts;
use crate::runtime::{LogMark, Runtime};
use crate::server::Server;
use crate::service::{Answer, Told, tell};
use crate::task::{Container, Process, StdioSpec};

impl Server {
    pub fn create(&mut self, to: ReplyTo, request: api::CreateTaskRequest) -> Answer {
        self.begin_create(request, tell(to, |pid| api::CreateTaskResponse { pid })).map(|()| None)
    }

    /// # Errors
    /// What is wrong before the runtime is asked; `then` is told the rest.
    pub fn begin_create(&mut self, request: api::CreateTaskRequest, then: Told<u32>) -> Result<(), Status> {
        crate::args::identifier("container id", &request.id).map_err(|err| Status::new(Code::InvalidArgument, err.to_string()))?;
        if self.containers.contains_key(&request.id) {
            return Err(Status::new(Code::AlreadyExists, format!("container {} exists already", request.id)));
        }
        if !request.checkpoint.is_empty() {
            return Err(Status::new(Code::Unimplemented, "restoring from a checkpoint is not supported by this shim"));
        }
        let options = crate::options::decode(request.options.as_ref())?;
        if !options.shim_cgroup.is_empty() {
            crate::cgroup::enter(&options.shim_cgroup)?;
        }
        let bundle = PathBuf::from(&request.bundle);
        let runtime = Runtime::new(&options, &self.setup.state, &self.setup.namespace);
        runtime.save(&bundle).map_err(|err| Status::unknown(format!("write to the bundle {}: {err}", bundle.display())))?;
        mounts::mount_all(&request.rootfs, &bundle.join("rootfs")).map_err(|err| Status::unknown(format!("{err:#}")))?;
        let id = request.id.clone();
        let container = self.new_container(&request, bundle, runtime, (options.io_uid, options.io_gid));
        self.containers.insert(id.clone(), container);
        self.run_create(then, request).inspect_err(|_| self.forget_failed(&id))
    }

    fn new_container(&mut self, request: &api::CreateTaskRequest, bundle: PathBuf, runtime: Runtime, io_owner: (u32, u32)) -> Container {
        let stdio = StdioSpec {
            container_id: request.id.clone(),
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        Container {
            number: self.number(),
            id: request.id.clone(),
            bundle,
            runtime,
            io_owner,
            init: Process::new("", stdio),
            execs: std::collections::BTreeMap::new(),
            paused: false,
            freezing: false,
            has_own_pids: has_own_pids(&request.bundle),
            mounted: !request.rootfs.is_empty(),
            oom: None,
        }
    }

    fn run_create(&mut self, then: Told<u32>, request: api::CreateTaskRequest) -> Result<(), Status> {
        let id = request.id.clone();
        let container = self.container(&id)?;
        let (stdio, owner, bundle) = (container.init.stdio.clone(), container.io_owner, container.bundle.clone());
        let log = container.log_path("");
        let mark = LogMark::new(&log);
        let mut command = container.runtime.command(&log);
        command.arg("create").arg("--bundle").arg(&bundle).arg("--pid-file").arg(pid_file(&bundle, ""));
        if container.runtime.no_pivot_root {
            command.arg("--no-pivot");
        }
        if container.runtime.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        let console = self.streams(&mut command, &id, "", &stdio, owner)?;
        command.arg(&id);
        self.run_runtime("create", command, mark, Box::new(move |server, result| server.created(then, &request, console, result)));
        Ok(())
    }

    /// Pipes on the command's own streams, or a console socket as its argument.
    pub fn streams(
        &mut self,
        command: &mut std::process::Command,
        id: &str,
        exec_id: &str,
        stdio: &StdioSpec,
        owner: (u32, u32),
    ) -> Result<Option<ConsoleSocket>, Status> {
        if stdio.terminal {
            let name = format!("c{}-{}", std::process::id(), self.number());
            let console = ConsoleSocket::create(&self.setup.sockets, &name)
                .map_err(|err| Status::unknown(format!("make a console socket in {}: {err}", self.setup.sockets.display())))?;
            command.arg("--console-socket").arg(console.path());
            return Ok(Some(console));
        }
        // What an exec's runtime prints is for its caller.
        let (ends, io) = self.wire_pipes(stdio, owner, exec_id.is_empty())?;
        ends.apply(command);
        self.container_mut(id)?.process_mut(exec_id)?.io = io;
        Ok(None)
    }

    fn created(&mut self, then: Told<u32>, request: &api::CreateTaskRequest, console: Option<ConsoleSocket>, result: Result<(), Status>) {
        let id = &request.id;
        match result.and_then(|()| self.adopt(id, "", console)) {
            Ok(pid) => {
                let io = self.container(id).map(|container| container.init.io.clone()).unwrap_or_default();
                self.release(&io);
                self.watch_oom(id);
                self.publish_create(request, pid);
                then(self, Ok(pid.unsigned_abs()));
                self.claim(pid);
            }
            Err(status) => {
                self.forget_failed(id);
                then(self, Err(status));
            }
        }
    }

    /// The runtime has made the process: its pid and its terminal become ours.
    pub fn adopt(&mut self, id: &str, exec_id: &str, console: Option<ConsoleSocket>) -> Result<i32, Status> {
        let container = self.container(id)?;
        let pid = read_pid(&pid_file(&container.bundle, exec_id))?;
        let stdio = container.process(exec_id)?.stdio.clone();
        let process = self.container_mut(id)?.process_mut(exec_id)?;
        process.pid = pid;
        if let Some(console) = console {
            let master = console.receive().map_err(|err| Status::unknown(format!("receive the terminal: {err}")))?;
            let io = self.wire_console(&stdio, &master)?;
            let process = self.container_mut(id)?.process_mut(exec_id)?;
            process.io = io;
            process.console = Some(master);
        }
        Ok(pid)
    }

    fn publish_create(&mut self, request: &api::CreateTaskRequest, pid: i32) {
        let event = TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: Some(TaskIo {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
            }),
            checkpoint: request.checkpoint.clone(),
            pid: pid.unsigned_abs(),
        };
        self.publisher.publish("/tasks/create", &event, &mut self.poller);
    }

    /// A container that could not be made: its streams, what the runtime may have left, its mounts.
    fn forget_failed(&mut self, id: &str) {
        let Some(container) = self.containers.remove(id) else { return };
        self.discard(&container.init.io);
        if container.init.pid != 0 {
            // The runtime made it, but we could not take it over.
            let mut command = container.runtime.command(&container.log_path(""));
            command.args(["delete", "--force", id]);
            let mark = LogMark::new(&container.log_path(""));
            self.run_runtime(
                "delete",
                command,
                mark,
                Box::new(|server, result| {
                    if let Err(status) = result {
                        server.journal.write(&status.message);
                    }
                }),
            );
        }
        if container.mounted
            && let Err(err) = mounts::unmount_all(&container.bundle.join("rootfs"))
        {
            self.journal.write(&format!("{id}: {err:#}"));
        }
    }
}

/// What the bundle's configuration says of the pid namespace; true where it cannot be read (the runtime then tells why).
fn has_own_pids(bundle: &str) -> bool {
    #[derive(Default, serde::Deserialize)]
    struct Config {
        #[serde(default)]
        linux: Linux,
    }
    #[derive(Default, serde::Deserialize)]
    struct Linux {
        #[serde(default)]
        namespaces: Vec<Namespace>,
    }
    #[derive(serde::Deserialize)]
    struct Namespace {
        r#type: String,
        #[serde(default)]
        path: String,
    }
    let parsed = std::fs::read(Path::new(bundle).join("config.json")).ok().and_then(|bytes| serde_json::from_slice::<Config>(&bytes).ok());
    parsed.is_none_or(|config| config.linux.namespaces.iter().any(|namespace| namespace.r#type == "pid" && namespace.path.is_empty()))
}

pub fn pid_file(bundle: &Path, exec_id: &str) -> PathBuf {
    if exec_id.is_empty() { bundle.join("init.pid") } else { bundle.join(format!("exec-{exec_id}.pid")) }
}

fn read_pid(path: &Path) -> Result<i32, Status> {
    let text =
        std::fs::read_to_string(path).map_err(|err| Status::unknown(format!("read the runtime's pid file {}: {err}", path.display())))?;
    text.trim().parse().ok().filter(|&pid| pid > 0).ok_or_else(|| Status::unknown(format!("the runtime's pid file holds {text:?}")))
}
