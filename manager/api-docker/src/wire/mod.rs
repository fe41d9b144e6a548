//! The wire: how parameters are read and answers are framed. Knows nothing of containers.

pub(crate) mod detach;
pub(crate) mod drain;
pub(crate) mod error;
pub(crate) mod filters;
pub(crate) mod hijack;
pub(crate) mod json;
pub(crate) mod pipe;
pub(crate) mod progress;
pub(crate) mod query;
pub(crate) mod raw_stream;
pub(crate) mod time;
pub(crate) mod version;
