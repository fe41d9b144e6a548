//! Processes: making them, changing what they are and may do, waiting for them.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitOptions};

use crate::error::Described;
use crate::{Error, Result, check};

/// What [`clone3`] returned, and where.
#[derive(Debug)]
pub enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2), Linux 5.3, as a fork with `flags` (`CLONE_NEW*`, `CLONE_PARENT`), into a cgroup of v2 if one is given (Linux 5.7).
/// This process must have one thread only: the child goes on with a copy of this memory and may then allocate.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has memory of its own, so nothing is shared that this call could invalidate; `args`
    // is a valid clone_args of the size given and `pidfd` lives through the call.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&args), size_of::<CloneArgs>()) };
    match check(ret, "clone3", || format!("flags {:#x}", args.flags))? {
        0 => Ok(Cloned::Child),
        // SAFETY: CLONE_PIDFD stored a new descriptor that nothing else owns.
        pid => Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// execve(2), or fexecve by descriptor when `path` is empty. Only returns on failure.
pub fn execveat(dir: Option<BorrowedFd<'_>>, path: &CStr, argv: &[CString], env: &[CString]) -> Error {
    fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    }
    let (argv, env) = (pointers(argv), pointers(env));
    let flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let dir = dir.map_or(libc::AT_FDCWD, |d| d.as_raw_fd());
    // SAFETY: path, argv and env are NUL-terminated strings in NULL-terminated arrays that live through the call.
    let ret = unsafe { libc::syscall(libc::SYS_execveat, dir, path.as_ptr(), argv.as_ptr(), env.as_ptr(), flags) };
    match check(ret, "execve", || path.to_string_lossy().into_owned()) {
        Err(e) => e,
        Ok(_) => Error::new("execve", path.to_string_lossy(), 0),
    }
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC (Linux 5.11): every descriptor from `first` on will not survive the next exec.
/// Older kernels: one by one over /proc/self/fd.
pub fn cloexec_from(first: i32) -> Result<()> {
    // SAFETY: only sets a flag on descriptors; owners keep them.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match check(ret, "close_range", || first.to_string()) {
        Err(e) if e.is(libc::ENOSYS) || e.is(libc::EINVAL) => cloexec_one_by_one(first),
        done => done.map(drop),
    }
}

/// Closes every descriptor from `first` on but those of `keep` (close_range(2), Linux 5.9; older kernels: over /proc/self/fd).
/// For a child made by [`clone3`], whose owners of the others never run again.
pub fn close_all_but(first: i32, keep: &[i32]) -> Result<()> {
    let mut keep: Vec<i32> = keep.iter().copied().filter(|fd| *fd >= first).collect();
    keep.sort_unstable();
    let mut from = first as libc::c_uint;
    for fd in keep {
        if fd as libc::c_uint > from {
            close_range(from, fd as libc::c_uint - 1)?;
        }
        from = fd as libc::c_uint + 1;
    }
    close_range(from, libc::c_uint::MAX)
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> Result<()> {
    // SAFETY: the caller of close_all_but vouches for the owners of what is closed.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    match check(ret, "close_range", || format!("{first}-{last}")) {
        Err(e) if e.is(libc::ENOSYS) => {
            for fd in open_descriptors()?.into_iter().filter(|fd| (first..=last).contains(&(*fd as libc::c_uint))) {
                // SAFETY: as above; EBADF of the directory that was just read is harmless.
                unsafe { libc::close(fd) };
            }
            Ok(())
        }
        done => done.map(drop),
    }
}

fn open_descriptors() -> Result<Vec<i32>> {
    let entries =
        std::fs::read_dir("/proc/self/fd").map_err(|e| Error::new("open", "/proc/self/fd", e.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok()).collect())
}

