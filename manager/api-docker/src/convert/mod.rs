//! Docker's bodies ↔ core's commands and answers. Pure; no decisions beyond spelling.

pub(crate) mod create;
pub(crate) mod host_config;
