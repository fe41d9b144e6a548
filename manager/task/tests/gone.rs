//! A shim that ends between two calls, or in the middle of one: the task has ended then, and every call says so in one way.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use rcontainerd_task::{CreateTask, RuntimeOptions, Stdio, Task, TaskConfig, TaskKey, TaskService};
use rcontainerd_types::ErrorKind;
use shim_ttrpc::{Decoder, FrameType, Request, Response, encode};

/// What the stand-in does with one request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Answer,
    /// The connection breaks; the shim goes on.
    Break,
    /// The shim ends without an answer.
    End,
}

/// A task whose shim is `script`: method → what then.
struct Host {
    _dir: tempfile::TempDir,
    task: Task,
    shim: std::thread::JoinHandle<()>,
}

impl Host {
    async fn new(script: fn(&str) -> Then) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let socket = dir.path().join("sock");
        let program = dir.path().join("shim");
        support::executable(&program, &format!("#!/bin/sh\nprintf unix://{}\n", socket.display()));
        let listener = UnixListener::bind(&socket).expect("listen");
        let shim = std::thread::spawn(move || serve(&listener, script));
        let config = TaskConfig {
            state_dir: dir.path().to_owned(),
            shim: program,
            runtime: PathBuf::from("/bin/false"),
            publish_binary: PathBuf::from("/bin/false"),
            timeout: Duration::from_secs(10),
        };
        let tasks = TaskService::open(config).await.expect("service");
        let key = TaskKey { namespace: "test".into(), id: "one".into() };
        tasks.create_bundle(&key, b"{}").await.expect("bundle");
        let stdio = Stdio::default();
        let request = CreateTask { key, rootfs: Vec::new(), stdio, terminal: false, runtime: RuntimeOptions::default() };
        let task = tasks.create(request).await.expect("created");
        Self { _dir: dir, task, shim }
    }
}

fn serve(listener: &UnixListener, script: fn(&str) -> Then) {
    loop {
        let (connection, _) = listener.accept().expect("accept");
        if connection_ends_shim(connection, script) {
            return;
        }
    }
}

fn connection_ends_shim(mut connection: UnixStream, script: fn(&str) -> Then) -> bool {
    let (mut decoder, mut buffer) = (Decoder::default(), [0; 4096]);
    loop {
        let n = connection.read(&mut buffer).expect("read");
        if n == 0 {
            return false;
        }
        decoder.push(&buffer[..n]);
        while let Some(frame) = decoder.next_frame().expect("frame") {
            let request = Request::decode(frame.payload.as_slice()).expect("request");
            match script(&request.method) {
                Then::End => return true,
                Then::Break => return false,
                Then::Answer => {
                    // No fields: the default of every answer.
                    let answer = encode(frame.stream, FrameType::Response, &Response::from_result(Ok(Vec::new()))).expect("encode");
                    connection.write_all(&answer).expect("answer");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_call_that_meets_the_end_of_the_shim_says_that_the_task_has_ended() {
    let host = Host::new(|method| if method == "Kill" { Then::End } else { Then::Answer }).await;
    let task = &host.task;
    assert!(!task.is_gone().await);
    let mut told = vec![("kill", task.kill(None, 15, false).await)];
    assert!(task.is_gone().await);
    told.push(("kill", task.kill(None, 15, false).await));
    told.push(("state", task.state(None).await.map(drop)));
    told.push(("pause", task.pause().await));
    told.push(("resume", task.resume().await));
    told.push(("update", task.update(b"{}".to_vec(), Default::default()).await));
    told.push(("pids", task.pids().await.map(drop)));
    told.push(("stats", task.stats().await.map(drop)));
    told.push(("resize", task.resize(None, 80, 25).await));
    told.push(("close_stdin", task.close_stdin(None).await));
    told.push(("start", task.start(Some("x")).await.map(drop)));
    for (call, result) in told {
        let err = result.expect_err(call);
        assert_eq!(err.kind(), ErrorKind::NotFound, "{call}: {err}");
    }
    task.wait(None).await.expect("an end is an end");
    task.gone().await;
    host.shim.join().expect("the stand-in did its part");
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_end_while_the_shim_answers() {
    let host = Host::new(|method| if method == "Pause" { Then::Break } else { Then::Answer }).await;
    let err = host.task.pause().await.expect_err("nobody knows whether it was done");
    assert_eq!(err.kind(), ErrorKind::Unavailable, "{err}");
    assert!(!host.task.is_gone().await);
    host.task.resume().await.expect("on a new connection");
}
