//! `Start`, `Exec`, `Kill`, `Wait`, `Delete`, and what happens when a process ends.

use std::time::SystemTime;

use prost::Message;
use proto_containerd::events::{TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskStart};
use proto_containerd::task::v3 as api;
use rrun_sys::process::Ended;
use shim_ttrpc::{Code, Status};

use crate::connection::ReplyTo;
use crate::create::pid_file;
use crate::disk::{self, Exit};
use crate::io::console::ConsoleSocket;
use crate::mounts;
use crate::runtime::LogMark;
use crate::server::Server;
use crate::service::{Answer, Told, empty, tell};
use crate::task::{Container, Phase, Process, StdioSpec};

impl Server {
    /// # Errors
    /// `NotFound` naming the id.
    pub fn container(&self, id: &str) -> Result<&Container, Status> {
        self.containers.get(id).ok_or_else(|| Status::not_found(format!("container {id} not created")))
    }

    /// # Errors
    /// `NotFound` naming the id.
    pub fn container_mut(&mut self, id: &str) -> Result<&mut Container, Status> {
        self.containers.get_mut(id).ok_or_else(|| Status::not_found(format!("container {id} not created")))
    }

    pub fn start(&mut self, to: ReplyTo, request: &api::StartRequest) -> Answer {
        self.begin_start(&request.id, &request.exec_id, tell(to, |pid| api::StartResponse { pid })).map(|()| None)
    }

    /// # Errors
    /// What is wrong before the runtime is asked; `then` is told the rest.
    pub fn begin_start(&mut self, id: &str, exec_id: &str, then: Told<u32>) -> Result<(), Status> {
        let process = self.container_mut(id)?.process_mut(exec_id)?;
        if process.phase != Phase::Created {
            return Err(Status::precondition(format!("process of container {id} is not in the created state")));
        }
        process.phase = Phase::Starting;
        let done = if exec_id.is_empty() { self.start_init(then, id) } else { self.start_exec(then, id, exec_id) };
        if done.is_err()
            && let Ok(process) = self.container_mut(id).and_then(|container| container.process_mut(exec_id))
        {
            process.phase = Phase::Created;
        }
        done
    }

    fn start_init(&mut self, then: Told<u32>, id: &str) -> Result<(), Status> {
        let container = self.container(id)?;
        // A client that connected before it called us is attached before the first byte is written.
        let sink = container.init.io.sink;
        let (mut command, mark) = runtime_call(container, "");
        command.args(["start", id]);
        if let Some(sink) = sink.and_then(|number| self.sinks.get_mut(&number)) {
            sink.accept(&mut self.poller).map_err(|err| Status::unknown(format!("attach: {err}")))?;
        }
        let id = id.to_owned();
        self.run_runtime("start", command, mark, Box::new(move |server, result| server.init_started(then, &id, result)));
        Ok(())
    }

    fn init_started(&mut self, then: Told<u32>, id: &str, result: Result<(), Status>) {
        let container = match self.container_mut(id) {
            Ok(container) => container,
            // Deleted meanwhile, by whoever shuts the shim down.
            Err(status) => return then(self, Err(status)),
        };
        let pid = container.init.pid;
        container.init.phase = if result.is_ok() { Phase::Running } else { Phase::Created };
        let answer = result.map(|()| {
            let event = TaskStart { container_id: id.to_owned(), pid: pid.unsigned_abs() };
            self.publisher.publish("/tasks/start", &event, &mut self.poller);
            pid.unsigned_abs()
        });
        then(self, answer);
        self.claim(pid);
    }

    pub fn exec(&mut self, request: api::ExecProcessRequest) -> Answer {
        crate::args::identifier("exec id", &request.exec_id).map_err(|err| Status::new(Code::InvalidArgument, err.to_string()))?;
        let container = self.container_mut(&request.id)?;
        if container.execs.contains_key(&request.exec_id) {
            return Err(Status::new(
                Code::AlreadyExists,
                format!("process {} exists already in container {}", request.exec_id, request.id),
            ));
        }
        if container.init.phase == Phase::Stopped {
            return Err(Status::precondition(format!("container {} is not running", request.id)));
        }
        let container_id = request.id.clone();
        let stdio =
            StdioSpec { container_id, stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.terminal };
        let mut process = Process::new(&request.exec_id, stdio);
        process.spec = with_terminal(&request.spec.map(|any| any.value).unwrap_or_default(), request.terminal)?;
        container.execs.insert(request.exec_id.clone(), process);
        let event = TaskExecAdded { container_id: request.id, exec_id: request.exec_id };
        self.publisher.publish("/tasks/exec-added", &event, &mut self.poller);
        empty()
    }

