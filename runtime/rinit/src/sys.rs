//! The system calls of this program, made safe. No allocation, no formatting: the binary is to stay small.
#![allow(unsafe_code, reason = "this program has no dependency but libc; each block says why it is sound")]

use std::ffi::{CStr, c_char, c_int};

/// A process id.
pub type Pid = libc::pid_t;

/// A set of signals.
#[derive(Clone, Copy)]
pub struct Signals(libc::sigset_t);

impl Signals {
    /// All but those that tell of a fault in this very process, which cannot be put off.
    pub fn all_but_faults() -> Signals {
        let mut set = Signals::none();
        // SAFETY: set is a live, initialised sigset_t.
        unsafe { libc::sigfillset(&raw mut set.0) };
        for fault in [libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS] {
            // SAFETY: as above; the number is a valid signal.
            unsafe { libc::sigdelset(&raw mut set.0, fault) };
        }
        set
    }

    fn none() -> Signals {
        // SAFETY: an all-zero sigset_t is the empty set on Linux; sigemptyset below makes it so in any case.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: set is live.
        unsafe { libc::sigemptyset(&raw mut set) };
        Signals(set)
    }

    /// Makes this the mask of the process; returns the one there was.
    pub fn block(&self) -> Signals {
        let mut old = Signals::none();
        // SAFETY: both sets are live.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, &raw mut old.0) };
        old
    }

    /// Waits for one of the (blocked) signals.
    pub fn wait(&self) -> c_int {
        loop {
            // SAFETY: the set is live; no siginfo is asked for.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.0, std::ptr::null_mut()) };
            if signal > 0 {
                return signal;
            }
        }
    }
}

/// Ignores (or takes as usual) the signals that stop a background process that touches the terminal.
pub fn ignore_terminal_stops(ignore: bool) {
    let handler = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    for signal in [libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: no handler function is installed, only a disposition set.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Some(0) in the child, Some(pid) in the parent.
pub fn fork() -> Option<Pid> {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    (pid >= 0).then_some(pid)
}

/// Puts the calling process into a group of its own and, if standard input is a terminal, into its foreground.
pub fn lead_foreground_group() {
    // SAFETY: plain system calls on the own process and descriptor 0; without a terminal they fail and change nothing.
    unsafe {
        libc::setpgid(0, 0);
        libc::tcsetpgrp(0, libc::getpgrp());
    }
}

/// Replaces the process; returns the error number if it could not.
///
/// `argv` must be (the rest of) an argument vector as main received it.
pub fn exec(argv: Arguments) -> c_int {
    // SAFETY: argv is NULL-terminated, and its strings live as long as the process.
    unsafe { libc::execvp(*argv.0, argv.0) };
    errno()
}

/// The last error number.
pub fn errno() -> c_int {
    // SAFETY: the location is this thread's and always valid.
    unsafe { *libc::__errno_location() }
}

/// Reaps one child without waiting: its pid and wait status.
pub fn reap() -> Option<(Pid, c_int)> {
    let mut status = 0;
    // SAFETY: status is live.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Sends a signal; a process that is gone has no need of it.
pub fn kill(pid: Pid, signal: c_int) {
    // SAFETY: a plain system call.
    unsafe { libc::kill(pid, signal) };
}

/// Orphans below this process become its children, as they would be if it were PID 1.
pub fn become_subreaper() {
    // SAFETY: a plain system call; on failure orphans go to the real PID 1, which reaps them.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

/// Writes everything; false if it cannot be written.
pub fn write_all(fd: c_int, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        // SAFETY: the pointer and length are those of a live slice.
        let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(n) {
            Ok(n) => bytes = &bytes[n..],
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return false,
        }
    }
    true
}

/// What an error number means.
pub fn error_text(errno: c_int) -> &'static [u8] {
    // SAFETY: strerror returns a NUL-terminated string; this process has one thread and copies nothing over it before it is printed.
    unsafe { CStr::from_ptr(libc::strerror(errno)) }.to_bytes()
}

/// The argument vector that main received, from some index on.
#[derive(Clone, Copy)]
pub struct Arguments(*const *const c_char);

impl Arguments {
    /// # Safety
    /// `argv` is main's: NULL-terminated, with strings that live as long as the process.
    pub unsafe fn new(argv: *const *const c_char) -> Arguments {
        Arguments(argv)
    }

    /// The first one and the rest.
    pub fn split_first(self) -> Option<(&'static [u8], Arguments)> {
        // SAFETY: the vector is NULL-terminated and this is at most its end.
        let first = unsafe { *self.0 };
        if first.is_null() {
            return None;
        }
        // SAFETY: first is a NUL-terminated string of the argument vector; the element after it is at most the NULL.
        Some((unsafe { CStr::from_ptr(first) }.to_bytes(), Arguments(unsafe { self.0.add(1) })))
    }
}
