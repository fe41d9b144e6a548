//! The program as containers use it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rcontainerd-init"))
}

fn output(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn code(args: &[&str]) -> i32 {
    output(args).status.code().unwrap()
}

/// Starts a shell script under init and waits for its first line.
fn start(script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = program().args(["init", "--", "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, out)
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn ends_as_the_command_ends() {
    assert_eq!(code(&["init", "--", "sh", "-c", "exit 7"]), 7);
    assert_eq!(code(&["init", "true"]), 0);
    assert_eq!(code(&["--", "sh", "-c", "exit 3"]), 3);
    assert_eq!(code(&["init", "--", "sh", "-c", "kill -KILL $$"]), 137);
}

#[test]
fn says_why_a_command_cannot_be_run() {
    let out = output(&["init", "--", "/no/such/file"]);
    assert_eq!(out.status.code(), Some(127));
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "rcontainerd-init: cannot run /no/such/file: No such file or directory\n");
    assert_eq!(code(&["init", "--", "/etc/passwd"]), 126);
}

#[test]
fn passes_signals_on() {
    // No signal that a shell or nohup in front of the tests may have ignored: a shell cannot trap those.
    for (name, number) in [("TERM", 15), ("USR2", 12), ("USR1", 10), ("WINCH", 28)] {
        let (mut child, _out) = start(&format!("trap 'exit {number}' {name}; echo ready; while :; do read x || sleep 0.01; done"));
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(number), "{name}");
    }
}

#[test]
fn reaps_what_others_leave() {
    // The orphan's parent is gone at once; it ends and would stay a zombie below an init that reaps only its own child.
    let (mut child, mut out) = start("(sh -c 'exit 5' &); echo ready; read x; exit 0");
    let deadline = Instant::now() + Duration::from_secs(10);
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    while std::fs::read_to_string(&children).unwrap().split_whitespace().count() > 1 {
        assert!(Instant::now() < deadline, "the orphan was not reaped");
        std::thread::yield_now();
    }
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    out.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn the_command_starts_with_the_signal_mask_it_would_have_had() {
    let out = output(&["init", "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
}

#[test]
fn hello_greets_and_explains() {
    let out = output(&["hello"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success());
    assert!(text.contains("Hello from rcontainerd!"));
    assert!((8..=12).contains(&text.lines().filter(|line| line.starts_with(' ') && line.contains(". ")).count()), "{text}");
    assert!(text.lines().all(|line| line.len() <= 130));
}

#[test]
fn pause_waits_for_a_signal() {
    let mut child = program().arg("pause").spawn().unwrap();
    // It blocks its signals before it waits for them; until then SIGTERM would kill it, which the exit code below would tell.
    let call = format!("/proc/{}/syscall", child.id());
    let waiting = format!("{} ", libc::SYS_rt_sigtimedwait);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !std::fs::read_to_string(&call).unwrap().starts_with(&waiting) {
        assert!(Instant::now() < deadline, "it does not wait for signals");
        std::thread::yield_now();
    }
    signal(&child, "USR1");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn bad_arguments_show_the_usage() {
    for args in [&["frobnicate"][..], &[], &["init"], &["init", "--"], &["pause", "x"], &["hello", "x"]] {
        let out = output(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8(out.stderr).unwrap().contains("usage: rcontainerd-init"), "{args:?}");
    }
    assert!(output(&["--help"]).stdout.starts_with(b"usage"));
}