    fn start_exec(&mut self, then: Told<u32>, id: &str, exec_id: &str) -> Result<(), Status> {
        let container = self.container(id)?;
        let (stdio, owner) = (container.process(exec_id)?.stdio.clone(), container.io_owner);
        let spec_file = container.bundle.join(format!("exec-{exec_id}.json"));
        std::fs::write(&spec_file, &container.process(exec_id)?.spec)
            .map_err(|err| Status::unknown(format!("write {}: {err}", spec_file.display())))?;
        let (mut command, mark) = runtime_call(container, exec_id);
        command.arg("exec").arg("--process").arg(&spec_file).arg("--pid-file").arg(pid_file(&container.bundle, exec_id)).arg("--detach");
        let console = self.streams(&mut command, id, exec_id, &stdio, owner)?;
        command.arg(id);
        let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
        let started = move |server: &mut Server, result| server.exec_started(then, &id, &exec_id, console, result);
        self.run_runtime("exec", command, mark, Box::new(started));
        Ok(())
    }

    fn exec_started(&mut self, then: Told<u32>, id: &str, exec_id: &str, console: Option<ConsoleSocket>, result: Result<(), Status>) {
        let adopted = result.and_then(|()| self.adopt(id, exec_id, console));
        self.remove_exec_files(id, exec_id);
        let answer = match adopted {
            Ok(pid) => {
                self.set_phase(id, exec_id, Phase::Running);
                let event = TaskExecStarted { container_id: id.to_owned(), exec_id: exec_id.to_owned(), pid: pid.unsigned_abs() };
                self.publisher.publish("/tasks/exec-started", &event, &mut self.poller);
                then(self, Ok(pid.unsigned_abs()));
                return self.claim(pid);
            }
            Err(status) => Err(status),
        };
        // It will never run: whoever waits is told so with the exit.
        self.finish_process(id, exec_id, Exit { code: 255, at: SystemTime::now() }, false);
        then(self, answer);
    }

    fn remove_exec_files(&self, id: &str, exec_id: &str) {
        if let Ok(container) = self.container(id) {
            for file in
                [pid_file(&container.bundle, exec_id), container.bundle.join(format!("exec-{exec_id}.json")), container.log_path(exec_id)]
            {
                // A runtime that failed may have written none of them.
                drop(std::fs::remove_file(file));
            }
        }
    }

    fn set_phase(&mut self, id: &str, exec_id: &str, phase: Phase) {
        if let Ok(process) = self.container_mut(id).and_then(|container| container.process_mut(exec_id)) {
            process.phase = phase;
        }
    }

    /// A process has ended whose start had not been told yet.
    pub fn claim(&mut self, pid: i32) {
        if let Some((ended, at)) = self.unclaimed.remove(&pid) {
            self.process_ended(pid, ended, at);
        }
    }

    pub fn process_ended(&mut self, pid: i32, ended: Ended, at: SystemTime) {
        let of_pid = |process: &Process| process.pid == pid && matches!(process.phase, Phase::Created | Phase::Running);
        let found = self.containers.values().find_map(|container| {
            let mut processes = std::iter::once(&container.init).chain(container.execs.values());
            processes.find(|process| of_pid(process)).map(|process| (container.id.clone(), process.exec_id.clone()))
        });
        match found {
            Some((id, exec_id)) => {
                let exit = Exit { code: ended.code().unsigned_abs(), at };
                match exec_id.is_empty() && self.leaves_others(&id) {
                    true => self.end_others(&id, exit),
                    false => self.finish_process(&id, &exec_id, exit, true),
                }
            }
            // An orphan from a container without its own pid namespace, or one whose start is under way.
            None => drop(self.unclaimed.insert(pid, (ended, at))),
        }
    }

    /// Whether processes of the container live on when its main one ends: without a pid namespace of its own, nobody ends them.
    fn leaves_others(&self, id: &str) -> bool {
        self.container(id).is_ok_and(|container| !container.has_own_pids)
    }

    /// Ends what the main process leaves behind, then tells its end.
    fn end_others(&mut self, id: &str, exit: Exit) {
        let Ok(container) = self.container(id) else { return };
        let (mut command, mark) = runtime_call(container, "");
        command.args(["kill", "--all", id, "9"]);
        let id = id.to_owned();
        let then = move |server: &mut Self, result: Result<(), Status>| {
            // With nobody left there is nobody to end, which some runtimes call a failure.
            if let Err(status) = result {
                server.journal.write(&format!("end the other processes of {id}: {}", status.message));
            }
            server.finish_process(&id, "", exit, true);
        };
        self.run_runtime("kill", command, mark, Box::new(then));
    }

