//! seccomp(2). Nothing here allocates: it runs in a container's process just before exec.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
const SECCOMP_GET_ACTION_AVAIL: libc::c_ulong = 2;

/// Returns a descriptor on which a supervisor answers for SECCOMP_RET_USER_NOTIF (Linux 5.0).
pub const FLAG_NEW_LISTENER: u64 = 1 << 3;

#[repr(C)]
struct Program {
    len: u16,
    filter: *const u8,
}

/// Loads a classic BPF filter (an array of 8-byte `struct sock_filter`) into the calling thread. With [`FLAG_NEW_LISTENER`]
/// the result is the listener. EINVAL: the kernel refuses the program or a flag; EACCES: neither no_new_privs nor CAP_SYS_ADMIN.
pub fn set_filter(flags: u64, code: &[u8]) -> io::Result<Option<OwnedFd>> {
    let Ok(len) = u16::try_from(code.len() / 8) else { return Err(io::Error::from_raw_os_error(libc::E2BIG)) };
    let program = Program { len, filter: code.as_ptr() };
    // SAFETY: program points to len 8-byte instructions that outlive the call; the kernel copies and verifies them.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    match (ret, flags & FLAG_NEW_LISTENER != 0) {
        (-1, _) => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just returned this descriptor to us; nothing else owns it.
        (fd, true) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })),
        (0, false) => Ok(None),
        // With TSYNC and without TSYNC_ESRCH: the id of a thread that could not be synchronised.
        (_, false) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// Whether the kernel knows an action (`SECCOMP_RET_*`, Linux 4.14).
pub fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads four bytes from a live u32.
    unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// Whether the kernel knows these `SECCOMP_FILTER_FLAG_*` bits: it looks at them before it looks at the (absent) program.
pub fn flags_available(flags: u64) -> bool {
    // SAFETY: a null program is never followed: the kernel answers EFAULT.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, std::ptr::null::<Program>()) };
    ret == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}
