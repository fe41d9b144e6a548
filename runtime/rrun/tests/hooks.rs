//! Hooks of the real binary that say much, read little, or leave somebody behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::time::{Duration, Instant};

use serde_json::json;

mod support;
use support::{Host, text};

fn hook(script: &str, timeout: u32) -> serde_json::Value {
    json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": timeout}]})
}

#[test]
fn a_hook_may_say_more_than_a_pipe_holds() {
    let host = Host::new("hookout");
    let output = host.run(&["true"], |c| c["hooks"] = hook("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2", 20));
    assert!(output.status.success(), "{}", text(&output));
    let output = host.run(&["true"], |c| c["hooks"] = hook("echo first; head -c 300000 /dev/zero; exit 3", 20));
    assert!(text(&output).contains("exit status: 3, stdout: first"), "{}", text(&output));
    host.assert_clean();
}

#[test]
fn a_hook_that_does_not_read_a_large_state_ends_in_its_time() {
    let host = Host::new("hookin");
    let large = json!({"large": "v".repeat(300_000)});
    let began = Instant::now();
    let output = host.run(&["true"], |c| {
        c["annotations"] = large.clone();
        c["hooks"] = hook("exec sleep 60", 1);
    });
    assert!(text(&output).contains("timed out after 1 s"), "{}", text(&output));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let output = host.run(&["true"], |c| {
        c["annotations"] = large;
        c["hooks"] = hook("wc -c >&2; exit 4", 20);
    });
    let said = text(&output);
    let read: usize = said.split("stderr: ").nth(1).and_then(|s| s.split('"').next()?.trim().parse().ok()).unwrap_or_default();
    assert!(read > 300_000, "the whole state arrives: {said}");
    host.assert_clean();
}

#[test]
fn a_hook_that_fails_is_told_at_once_whoever_keeps_its_pipes() {
    let host = Host::new("hookchild");
    let began = Instant::now();
    let output = host.run(&["true"], |c| c["hooks"] = hook("sleep 30 & echo why >&2; exit 5", 60));
    assert!(text(&output).contains("exit status: 5, stdout: , stderr: why"), "{}", text(&output));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_start_hook_that_does_not_read_is_not_the_end_of_its_container() {
    let host = Host::new("hookpipe");
    let output = host.run(&["sh", "-c", "echo runs"], |c| {
        // Without a pid namespace a SIGPIPE would end the first process.
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
        c["annotations"] = json!({"large": "v".repeat(300_000)});
        c["hooks"] = json!({"startContainer": [{"path": "/bin/true"}]});
    });
    assert_eq!(text(&output), "runs\n");
}