fn cloexec_one_by_one(first: i32) -> Result<()> {
    for fd in open_descriptors()?.into_iter().filter(|fd| *fd >= first) {
        // SAFETY: F_SETFD changes a flag of a descriptor only; EBADF of one that was closed meanwhile is harmless.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Makes `from` appear as descriptor `to` (0, 1, 2 or an inherited number), without close-on-exec.
pub fn duplicate_to(from: impl AsFd, to: i32) -> Result<()> {
    // SAFETY: `to` is a number that the caller decides over (stdio or preserved); dup2 closes what was there.
    let ret = unsafe { libc::dup2(from.as_fd().as_raw_fd(), to) };
    check(ret.into(), "dup2", || to.to_string()).map(drop)
}

/// Whether this descriptor number is open.
pub fn is_open(fd: i32) -> bool {
    // SAFETY: F_GETFD reads a flag; a bad descriptor is an error.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Whether this descriptor number was left open by who executed this program: what it has opened itself closes on exec.
pub fn is_inherited(fd: i32) -> bool {
    // SAFETY: F_GETFD reads a flag; a bad descriptor is an error.
    unsafe { libc::fcntl(fd, libc::F_GETFD) == 0 }
}

/// Closes a descriptor in a child made by [`clone3`], where the parent's owner of it is never dropped: what the description
/// holds (a flock(2)) ends with the parent then, not with the child.
pub fn close_in_child(fd: BorrowedFd<'_>) {
    // SAFETY: the child's copy of the owner never runs again (the child leaves by exec or exit_now), so nothing closes it twice.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Takes over an inherited descriptor (from LISTEN_FDS or a caller's agreement): it is closed on drop from now on.
pub fn adopt_fd(fd: i32) -> Result<OwnedFd> {
    if !is_open(fd) {
        return Err(Error::new("fcntl", fd.to_string(), libc::EBADF));
    }
    // SAFETY: the descriptor is open and was left to this process by its starter; the caller takes each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn prctl(option: libc::c_int, arg: u64, name: &'static str) -> Result<i32> {
    // SAFETY: the options used here take integers only.
    let ret = unsafe { libc::prctl(option, arg, 0u64, 0u64, 0u64) };
    check(ret.into(), "prctl", || format!("{name} {arg}")).map(|v| v as i32)
}

/// PR_SET_DUMPABLE 0: other processes may neither trace this one nor reach into its /proc directory.
pub fn set_non_dumpable() -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, "PR_SET_DUMPABLE").map(drop)
}

/// PR_SET_NO_NEW_PRIVS.
pub fn set_no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS").map(drop)
}

/// PR_SET_KEEPCAPS.
pub fn set_keep_caps(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), "PR_SET_KEEPCAPS").map(drop)
}

/// PR_SET_CHILD_SUBREAPER.
pub fn set_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, "PR_SET_CHILD_SUBREAPER").map(drop)
}

/// PR_SET_PDEATHSIG.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64, "PR_SET_PDEATHSIG").map(drop)
}

/// PR_CAPBSET_DROP; false: this kernel does not know the capability.
pub fn drop_bounding(capability: u8) -> Result<bool> {
    match prctl(libc::PR_CAPBSET_DROP, capability.into(), "PR_CAPBSET_DROP") {
        Ok(_) => Ok(true),
        Err(e) if e.is(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

/// PR_CAP_AMBIENT_RAISE.
pub fn raise_ambient(capability: u8) -> Result<()> {
    // SAFETY: integers only.
    let ret = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability), 0u64, 0u64) };
    check(ret.into(), "prctl", || format!("PR_CAP_AMBIENT_RAISE {capability}")).map(drop)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// capset(2) for this thread: bit n is capability n.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 takes a header and two data structs, which live through the call.
    let ret = unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_mut(&mut header), data.as_ptr()) };
    check(ret, "capset", || format!("permitted {permitted:#x}")).map(drop)
}

