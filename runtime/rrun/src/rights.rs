//! What this process may do: root, root of a user namespace (rootless Podman runs its runtime so), or an ordinary user.

use std::os::unix::fs::MetadataExt;

use crate::cli::{Global, Rootless};

/// The inode of the first user namespace (include/linux/proc_ns.h, PROC_USER_INIT_INO; stable ABI).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Not root, not even in a user namespace.
    pub ordinary_user: bool,
    pub in_user_namespace: bool,
    /// Cgroups that this process may not have are done without (`--rootless`).
    pub rootless_cgroups: bool,
}

impl Rights {
    pub fn of(global: &Global) -> Rights {
        let ordinary_user = !rustix::process::geteuid().is_root();
        let in_user_namespace = in_user_namespace();
        let rootless_cgroups = match global.rootless {
            Rootless::Yes => true,
            Rootless::No => false,
            Rootless::Auto => ordinary_user || (in_user_namespace && !runs_systemd_itself()),
        };
        Rights { ordinary_user, in_user_namespace, rootless_cgroups }
    }

    /// Whether systemd means the user's: root of a user namespace is an ordinary user to the system's, unless that one runs in the
    /// same user namespace (a system container).
    pub fn has_users_systemd(self) -> bool {
        self.ordinary_user || (self.in_user_namespace && !runs_systemd_itself())
    }
}

/// Whose containers are the user's own: everybody's but root's. Root of a user namespace counts as a user unless it says that it is
/// root (`USER`), as runc has it.
pub fn is_ordinary_user() -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|d| !d.is_empty())
        && in_user_namespace()
        && std::env::var_os("USER").is_none_or(|user| user != "root")
}

/// False without procfs: nobody makes containers there.
fn in_user_namespace() -> bool {
    std::fs::metadata("/proc/self/ns/user").is_ok_and(|meta| meta.ino() != FIRST_USER_NAMESPACE)
}

/// systemd's directory belongs to root of this user namespace; one of a namespace above shows as nobody's.
fn runs_systemd_itself() -> bool {
    std::fs::metadata("/run/systemd/system").is_ok_and(|meta| meta.uid() == 0)
}
