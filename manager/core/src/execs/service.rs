//! The exec service.

use rcontainerd_types::{Error, Result};

use super::{CreateExec, Exec, ResizeExec, StartExec};
use crate::io::ProcessIo;

/// Cheap to clone.
#[derive(Clone)]
pub struct Execs {}

fn unwired<T>() -> Result<T> {
    Err(Error::unsupported("execs: not wired yet"))
}

impl Execs {
    /// Gives the exec's id.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the container does not run or is paused.
    pub async fn create(&self, _command: CreateExec) -> Result<String> {
        unwired()
    }

    /// `None` when detached.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it ran already; the runtime's message with the cause in plain words.
    pub async fn start(&self, _command: StartExec) -> Result<Option<ProcessIo>> {
        unwired()
    }

    /// # Errors
    /// `NotFound`.
    pub async fn inspect(&self, _id: &str) -> Result<Exec> {
        unwired()
    }

    /// # Errors
    /// `NotFound`; `Conflict` without a terminal.
    pub async fn resize(&self, _command: ResizeExec) -> Result<()> {
        unwired()
    }
}
