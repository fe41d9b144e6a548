//! Seccomp: an OCI profile becomes a classic BPF program, once, before the container's process exists.
//!
//! ```text
//! Profile ─rules→ Rules ─compile→ Program (prefix of ours + libseccomp's code, flags) ─load in the child→ kernel (and a notify fd)
//!                                 ↑ Cache: a file named by the hash of all that the program depends on
//! ```

mod cache;
mod compile;
mod prefix;
mod profile;
mod rules;
mod syscalls;

use std::io;
use std::os::fd::OwnedFd;

pub use cache::Cache;
pub use compile::architectures;
pub use profile::{Arg, Profile, SyscallRule};

/// Why a profile cannot be compiled: one line.
#[derive(Debug, thiserror::Error)]
#[error("seccomp: {0}")]
pub struct Error(pub String);

type Result<T> = std::result::Result<T, Error>;

/// A compiled filter, ready for seccomp(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// An array of `struct sock_filter`, in host byte order.
    code: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*` bits.
    flags: u64,
    /// One line per rule that could not be carried out.
    warnings: Vec<String>,
}

impl Program {
    /// Compiles a profile for this host.
    pub fn compile(profile: &Profile) -> Result<Program> {
        compile::compile(&rules::Rules::of(profile)?)
    }

    /// Whether loading returns a listener to hand to the profile's `listenerPath`.
    pub fn wants_listener(&self) -> bool {
        self.flags & rrun_sys::seccomp::FLAG_NEW_LISTENER != 0
    }

    /// `SECCOMP_FILTER_FLAG_*` bits.
    pub fn flags(&self) -> u64 {
        self.flags
    }

    /// What was skipped, one line each: names that no architecture knows, as every runtime skips them.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Loads the filter into the calling thread (every thread with `SECCOMP_FILTER_FLAG_TSYNC`). Allocates nothing: fit for a
    /// child between clone and exec. Needs no_new_privs or CAP_SYS_ADMIN. Some(fd) exactly if [`Program::wants_listener`].
    pub fn load(&self) -> io::Result<Option<OwnedFd>> {
        rrun_sys::seccomp::set_filter(self.flags, &self.code)
    }

    /// The same for the calling thread alone, whatever the flags say.
    pub fn load_into_this_thread(&self) -> io::Result<Option<OwnedFd>> {
        rrun_sys::seccomp::set_filter(self.flags & !(rules::TSYNC | rules::TSYNC_ESRCH), &self.code)
    }
}

#[cfg(test)]
mod tests;