    /// Output first, then the status on disk, then whoever waits, then the event.
    fn finish_process(&mut self, id: &str, exec_id: &str, exit: Exit, ran: bool) {
        let Ok(process) = self.container_mut(id).and_then(|container| container.process_mut(exec_id)) else { return };
        let io = std::mem::take(&mut process.io);
        process.phase = Phase::Stopped;
        process.exit = Some(exit);
        process.console = None;
        let (pid, waiters) = (process.pid, std::mem::take(&mut process.waiters));
        self.drain(&io);
        if let Ok(container) = self.container_mut(id) {
            let bundle = container.bundle.clone();
            if let Ok(process) = container.process_mut(exec_id) {
                process.io = io;
            }
            if let Err(err) = disk::save_exit(&bundle, exec_id, pid, exit) {
                self.journal.write(&format!("keep the exit status of {id} {exec_id}: {err}"));
            }
        }
        for waiter in waiters {
            self.reply(waiter, Ok(wait_response(exit).encode_to_vec()));
        }
        if ran {
            // An OOM kill is told before the end that it caused.
            if let Ok(number) = self.container(id).map(|container| container.number) {
                self.oom(number);
            }
            let process_id = if exec_id.is_empty() { id } else { exec_id };
            let event = TaskExit {
                container_id: id.to_owned(),
                id: process_id.to_owned(),
                pid: pid.unsigned_abs(),
                exit_status: exit.code,
                exited_at: Some(exit.at.into()),
            };
            self.publisher.publish("/tasks/exit", &event, &mut self.poller);
        }
        if exec_id.is_empty() {
            self.sandbox_stopped(id);
        }
    }

    pub fn wait(&mut self, to: ReplyTo, request: &api::WaitRequest) -> Answer {
        let process = self.container_mut(&request.id)?.process_mut(&request.exec_id)?;
        match process.exit {
            Some(exit) => Ok(Some(wait_response(exit).encode_to_vec())),
            None => {
                process.waiters.push(to);
                Ok(None)
            }
        }
    }

    pub fn kill(&mut self, to: ReplyTo, request: &api::KillRequest) -> Answer {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if process.phase == Phase::Stopped {
            return Err(Status::not_found("process already finished"));
        }
        if process.pid == 0 {
            return Err(Status::precondition(format!("process {} has not been started", request.exec_id)));
        }
        let signal = i32::try_from(request.signal).map_err(|_| Status::new(Code::InvalidArgument, "no such signal"))?;
        if !request.exec_id.is_empty() {
            return match rrun_sys::process::kill(process.pid, signal) {
                Ok(()) => empty(),
                Err(err) if err.is(libc::ESRCH) => Err(Status::not_found("process already finished")),
                Err(err) => Err(Status::unknown(err.to_string())),
            };
        }
        let (mut command, mark) = runtime_call(container, "");
        command.arg("kill");
        if request.all {
            command.arg("--all");
        }
        command.args([&request.id, &signal.to_string()]);
        let id = request.id.clone();
        self.run_runtime("kill", command, mark, Box::new(move |server, result| server.killed(to, &id, result)));
        Ok(None)
    }

    fn killed(&mut self, to: ReplyTo, id: &str, result: Result<(), Status>) {
        let stopped = self.container(id).is_ok_and(|container| container.init.phase == Phase::Stopped);
        let answer = match result {
            Ok(()) => Ok(Vec::new()),
            // It ended between our look and the runtime's.
            Err(status) if stopped || already_finished(&status.message) => {
                Err(Status::not_found(format!("process already finished: {}", status.message)))
            }
            Err(status) => Err(status),
        };
        self.reply(to, answer);
    }

    pub fn delete(&mut self, to: ReplyTo, request: &api::DeleteRequest) -> Answer {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if !matches!(process.phase, Phase::Stopped | Phase::Created) {
            return Err(Status::precondition(format!("container {} has a running process: stop it first", request.id)));
        }
        if !request.exec_id.is_empty() {
            return self.delete_exec(&request.id, &request.exec_id);
        }
        // Created but never started: its waiting process goes with it.
        let force = process.phase == Phase::Created;
        self.begin_delete(&request.id, force, tell(to, |response: api::DeleteResponse| response)).map(|()| None)
    }

