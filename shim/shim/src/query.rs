//! The calls that look or adjust: `State`, `Pids`, `Stats`, `Connect`, `ResizePty`, `CloseIO`, `Pause`, `Resume`, `Update`; OOM kills.

use proto_containerd::containerd::v1::types::ProcessInfo;
use proto_containerd::events::{TaskOom, TaskPaused, TaskResumed};
use proto_containerd::runc::v1::ProcessDetails;
use proto_containerd::task::v3 as api;
use rrun_cgroup::{Cgroup, Host, OomEvent};
use shim_ttrpc::{Code, Status};

use crate::connection::ReplyTo;
use crate::lifecycle::runtime_call;
use crate::poller::{EventFlags, Source};
use crate::server::Server;
use crate::service::{Answer, empty, now};
use crate::task::{Container, Phase};

impl Server {
    /// While a pause or a resume is under way nobody can say which it is: the answer waits for its end.
    pub fn state(&mut self, to: ReplyTo, request: api::StateRequest) -> Answer {
        if self.container(&request.id)?.freezing {
            self.askers.push((to, request));
            return Ok(None);
        }
        self.state_now(&request)
    }

    fn state_now(&self, request: &api::StateRequest) -> Answer {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        now(&api::StateResponse {
            id: request.id.clone(),
            bundle: container.bundle.display().to_string(),
            pid: process.wire_pid(),
            status: container.status(process) as i32,
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status: process.exit.map_or(0, |exit| exit.code),
            exited_at: process.exit.map(|exit| exit.at.into()),
            exec_id: request.exec_id.clone(),
        })
    }

    pub fn connect(&self, request: &api::ConnectRequest) -> Answer {
        let task_pid = self.containers.get(&request.id).map_or(0, |container| container.init.wire_pid());
        now(&api::ConnectResponse { shim_pid: std::process::id(), task_pid, version: env!("CARGO_PKG_VERSION").to_owned() })
    }

    pub fn pids(&self, request: &api::PidsRequest) -> Answer {
        let container = self.container(&request.id)?;
        let pids = cgroup_of(container)?.pids().map_err(|err| Status::unknown(err.to_string()))?;
        let details = |pid: i32| {
            let exec = container.execs.values().find(|process| process.pid == pid)?;
            Some(crate::any(&ProcessDetails { exec_id: exec.exec_id.clone() }))
        };
        let processes = pids.into_iter().map(|pid| ProcessInfo { pid: pid.unsigned_abs(), info: details(pid) }).collect();
        now(&api::PidsResponse { processes })
    }

    pub fn stats(&self, request: &api::StatsRequest) -> Answer {
        now(&api::StatsResponse { stats: Some(self.usage(&request.id)?) })
    }

    /// # Errors
    /// `NotFound`; a precondition when it is not running.
    pub fn usage(&self, id: &str) -> Result<prost_types::Any, Status> {
        let cgroup = cgroup_of(self.container(id)?)?;
        let stats = cgroup.stats().map_err(|err| Status::unknown(err.to_string()))?;
        Ok(crate::metrics::message(&stats, cgroup.location().is_pure_v2()))
    }

    pub fn resize(&mut self, request: &api::ResizePtyRequest) -> Answer {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        let Some(console) = &process.console else {
            let why = if process.stdio.terminal { "is not running" } else { "has no terminal" };
            return Err(Status::precondition(format!("process of container {} {why}", request.id)));
        };
        let side = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
        rrun_sys::tty::set_size(console, side(request.height), side(request.width)).map_err(|err| Status::unknown(err.to_string()))?;
        empty()
    }

    pub fn close_io(&mut self, request: &api::CloseIoRequest) -> Answer {
        let stdin = self.container(&request.id)?.process(&request.exec_id)?.io.stdin;
        if request.stdin
            && let Some(number) = stdin
            && let Some(relay) = self.relays.get_mut(&number)
        {
            relay.keep = None;
            self.turn_relay(number, false);
        }
        empty()
    }

