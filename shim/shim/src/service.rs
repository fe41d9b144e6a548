//! The task service: which handler answers which method. Versions 2 and 3 have the same messages.

use prost::Message;
use proto_containerd::task::v3 as api;
use shim_ttrpc::{Code, Request, Status};

use crate::connection::ReplyTo;
use crate::server::Server;

const SERVICES: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// `None`: the handler answers later, when the runtime has done its work or the process has ended.
pub type Answer = Result<Option<Vec<u8>>, Status>;

impl Server {
    pub fn dispatch(&mut self, to: ReplyTo, request: &Request) {
        let answer = if SERVICES.contains(&request.service.as_str()) {
            self.task_method(to, &request.method, &request.payload)
        } else {
            Err(Status::new(Code::Unimplemented, format!("service {} is not served here", request.service)))
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
            "State" => self.state(&decode(payload)?),
            "Pids" => self.pids(&decode(payload)?),
            "Stats" => self.stats(&decode(payload)?),
            "Connect" => self.connect(&decode(payload)?),
            "ResizePty" => self.resize(&decode(payload)?),
            "CloseIO" => self.close_io(&decode(payload)?),
            "Pause" => self.freeze(to, &decode::<api::PauseRequest>(payload)?.id, true),
            "Resume" => self.freeze(to, &decode::<api::ResumeRequest>(payload)?.id, false),
            "Update" => self.update(to, decode(payload)?),
            "Shutdown" => self.shutdown(&decode(payload)?),
            "Checkpoint" => Err(Status::new(Code::Unimplemented, "checkpoint is not supported by this shim")),
            _ => Err(Status::new(Code::Unimplemented, format!("method {method} is not known to the task service"))),
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