/// capget(2): the permitted set of this thread.
pub fn permitted_capabilities() -> Result<u64> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: as in capset.
    let ret = unsafe { libc::syscall(libc::SYS_capget, std::ptr::from_mut(&mut header), data.as_mut_ptr()) };
    check(ret, "capget", String::new)?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// setresuid(2) of this thread, all three ids.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: integers only; the raw call changes this thread, the only one.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }, "setresuid", || uid.to_string()).map(drop)
}

/// setresgid(2) of this thread, all three ids.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }, "setresgid", || gid.to_string()).map(drop)
}

/// setgroups(2) of this thread.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: pointer and length describe one slice.
    let ret = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check(ret, "setgroups", || format!("{groups:?}")).map(drop)
}

/// setsid(2).
pub fn new_session() -> Result<()> {
    rustix::process::setsid().describe("setsid", String::new).map(drop)
}

/// umask(2): returns what was set before.
pub fn set_umask(mask: u32) -> u32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask)).as_raw_mode()
}

/// setns(2): `what` are the `CLONE_NEW*` kinds to join (for a pidfd), or the one kind the descriptor must be (0: any).
pub fn join_namespace(fd: impl AsFd, what: i32) -> Result<()> {
    // SAFETY: integers only.
    let ret = unsafe { libc::setns(fd.as_fd().as_raw_fd(), what) };
    check(ret.into(), "setns", || format!("{what:#x}")).map(drop)
}

/// The kind of a namespace, as `CLONE_NEW*` (ioctl_ns(2), NS_GET_NSTYPE, Linux 4.11); another file is an error.
pub fn namespace_kind(fd: impl AsFd) -> Result<i32> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument.
    let ret = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    check(ret.into(), "ioctl", || "NS_GET_NSTYPE".to_string()).map(|kind| kind as i32)
}

/// unshare(2) with `CLONE_NEW*` flags.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: integers only; descriptors stay shared unless CLONE_FILES is given, which no caller does.
    check(unsafe { libc::unshare(flags) }.into(), "unshare", || format!("{flags:#x}")).map(drop)
}

/// sethostname(2).
pub fn set_hostname(name: &str) -> Result<()> {
    rustix::system::sethostname(name.as_bytes()).describe("sethostname", || name.to_string())
}

/// setdomainname(2).
pub fn set_domainname(name: &str) -> Result<()> {
    // SAFETY: pointer and length describe one string.
    let ret = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check(ret.into(), "setdomainname", || name.to_string()).map(drop)
}

/// setrlimit(2); `resource` is `libc::RLIMIT_*`, u64::MAX is infinity.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: a null old-limit pointer is allowed; `limit` lives through the call.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::from_ref(&limit), std::ptr::null::<libc::rlimit64>()) };
    check(ret, "prlimit", || format!("{soft}:{hard}")).map(drop)
}

/// getrlimit(2): the hard limit of this process; u64::MAX is infinity.
pub fn hard_limit(resource: u32) -> Result<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a null new-limit pointer is allowed; `limit` lives through the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<libc::rlimit64>(), std::ptr::from_mut(&mut limit)) };
    check(ret, "prlimit", || resource.to_string())?;
    Ok(limit.rlim_max)
}

/// clock_gettime(2) of CLOCK_BOOTTIME or, if not `boot`, CLOCK_MONOTONIC: (seconds, nanoseconds).
pub fn clock(boot: bool) -> Result<(i64, i64)> {
    let id = if boot { nix::time::ClockId::CLOCK_BOOTTIME } else { nix::time::ClockId::CLOCK_MONOTONIC };
    let now = nix::time::clock_gettime(id).describe("clock_gettime", String::new)?;
    Ok((now.tv_sec(), now.tv_nsec()))
}

/// personality(2).
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::personality(persona) }.into(), "personality", || format!("{persona:#x}")).map(drop)
}