    pub fn freeze(&mut self, to: ReplyTo, id: &str, pause: bool) -> Answer {
        let container = self.container_mut(id)?;
        if container.freezing {
            return Err(Status::precondition(format!("container {id} is just being paused or resumed")));
        }
        if container.init.phase != Phase::Running || container.paused == pause {
            let state = if container.paused { "paused" } else { "not running" };
            let state = if container.init.phase == Phase::Running && !container.paused { "not paused" } else { state };
            return Err(Status::precondition(format!("container {id} is {state}")));
        }
        let what = if pause { "pause" } else { "resume" };
        container.freezing = true;
        let (mut command, mark) = runtime_call(container, "");
        command.args([what, id]);
        let id = id.to_owned();
        self.run_runtime(what, command, mark, Box::new(move |server, result| server.frozen(to, &id, pause, result)));
        Ok(None)
    }

    fn frozen(&mut self, to: ReplyTo, id: &str, pause: bool, result: Result<(), Status>) {
        if let Ok(container) = self.container_mut(id) {
            container.freezing = false;
            if result.is_ok() {
                container.paused = pause;
            }
        }
        if result.is_ok() {
            let container_id = id.to_owned();
            if pause {
                self.publisher.publish("/tasks/paused", &TaskPaused { container_id }, &mut self.poller);
            } else {
                self.publisher.publish("/tasks/resumed", &TaskResumed { container_id }, &mut self.poller);
            }
        }
        self.reply(to, result.map(|()| Vec::new()));
        for (to, request) in self.askers.extract_if(.., |(_, request)| request.id == id).collect::<Vec<_>>() {
            let answer = self.state_now(&request).map(Option::unwrap_or_default);
            self.reply(to, answer);
        }
    }

    pub fn update(&mut self, to: ReplyTo, request: api::UpdateTaskRequest) -> Answer {
        let resources = request.resources.map(|any| any.value).unwrap_or_default();
        if resources.is_empty() {
            return Err(Status::new(Code::InvalidArgument, "update needs resources"));
        }
        let number = self.number();
        let container = self.container(&request.id)?;
        let file = container.bundle.join(format!("update-{number}.json"));
        std::fs::write(&file, resources).map_err(|err| Status::unknown(format!("write {}: {err}", file.display())))?;
        let (mut command, mark) = runtime_call(container, "");
        command.arg("update").arg("--resources").arg(&file).arg(&request.id);
        let then = move |server: &mut Self, result: Result<(), Status>| {
            if let Err(err) = std::fs::remove_file(&file) {
                server.journal.write(&format!("remove {}: {err}", file.display()));
            }
            server.reply(to, result.map(|()| Vec::new()));
        };
        self.run_runtime("update", command, mark, Box::new(then));
        Ok(None)
    }

    /// OOM kills are told as events, where the host has the memory controller.
    pub fn watch_oom(&mut self, id: &str) {
        let Ok(container) = self.container(id) else { return };
        let number = container.number;
        let watch = cgroup_of(container).and_then(|cgroup| cgroup.oom_watch().map_err(|err| Status::unknown(err.to_string())));
        let watched = watch.and_then(|watch| {
            let token = self.poller.add(&watch, EventFlags::IN, Source::Oom(number)).map_err(|err| Status::unknown(err.to_string()))?;
            Ok((watch, token))
        });
        match watched {
            Ok(oom) => {
                if let Ok(container) = self.container_mut(id) {
                    container.oom = Some(oom);
                }
            }
            Err(status) => self.journal.write(&format!("OOM kills of {id} will not be told: {}", status.message)),
        }
    }

    pub fn oom(&mut self, number: u64) {
        let Some(container) = self.containers.values_mut().find(|container| container.number == number) else { return };
        let Some((watch, token)) = &mut container.oom else { return };
        let container_id = container.id.clone();
        match watch.read() {
            Ok(OomEvent::Killed(_)) => self.publisher.publish("/tasks/oom", &TaskOom { container_id }, &mut self.poller),
            Ok(OomEvent::Nothing) => {}
            Ok(OomEvent::Gone) | Err(_) => {
                self.poller.remove(&*watch, *token);
                container.oom = None;
            }
        }
    }
}

fn cgroup_of(container: &Container) -> Result<Cgroup, Status> {
    if container.init.pid == 0 || container.init.phase == Phase::Stopped {
        return Err(Status::precondition(format!("container {} is not running", container.id)));
    }
    let host = Host::detect().map_err(|err| Status::unknown(err.to_string()))?;
    let location = host.location_of(container.init.pid).map_err(|err| Status::unknown(err.to_string()))?;
    Cgroup::open(&location).map_err(|err| Status::unknown(err.to_string()))
}
