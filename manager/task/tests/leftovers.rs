//! A shim that fails must not stay behind: stand-ins that listen nowhere, answer nothing, or do not even start.

mod support;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcontainerd_task::{CreateTask, RuntimeOptions, Stdio, TaskConfig, TaskKey, TaskService};
use rcontainerd_types::{Error, ErrorKind};

/// `start` leaves a process in the bundle that was given the id and waits for ever, as a serving shim would.
const SHIM: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in -id) id=$2; shift ;; start|delete) action=$1 ;; esac
    shift
done
case $action in
start)
    mkfifo hang
    sh -c 'read line <hang' shim -id "$id" </dev/null >/dev/null 2>&1 &
    echo $! >"$STATE/left"
    FINISH ;;
delete) rm -f hang; echo deleted >"$STATE/deleted" ;;
esac
"#;

struct Host {
    dir: tempfile::TempDir,
    tasks: TaskService,
    config: TaskConfig,
    key: TaskKey,
}

impl Host {
    /// `finish`: what `start` does when it has left its process.
    async fn new(finish: &str) -> Self {
        Self::with_patience(finish, Duration::from_millis(300)).await
    }

    async fn with_patience(finish: &str, timeout: Duration) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let shim = dir.path().join("shim");
        let state = dir.path().display().to_string();
        support::executable(&shim, &SHIM.replace("$STATE", &state).replace("FINISH", &finish.replace("$STATE", &state)));
        let config = TaskConfig {
            state_dir: dir.path().to_owned(),
            shim,
            runtime: PathBuf::from("/bin/false"),
            publish_binary: PathBuf::from("/bin/false"),
            timeout,
        };
        let tasks = TaskService::open(config.clone()).await.expect("service");
        Self { dir, tasks, config, key: TaskKey { namespace: "test".into(), id: "one".into() } }
    }

    async fn create(&self) -> Error {
        self.tasks.create_bundle(&self.key, b"{}").await.expect("bundle");
        let stdio = Stdio::default();
        let request = CreateTask { key: self.key.clone(), rootfs: Vec::new(), stdio, terminal: false, runtime: RuntimeOptions::default() };
        self.tasks.create(request).await.expect_err("cannot work")
    }

    /// The process that `start` left is gone, and the shim's own clean-up was called.
    async fn assert_nothing_left(&self) {
        let left = std::fs::read_to_string(self.dir.path().join("left")).expect("start ran");
        assert!(!alive(left.trim()), "the shim {} still runs", left.trim());
        assert!(self.dir.path().join("deleted").exists(), "delete was not called");
        self.tasks.remove_bundle(&self.key).await.expect("the bundle can be removed");
    }
}

fn alive(pid: &str) -> bool {
    let state = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

#[tokio::test]
async fn a_shim_that_listens_nowhere_is_ended() {
    let host = Host::new("printf unix://$STATE/nobody").await;
    let err = host.create().await;
    assert!(err.message().contains("connect to the shim"), "{err}");
    host.assert_nothing_left().await;
}

#[tokio::test]
async fn a_shim_that_answers_nothing_is_ended() {
    let host = Host::new("printf unix://$STATE/silent").await;
    let _listener = UnixListener::bind(host.dir.path().join("silent")).expect("bind");
    let err = host.create().await;
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    host.assert_nothing_left().await;
}

#[tokio::test]
async fn a_shim_whose_start_hangs_or_fails_is_ended() {
    for finish in ["read forever <hang", "echo no >&2; exit 1"] {
        let host = Host::new(finish).await;
        host.create().await;
        host.assert_nothing_left().await;
    }
}

/// The next manager finds the bundle as it was left, and the first one's `start` still at work.
#[tokio::test]
async fn a_shim_that_a_killed_manager_was_starting_is_ended_by_the_next() {
    let host = Host::with_patience("read forever <hang", Duration::from_secs(60)).await;
    let next = TaskService::open(host.config.clone()).await.expect("service");
    let left = host.dir.path().join("left");
    let begun = async {
        while !std::fs::read_to_string(&left).is_ok_and(|pid| pid.ends_with('\n')) {
            tokio::task::yield_now().await;
        }
    };
    // From then on the first one does nothing any more, as if it had been killed: it would clean up, too, and end the other's `delete`.
    let mut create = std::pin::pin!(host.create());
    tokio::select! {
        told = &mut create => panic!("its start should hang: {told}"),
        () = begun => {}
    }
    next.cleanup_dead(&host.key).await.expect("clean up");
    host.assert_nothing_left().await;
    assert_eq!(next.list().await.expect("bundles"), []);
}