    fn delete_exec(&mut self, id: &str, exec_id: &str) -> Answer {
        let container = self.container_mut(id)?;
        let bundle = container.bundle.clone();
        let Some(process) = container.execs.remove(exec_id) else {
            return Err(Status::not_found(format!("process {exec_id} does not exist")));
        };
        self.unwire(&process.io);
        disk::forget_exit(&bundle, exec_id);
        let exit = process.exit.unwrap_or(Exit { code: 0, at: SystemTime::now() });
        for &waiter in &process.waiters {
            self.reply(waiter, Ok(wait_response(exit).encode_to_vec()));
        }
        Ok(Some(delete_response(&process, exit).encode_to_vec()))
    }

    /// # Errors
    /// `NotFound`; `then` is told the rest.
    pub fn begin_delete(&mut self, id: &str, force: bool, then: Told<api::DeleteResponse>) -> Result<(), Status> {
        let (mut command, mark) = runtime_call(self.container(id)?, "");
        command.arg("delete");
        if force {
            command.arg("--force");
        }
        command.arg(id);
        let id = id.to_owned();
        self.run_runtime("delete", command, mark, Box::new(move |server, result| server.deleted(then, &id, result)));
        Ok(())
    }

    fn deleted(&mut self, then: Told<api::DeleteResponse>, id: &str, result: Result<(), Status>) {
        let unmounted = match result {
            // Gone already is what was asked for.
            Err(status) if !status.message.contains("does not exist") => Err(status),
            _ => self.container(id).and_then(|container| {
                let rootfs = container.bundle.join("rootfs");
                if container.mounted { mounts::unmount_all(&rootfs).map_err(|err| Status::unknown(format!("{err:#}"))) } else { Ok(()) }
            }),
        };
        if let Err(status) = unmounted {
            return then(self, Err(status));
        }
        let Some(mut container) = self.containers.remove(id) else { return };
        if let Some((watch, token)) = container.oom.take() {
            self.poller.remove(&watch, token);
        }
        for process in std::iter::once(&container.init).chain(container.execs.values()) {
            self.unwire(&process.io);
        }
        let exit = container.init.exit.unwrap_or(Exit { code: 137, at: SystemTime::now() });
        for waiter in std::mem::take(&mut container.init.waiters) {
            self.reply(waiter, Ok(wait_response(exit).encode_to_vec()));
        }
        let response = delete_response(&container.init, exit);
        let event = TaskDelete {
            container_id: id.to_owned(),
            pid: response.pid,
            exit_status: response.exit_status,
            exited_at: response.exited_at,
            id: String::new(),
        };
        self.publisher.publish("/tasks/delete", &event, &mut self.poller);
        then(self, Ok(response));
    }

    /// Whatever else the shim keeps goes on: a caller speaks of its own container, even with `now`.
    pub fn shutdown(&mut self) -> Answer {
        if self.containers.is_empty() && self.sandbox.is_none() {
            self.end();
        }
        empty()
    }

    /// Nobody new finds us from now on: the next of our group gets a shim of its own.
    pub fn end(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(std::time::Instant::now());
            drop(std::fs::remove_file(&self.setup.socket));
        }
    }
}

/// A `process` object that says of the terminal what the request says: clients leave it to that.
fn with_terminal(process: &[u8], terminal: bool) -> Result<Vec<u8>, Status> {
    let invalid = |err: serde_json::Error| Status::new(Code::InvalidArgument, format!("process of the exec: {err}"));
    let mut parsed: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(process).map_err(invalid)?;
    parsed.insert("terminal".to_owned(), terminal.into());
    serde_json::to_vec(&parsed).map_err(invalid)
}

/// A runtime command for this process, and where its log stands.
pub fn runtime_call(container: &Container, exec_id: &str) -> (std::process::Command, LogMark) {
    let log = container.log_path(exec_id);
    (container.runtime.command(&log), LogMark::new(&log))
}

fn already_finished(message: &str) -> bool {
    ["already finished", "not running", "does not exist", "no such process"].iter().any(|words| message.contains(words))
}

fn wait_response(exit: Exit) -> api::WaitResponse {
    api::WaitResponse { exit_status: exit.code, exited_at: Some(exit.at.into()) }
}

fn delete_response(process: &Process, exit: Exit) -> api::DeleteResponse {
    api::DeleteResponse { pid: process.wire_pid(), exit_status: exit.code, exited_at: Some(exit.at.into()) }
}