/// `struct sched_attr` of sched_setattr(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// sched_setattr(2) of this thread; the size is filled in.
pub fn set_scheduler(attr: SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attr };
    // SAFETY: `attr` is a sched_attr that says its own size and lives through the call.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attr), 0u32) };
    check(ret, "sched_setattr", || format!("policy {}", attr.policy)).map(drop)
}

/// ioprio_set(2) of this process: class 1 to 3, level 0 to 7.
pub fn set_io_priority(class: u32, level: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: integers only.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, (class << 13) | level) };
    check(ret, "ioprio_set", || format!("class {class} level {level}")).map(drop)
}

/// sched_setaffinity(2) of a thread (0: this one): bit n of the words is CPU n. The kernel drops what the thread's cpuset has not;
/// EINVAL: nothing is left.
pub fn set_affinity(pid: i32, mask: &[u64]) -> Result<()> {
    // SAFETY: length and pointer describe one slice.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) };
    check(ret, "sched_setaffinity", || format!("{pid} {mask:x?}")).map(drop)
}

/// sched_getaffinity(2) of this thread: the mask's first word, for messages.
pub fn affinity() -> Result<u64> {
    let mut mask = [0u64; 16];
    // SAFETY: length and pointer describe one array.
    let ret = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) };
    check(ret, "sched_getaffinity", String::new).map(|_| mask[0])
}

/// set_mempolicy(2): `mode` with its flags, bit n of the words is node n.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    // The kernel takes one bit less than it is told (set_mempolicy(2), bugs).
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits, which the slice has; null with zero bits is the empty set.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    check(ret, "set_mempolicy", || format!("mode {mode:#x} nodes {nodes:x?}")).map(drop)
}

/// pidfd_getfd(2), Linux 5.6: a duplicate of descriptor `fd` of another process.
pub fn pidfd_getfd(pidfd: impl AsFd, fd: i32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), fd, 0u32) };
    // SAFETY: the kernel has just returned this descriptor to us; nothing else owns it.
    check(ret, "pidfd_getfd", || fd.to_string()).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// keyctl(2), KEYCTL_JOIN_SESSION_KEYRING: a fresh session keyring of this name; returns its serial.
pub fn new_session_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: the name is NUL-terminated.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    check(ret, "keyctl", || name.to_string_lossy().into_owned()).map(|serial| serial as i32)
}

/// keyctl(2), KEYCTL_SETPERM.
pub fn set_key_permissions(key: i32, permissions: u32) -> Result<()> {
    const KEYCTL_SETPERM: i32 = 5;
    // SAFETY: integers only.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key, permissions) };
    check(ret, "keyctl", || format!("setperm {permissions:#x}")).map(drop)
}

/// fchdir(2).
pub fn change_dir(dir: impl AsFd) -> Result<()> {
    rustix::process::fchdir(dir).describe("fchdir", String::new)
}

/// chroot(2) to the current directory.
pub fn chroot_here() -> Result<()> {
    rustix::process::chroot(".").describe("chroot", String::new)
}

/// getcwd(2), raw: a directory outside the root shows as `(unreachable)/…`.
pub fn current_dir() -> Result<Vec<u8>> {
    rustix::process::getcwd(Vec::new()).describe("getcwd", String::new).map(CString::into_bytes)
}

/// pidfd_open(2), Linux 5.3.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    let shown = || pid.to_string();
    let pid = Pid::from_raw(pid).ok_or_else(|| Error::new("pidfd_open", shown(), libc::EINVAL))?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).describe("pidfd_open", shown)
}

/// pidfd_send_signal(2); 0 only asks whether the process is there.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo is allowed; integers otherwise.
    let ret =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0u32) };
    check(ret, "pidfd_send_signal", || signal.to_string()).map(drop)
}

/// Whether the process behind a pidfd has exited by `timeout` (None: waits for ever).
pub fn pidfd_exited(pidfd: impl AsFd, timeout: Option<std::time::Duration>) -> Result<bool> {
    let pidfd = pidfd.as_fd();
    wait_readable(&[pidfd], timeout).map(|ready| ready[0])
}

