//! (skeleton)
pub mod seccomp;
