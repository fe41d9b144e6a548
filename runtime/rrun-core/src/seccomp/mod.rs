//! Seccomp: an OCI profile becomes a classic BPF program, once, before the container's process exists.
//!
//! ```text
//! Profile ─compile→ Program (bytes, flags) ─load in the child→ kernel (and a notify fd)
//!                   ↑ Cache: file named by the hash of all that the program depends on
//! ```

mod profile;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use profile::{Arg, Profile, SyscallRule};

/// Why a profile cannot be compiled.
#[derive(Debug, thiserror::Error)]
#[error("seccomp: {0}")]
pub struct Error(pub String);

/// A compiled filter, ready for seccomp(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// An array of `struct sock_filter`, in host byte order.
    code: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*` bits.
    flags: u64,
    /// Whether some action is SCMP_ACT_NOTIFY, so that loading yields a listener.
    notify: bool,
    /// One line per system call name that no architecture knows (skipped, as every runtime does).
    warnings: Vec<String>,
}

impl Program {
    /// Compiles a profile for this host.
    pub fn compile(profile: &Profile) -> Result<Program, Error> {
        let _ = profile;
        unimplemented!()
    }
    /// Whether loading returns a listener fd to hand to the profile's `listenerPath`.
    pub fn wants_listener(&self) -> bool {
        self.notify
    }
    /// What was skipped, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
    /// Loads the filter into the calling thread (every thread with `SECCOMP_FILTER_FLAG_TSYNC`). Allocates nothing: fit for a
    /// child between clone and exec. Needs no_new_privs or CAP_SYS_ADMIN. Some(fd) exactly if [`Program::wants_listener`].
    pub fn load(&self) -> io::Result<Option<OwnedFd>> {
        let _ = (&self.code, self.flags);
        unimplemented!()
    }
}

/// A directory of compiled programs (0700, owned by the caller; nothing in it is trusted otherwise).
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// `dir` is made on first use.
    pub fn new(dir: &Path) -> Cache {
        Cache { dir: dir.to_path_buf() }
    }
    /// The program from the cache, else compiled and put there. A cache that cannot be used or trusted costs time, never the filter.
    pub fn get_or_compile(&self, profile: &Profile) -> Result<Program, Error> {
        let _ = &self.dir;
        Program::compile(profile)
    }
}