/// poll(2) for input or hang-up on several descriptors.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<std::time::Duration>) -> Result<Vec<bool>> {
    wait_ready(fds, &[], timeout)
}

/// The same for descriptors of which some are to be read and others written; the result is in this order.
pub fn wait_ready(input: &[BorrowedFd<'_>], output: &[BorrowedFd<'_>], timeout: Option<std::time::Duration>) -> Result<Vec<bool>> {
    let input = input.iter().map(|fd| (*fd, Wanted::Input));
    wait_for(&input.chain(output.iter().map(|fd| (*fd, Wanted::Room))).collect::<Vec<_>>(), timeout)
}

/// What a descriptor is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Input,
    Room,
    /// POLLPRI: the event of a file of the kernel's, that could be read at any time.
    Event,
}

/// poll(2) until one is ready, or for so long.
pub fn wait_for(fds: &[(BorrowedFd<'_>, Wanted)], timeout: Option<std::time::Duration>) -> Result<Vec<bool>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let flags = |wanted| match wanted {
        Wanted::Input => PollFlags::IN,
        Wanted::Room => PollFlags::OUT,
        Wanted::Event => PollFlags::PRI,
    };
    let end = timeout.map(|t| std::time::Instant::now() + t);
    loop {
        let mut polled: Vec<PollFd<'_>> = fds.iter().map(|(fd, wanted)| PollFd::from_borrowed_fd(*fd, flags(*wanted))).collect();
        let left = end.map(|end| {
            let left = end.saturating_duration_since(std::time::Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        match poll(&mut polled, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.describe("poll", String::new).map(|_| polled.iter().map(|p| !p.revents().is_empty()).collect()),
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

impl Ended {
    /// The shell's convention: the exit code, or 128 + the signal.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(code) => code,
            Ended::Signaled(signal) => 128 + signal,
        }
    }
}

/// waitpid(2) for one child.
pub fn wait(pid: i32) -> Result<Ended> {
    let shown = || pid.to_string();
    let pid = Pid::from_raw(pid).ok_or_else(|| Error::new("waitpid", shown(), libc::EINVAL))?;
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) | Ok(None) => {}
            Ok(Some((_, status))) => return Ok(ended(status)),
            Err(e) => return Err(e).describe("waitpid", shown),
        }
    }
}

/// waitpid(2) for any child that has ended, without waiting: None if there is none.
pub fn reap_any() -> Result<Option<(i32, Ended)>> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Err(rustix::io::Errno::CHILD) | Ok(None) => Ok(None),
        Ok(Some((pid, status))) => Ok(Some((pid.as_raw_nonzero().get(), ended(status)))),
        Err(e) => Err(e).describe("waitpid", String::new),
    }
}

fn ended(status: rustix::process::WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, Some(signal)) => Ended::Signaled(signal),
        (None, None) => Ended::Exited(255),
    }
}

/// kill(2); the caller has made sure who `pid` is.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::kill(pid, signal) }.into(), "kill", || format!("{pid} {signal}")).map(drop)
}

/// A descriptor that reads `signalfd_siginfo` for these signals, which are blocked from now on.
pub fn signal_fd(signals: &[i32]) -> Result<OwnedFd> {
    use nix::sys::signal::SigSet;
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    let mut set = SigSet::empty();
    for signal in signals {
        set.add(nix::sys::signal::Signal::try_from(*signal).describe("sigaddset", || signal.to_string())?);
    }
    set.thread_block().describe("sigprocmask", String::new)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).describe("signalfd", String::new).map(OwnedFd::from)
}

/// The next signal from [`signal_fd`], None when there is none now.
pub fn next_signal(fd: impl AsFd) -> Result<Option<i32>> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut info) {
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        done => {
            done.describe("read", || "signalfd".to_string())?;
            Ok(Some(u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as i32))
        }
    }
}

