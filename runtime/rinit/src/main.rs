//! `rcontainerd-init`: the one program of ours that runs *inside* containers. Static, libc alone, no allocation.
//!
//! - `init -- CMD…` (also as `docker-init -- CMD…`): PID 1 for a program that is not made to be one. Starts CMD, passes signals
//!   on, reaps what is orphaned, ends as CMD ends (128+n for a signal).
//! - `pause`: PID 1 of a pod's shared namespaces: waits, reaps.
//! - `hello`: the greeting of the image that ships with the project.
#![no_main]
#![allow(unsafe_code, reason = "the entry point is C's main; the rest is in sys")]

mod sys;

use std::ffi::{c_char, c_int};

use sys::{Arguments, Pid, Signals};

const HELLO: &[u8] = include_bytes!("hello.txt");

const USAGE: &[u8] = b"usage: rcontainerd-init init [--] COMMAND [ARG...]   run COMMAND as PID 1 should\n\
       rcontainerd-init pause                        wait for SIGTERM or SIGINT, reap orphans\n\
       rcontainerd-init hello                        print a greeting\n";

/// The codes that shells and container engines use when a command cannot be started.
const NOT_EXECUTABLE: c_int = 126;
const NOT_FOUND: c_int = 127;
const BAD_USAGE: c_int = 2;

#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: argv is main's.
    let arguments = unsafe { Arguments::new(argv) };
    let Some((_, arguments)) = arguments.split_first() else { return usage(b"no arguments") };
    match arguments.split_first() {
        Some((b"init", rest)) => match rest.split_first() {
            Some((b"--", command)) => init(command),
            _ => init(rest),
        },
        // As an engine calls its docker-init.
        Some((b"--", command)) => init(command),
        Some((b"pause", rest)) if rest.split_first().is_none() => pause(),
        Some((b"hello", rest)) if rest.split_first().is_none() => c_int::from(!sys::write_all(1, HELLO)),
        Some((b"-h" | b"--help" | b"help", _)) => c_int::from(!sys::write_all(1, USAGE)),
        Some((word @ (b"pause" | b"hello"), _)) => {
            complain(&[word, b": takes no arguments"]);
            usage(b"")
        }
        Some((word, _)) => {
            complain(&[b"unknown command: ", word]);
            usage(b"")
        }
        None => usage(b"no command"),
    }
}

fn usage(why: &[u8]) -> c_int {
    if !why.is_empty() {
        complain(&[why]);
    }
    sys::write_all(2, USAGE);
    BAD_USAGE
}

fn complain(parts: &[&[u8]]) {
    sys::write_all(2, b"rcontainerd-init: ");
    for part in parts {
        sys::write_all(2, part);
    }
    sys::write_all(2, b"\n");
}

fn init(command: Arguments) -> c_int {
    if command.split_first().is_none() {
        return usage(b"init: no command");
    }
    let signals = Signals::all_but_faults();
    let inherited = signals.block();
    sys::become_subreaper();
    // Handing the terminal over from the background would stop this process.
    sys::ignore_terminal_stops(true);
    match sys::fork() {
        None => {
            complain(&[b"fork: ", sys::error_text(sys::errno())]);
            1
        }
        Some(0) => become_command(command, &inherited),
        Some(child) => supervise(child, &signals),
    }
}

fn become_command(command: Arguments, inherited: &Signals) -> c_int {
    sys::lead_foreground_group();
    sys::ignore_terminal_stops(false);
    inherited.block();
    let errno = sys::exec(command);
    let name = command.split_first().map_or(&b""[..], |(name, _)| name);
    complain(&[b"cannot run ", name, b": ", sys::error_text(errno)]);
    if errno == libc::ENOENT { NOT_FOUND } else { NOT_EXECUTABLE }
}

fn supervise(child: Pid, signals: &Signals) -> c_int {
    loop {
        match signals.wait() {
            libc::SIGCHLD => {
                if let Some(code) = reap_all(child) {
                    return code;
                }
            }
            signal => sys::kill(child, signal),
        }
    }
}

/// Reaps every child that has ended; the exit code if the main one is among them.
fn reap_all(main: Pid) -> Option<c_int> {
    let mut code = None;
    while let Some((pid, status)) = sys::reap() {
        if pid == main {
            code = Some(exit_code(status));
        }
    }
    code
}

fn exit_code(status: c_int) -> c_int {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

fn pause() -> c_int {
    let signals = Signals::all_but_faults();
    signals.block();
    loop {
        match signals.wait() {
            libc::SIGTERM | libc::SIGINT => return 0,
            libc::SIGCHLD => while sys::reap().is_some() {},
            _ => {}
        }
    }
}
