//! The task and the sandbox service: which handler answers which method. Versions 2 and 3 of the task service have the same messages.

use prost::Message;
use proto_containerd::runtime::sandbox::v1 as sandbox;
use proto_containerd::task::v3 as api;
use shim_ttrpc::{Code, Request, Status};

use crate::connection::ReplyTo;
use crate::server::Server;

const TASK: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];
const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// `None`: the handler answers later, when the runtime has done its work or the process has ended.
pub type Answer = Result<Option<Vec<u8>>, Status>;

/// Who asked for work that the runtime does, and is told what came of it.
pub type Told<T> = Box<dyn FnOnce(&mut Server, Result<T, Status>)>;

/// Tells it as an answer on the wire.
pub fn tell<T, M: Message>(to: ReplyTo, message: impl FnOnce(T) -> M + 'static) -> Told<T> {
    Box::new(move |server, result| server.reply(to, result.map(|value| message(value).encode_to_vec())))
}

impl Server {
    pub fn dispatch(&mut self, to: ReplyTo, request: &Request) {
        let answer = match request.service.as_str() {
            service if TASK.contains(&service) => self.task_method(to, &request.method, &request.payload),
            SANDBOX => self.sandbox_method(to, &request.method, &request.payload),
            service => Err(Status::new(Code::Unimplemented, format!("service {service} is not served here"))),
        };
        match answer {
            Ok(Some(payload)) => self.reply(to, Ok(payload)),
            Ok(None) => {}
            Err(status) => self.reply(to, Err(status)),
        }
    }

    fn task_method(&mut self, to: ReplyTo, method: &str, payload: &[u8]) -> Answer {
        match method {
            "Create" => self.create(to, decode(payload)?),
            "Start" => self.start(to, &decode(payload)?),
            "Delete" => self.delete(to, &decode(payload)?),
            "Exec" => self.exec(decode(payload)?),
            "Kill" => self.kill(to, &decode(payload)?),
            "Wait" => self.wait(to, &decode(payload)?),
            "State" => self.state(to, decode(payload)?),
            "Pids" => self.pids(&decode(payload)?),
            "Stats" => self.stats(&decode(payload)?),
            "Connect" => self.connect(&decode(payload)?),
            "ResizePty" => self.resize(&decode(payload)?),
            "CloseIO" => self.close_io(&decode(payload)?),
            "Pause" => self.freeze(to, &decode::<api::PauseRequest>(payload)?.id, true),
            "Resume" => self.freeze(to, &decode::<api::ResumeRequest>(payload)?.id, false),
            "Update" => self.update(to, decode(payload)?),
            "Shutdown" => self.shutdown(),
            "Checkpoint" => Err(Status::new(Code::Unimplemented, "checkpoint is not supported by this shim")),
            _ => Err(Status::new(Code::Unimplemented, format!("method {method} is not known to the task service"))),
        }
    }

    fn sandbox_method(&mut self, to: ReplyTo, method: &str, payload: &[u8]) -> Answer {
        match method {
            "CreateSandbox" => self.create_sandbox(to, decode(payload)?),
            "StartSandbox" => self.start_sandbox(to, &decode(payload)?),
            "Platform" => crate::sandbox::platform(),
            "StopSandbox" => self.stop_sandbox(to, &decode(payload)?),
            "WaitSandbox" => self.wait_sandbox(to, &decode(payload)?),
            "SandboxStatus" => self.sandbox_status(&decode(payload)?),
            "PingSandbox" => self.ping_sandbox(&decode::<sandbox::PingRequest>(payload)?.sandbox_id),
            "ShutdownSandbox" => self.shutdown_sandbox(to, &decode(payload)?),
            "SandboxMetrics" => self.sandbox_metrics(&decode(payload)?),
            // The one method that a shim may leave out; callers are told to expect that.
            "UpdateSandbox" => Err(Status::new(Code::Unimplemented, "a sandbox of this shim cannot be updated: update its containers")),
            _ => Err(Status::new(Code::Unimplemented, format!("method {method} is not known to the sandbox service"))),
        }
    }
}

fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    M::decode(payload).map_err(|err| Status::new(Code::InvalidArgument, format!("the request cannot be decoded: {err}")))
}

/// An answer that is there at once.
pub fn now(message: &impl Message) -> Answer {
    Ok(Some(message.encode_to_vec()))
}

/// `google.protobuf.Empty`.
pub fn empty() -> Answer {
    Ok(Some(Vec::new()))
}