/// What is of use in std's own start of a program, without the rest: descriptors 0, 1 and 2 are open, so that no file of this
/// program's takes their place, and a reader that has gone is an error, not a signal.
pub fn start() -> Result<()> {
    let closed = |fd| libc::pollfd { fd, events: 0, revents: 0 };
    let mut fds = [closed(0), closed(1), closed(2)];
    // SAFETY: three pollfd that live through the call; it waits for nothing.
    let ret = unsafe { libc::poll(fds.as_mut_ptr(), 3, 0) };
    crate::check(ret.into(), "poll", || "0 1 2".to_string())?;
    for _ in fds.iter().filter(|fd| fd.revents & libc::POLLNVAL != 0) {
        use std::os::fd::IntoRawFd;
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty());
        // The lowest number that is free; nobody owns it from here on.
        let number = null.describe("open", || "/dev/null".to_string())?.into_raw_fd();
        if number > 2 {
            return Err(Error::new("open", format!("/dev/null as {number} in place of a closed 0, 1 or 2"), libc::EBADF));
        }
    }
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::SigHandler::SigIgn) }
        .describe("signal", || "SIGPIPE".to_string())
        .map(drop)
}

/// A program whose start is [`start`] and then the function named, in place of std's: that one reads procfs, makes a second stack and
/// catches faults, each time a program runs.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main(_: std::ffi::c_int, _: *const *const std::ffi::c_char) -> std::ffi::c_int {
            $main()
        }
    };
}

/// The signals that this process ignores: bit n-1 is signal n. Callers ignore some (a shell's `nohup`, a service manager SIGPIPE).
pub fn ignored_signals() -> Result<u64> {
    let status = crate::fs::read_file(std::path::Path::new("/proc/self/status"), 1 << 16)?;
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"SigIgn:"));
    let mask = line.and_then(|hex| u64::from_str_radix(std::str::from_utf8(hex).ok()?.trim(), 16).ok());
    mask.ok_or_else(|| Error::new("read", "/proc/self/status: SigIgn", libc::EINVAL))
}

/// Unblocks every signal, and sets those of the mask to the default action: a new program starts clean, whatever this one and its
/// callers have ignored. execve(2) alone does that for handlers only.
pub fn reset_signals(ignored: u64) -> Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).describe("sigprocmask", String::new)?;
    // The kernel's struct sigaction: handler SIG_DFL, no flags, no restorer, an empty mask. glibc's own call refuses signals 32 and 33.
    let default = [0u64; 4];
    let set_size = size_of::<u64>();
    for signal in (1..=64).filter(|signal| ignored & (1 << (signal - 1)) != 0) {
        // SAFETY: `default` is as large as the kernel's struct, and the default action runs no code of ours.
        let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), set_size) };
        if done != 0 {
            return Err(Error::new("rt_sigaction", signal.to_string(), io::Error::last_os_error().raw_os_error().unwrap_or(0)));
        }
    }
    Ok(())
}

/// From here until exec a signal that asks for an end ends this process, also as the first one of a pid namespace, to which the
/// kernel delivers none that it does not handle.
pub fn end_on_signals() -> Result<()> {
    extern "C" fn end(signal: libc::c_int) {
        exit_now(128 + signal)
    }
    let handler = nix::sys::signal::SigHandler::Handler(end);
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGABRT, libc::SIGTERM] {
        let number = nix::sys::signal::Signal::try_from(signal).describe("signal", || signal.to_string())?;
        // SAFETY: the handler only calls _exit, which is safe in a signal handler; exec puts the default back.
        unsafe { nix::sys::signal::signal(number, handler) }.describe("signal", || signal.to_string())?;
    }
    Ok(())
}

/// Ends this process without running anything else (a child made by [`clone3`] must not run its parent's destructors).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and has no preconditions.
    unsafe { libc::_exit(code) }
}
