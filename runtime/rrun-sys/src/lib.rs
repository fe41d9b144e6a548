//! The only unsafe code of the runtime: one function per system call.
//!
//! Every error carries the call and its arguments ([`Error`]), so callers add only what they were about. The process that
//! uses this crate is single-threaded: [`clone3`](process::clone3) relies on it.
#![allow(unsafe_code, reason = "this crate is where the runtime's system calls live; each block says why it is sound")]

pub mod bpf;
mod error;
pub mod filesystem;
pub mod fs;
pub mod keys;
pub mod memory;
pub mod mount;
pub mod process;
pub mod seccomp;
pub mod socket;
pub mod tty;

pub use error::{Error, Result, check, errno_text};
