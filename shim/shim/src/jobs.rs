//! Calls of the runtime: started, then gone on with when the process has ended. The loop never waits for one.

use std::process::Command;
use std::time::SystemTime;

use rrun_sys::process::Ended;
use shim_ttrpc::Status;

use crate::runtime::LogMark;
use crate::server::Server;

/// What follows a job.
pub type Then = Box<dyn FnOnce(&mut Server, Result<(), Status>)>;

pub struct Job {
    /// Such as `create`: named in the error.
    what: &'static str,
    log: LogMark,
    then: Then,
}

impl Server {
    /// Starts the runtime; `then` gets its success, or its own words.
    pub fn run_runtime(&mut self, what: &'static str, mut command: Command, log: LogMark, then: Then) {
        match command.spawn() {
            // The child is reaped by the loop; the handle is not needed.
            Ok(child) => {
                let pid = child.id().cast_signed();
                self.jobs.insert(pid, Job { what, log, then });
            }
            Err(err) => {
                let program = command.get_program().display().to_string();
                let why = match err.kind() {
                    std::io::ErrorKind::NotFound => format!("exec: {program:?}: executable file not found in $PATH"),
                    _ => format!("run {program}: {err}"),
                };
                then(self, Err(Status::unknown(format!("OCI runtime {what} failed: {why}"))));
            }
        }
    }

    /// A child has ended: a job's, a known process's, or one that a job under way will claim.
    pub fn child_ended(&mut self, pid: i32, ended: Ended) {
        if let Some(job) = self.jobs.remove(&pid) {
            let result = job.outcome(ended);
            (job.then)(self, result);
        } else {
            self.process_ended(pid, ended, SystemTime::now());
        }
        if self.jobs.is_empty() {
            self.unclaimed.clear();
        }
    }
}

impl Job {
    fn outcome(&self, ended: Ended) -> Result<(), Status> {
        if ended == Ended::Exited(0) {
            return Ok(());
        }
        let why = self.log.error().unwrap_or_else(|| match ended {
            Ended::Exited(code) => format!("the runtime exited with status {code} and no message"),
            Ended::Signaled(signal) => format!("the runtime was killed by signal {signal}"),
        });
        Err(Status::unknown(format!("OCI runtime {} failed: {why}", self.what)))
    }
}
