//! What Docker's clients do to containers beyond running them: files, images of changes, limits, health, shared namespaces, restarts.

mod harness;

use std::io::{Cursor, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use harness::{Engine, PATIENCE, request, shell, within};
use rcontainerd_core::containers::{
    CommitContainer, HealthCheck, HealthStatus, KillContainer, RestartPolicy, Status, StopContainer, UpdateContainer, WaitCondition,
    WaitContainer,
};
use rcontainerd_core::events::EventQuery;
use rcontainerd_core::execs::{CreateExec, ResizeExec, StartExec};
use rcontainerd_core::files::{ContainerPath, CopyInto};
use rcontainerd_core::images::{ImportImage, PruneImages};
use rcontainerd_types::ErrorKind;

/// A writer that is read when it is done.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn path(container: &str, path: &str) -> ContainerPath {
    ContainerPath { container: container.to_owned(), path: path.to_owned() }
}

fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_bytes()).expect("entry");
    }
    archive.into_inner().expect("archive")
}

/// Path → content of every member.
fn members(tar: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(tar);
    let read = |mut entry: tar::Entry<'_, &[u8]>| {
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        (entry.path().expect("path").display().to_string(), String::from_utf8_lossy(&content).into_owned())
    };
    archive.entries().expect("entries").map(|entry| read(entry.expect("entry"))).collect()
}

impl Copy<'_> {
    async fn out(&self, from: &str) -> Vec<(String, String)> {
        let out = Shared::default();
        let (_, task) = self.0.core.files.archive(path(self.1, from), out.clone()).await.expect("archive");
        within(task).await.expect("joined").expect("archived");
        let bytes = out.0.lock().expect("lock").clone();
        members(&bytes)
    }

    async fn place(&self, to: &str, entries: &[(&str, &str)]) -> rcontainerd_types::Result<()> {
        let command = CopyInto { container: self.1.to_owned(), path: to.to_owned(), ..CopyInto::default() };
        self.0.core.files.copy_into(command, Cursor::new(tar_of(entries))).await
    }
}

struct Copy<'a>(&'a Engine, &'a str);

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_whether_it_runs_or_not_and_volumes_are_seen() {
    let engine = Engine::new().await;
    let mut request = request(&["sleep", "1000"]);
    request.host_config.binds = vec!["vol:/data".into(), "frozen:/frozen:ro".into()];
    let id = engine.create(request).await;
    let copy = Copy(&engine, &id);
    copy.place("/data", &[("early", "before the start")]).await.expect("into a stopped container's volume");
    copy.place("/etc", &[("own", "x")]).await.expect("into a stopped container");
    engine.start(&id).await;
    copy.place("/data/", &[("late", "while it runs")]).await.expect("into a running container's volume");
    let seen = copy.out("/data").await;
    assert!(seen.contains(&("data/early".into(), "before the start".into())), "{seen:?}");
    assert!(seen.contains(&("data/late".into(), "while it runs".into())), "{seen:?}");
    assert!(seen.contains(&("data/seed".into(), "seeded\n".into())), "{seen:?}");
    assert_eq!(copy.out("/etc/own").await, [("own".to_owned(), "x".to_owned())]);
    let refused = copy.place("/frozen", &[("x", "x")]).await.expect_err("read-only");
    assert_eq!((refused.kind(), refused.message()), (ErrorKind::PermissionDenied, "mounted volume is marked read-only"));
    let missing = engine.core.files.stat(path(&id, "/nope")).await.expect_err("missing");
    assert_eq!(missing.message(), format!("Could not find the file /nope in container {id}"));
    let file = copy.place("/etc/passwd", &[("x", "x")]).await.expect_err("a file");
    assert_eq!(file.message(), "extraction point is not a directory");
    let stat = engine.core.files.stat(path(&id, "/bin/sh")).await.expect("a link");
    assert_eq!((stat.name.as_str(), stat.link_target.as_str()), ("sh", "/bin/busybox"));
    engine.remove(&id).await;
    engine.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_swaps_links_cannot_lead_a_copy_to_the_host() {
    let engine = Engine::new().await;
    let canary = engine.dir.path().join("canary");
    std::fs::create_dir(&canary).expect("mkdir");
    let script = format!(
        "mkdir -p /t/d {0} && ln -s {0} /t/l && while true; do mv /t/d /t/x; mv /t/l /t/d; mv /t/d /t/l; mv /t/x /t/d; done",
        canary.display()
    );
    let id =
        engine.create(shell(&script.replace("mv ", "busybox mv ").replace("mkdir", "busybox mkdir").replace("ln ", "busybox ln "))).await;
    engine.start(&id).await;
    let copy = Copy(&engine, &id);
    for _ in 0..100 {
        // A lost race may be an error; it must not be an escape.
        drop(copy.place("/t/d", &[("file", "x")]).await);
        drop(engine.core.files.stat(path(&id, "/t/d/file")).await);
        assert_eq!(std::fs::read_dir(&canary).expect("list").count(), 0, "the host's directory was written to");
    }
    engine.remove(&id).await;
    engine.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_and_become_an_image_that_runs() {
    let engine = Engine::new().await;
    let id = engine.create(shell("echo new > /etc/new; busybox rm /data/seed; exec sleep 1000")).await;
    engine.start(&id).await;
    within(async {
        while engine.core.files.stat(path(&id, "/data/seed")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let changes = engine.core.files.changes(&id).await.expect("changes");
    let told: Vec<String> = changes.iter().map(|change| format!("{:?} {}", change.kind, String::from_utf8_lossy(&change.path))).collect();
    assert_eq!(told, ["Modified data", "Deleted data/seed", "Modified etc", "Added etc/new"]);
    let command = CommitContainer {
        id: id.clone(),
        reference: Some("changed:1".parse().expect("reference")),
        comment: "why".into(),
        pause: true,
        changes: vec!["CMD [\"cat\", \"/etc/new\"]".into()],
        ..CommitContainer::default()
    };
    let image = engine.core.containers.commit(command).await.expect("commit");
    assert_eq!(engine.state(&id).await.status, Status::Running, "it goes on after the commit");
    let history = engine.core.images.history("changed:1", None).await.expect("history");
    assert_eq!((history[0].comment.as_str(), history.len()), ("why", 2));
    let mut again = request(&[]);
    (again.config.image, again.config.cmd) = ("changed:1".into(), None);
    assert_eq!(engine.run(again.clone()).await.1, "new\n");
    again.config.cmd = Some(["ls", "/data"].map(str::to_owned).to_vec());
    assert_eq!(engine.run(again).await.1, "", "what was deleted is gone");
    for container in
        engine.core.containers.list(rcontainerd_core::containers::ListContainers { all: true, ..Default::default() }).await.expect("list")
    {
        engine.remove(&container.container.id).await;
    }
    let all = PruneImages { dangling_only: false, ..PruneImages::default() };
    let pruned = engine.core.images.prune(all, |_| Ok(Vec::new())).await.expect("prune");
    assert!(
        pruned.removed.iter().any(|removed| *removed == rcontainerd_core::images::Removed::Deleted(image.clone()))
            && pruned.space_reclaimed > 0
    );
    engine.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_imports_as_an_image() {
    let engine = Engine::new().await;
    let id = engine.create(shell("echo mark > /mark")).await;
    engine.start(&id).await;
    engine.wait(&id, WaitCondition::NotRunning).await;
    let out = Shared::default();
    engine.core.files.export(&id, out.clone()).await.expect("export");
    let tar = out.0.lock().expect("lock").clone();
    assert!(members(&tar).contains(&("mark".into(), "mark\n".into())));
    let command = ImportImage {
        reference: Some("imported".parse::<rcontainerd_types::Reference>().expect("reference").or_latest()),
        changes: vec!["ENTRYPOINT [\"/bin/cat\"]".into()],
        ..ImportImage::default()
    };
    engine.core.images.import(command, Cursor::new(tar)).await.expect("import");
    let mut run = request(&["/mark"]);
    run.config.image = "imported".into();
    assert_eq!(engine.run(run).await.1, "mark\n");
    let lies = engine.core.images.import(ImportImage::default(), Cursor::new(b"no tar at all".to_vec())).await;
    assert_eq!(lies.expect_err("no tar").kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_policy_change_while_it_runs() {
    let engine = Engine::new().await;
    let id = engine.create(request(&["sleep", "1000"])).await;
    engine.start(&id).await;
    let mut command = UpdateContainer { id: id.clone(), ..UpdateContainer::default() };
    command.resources.pids_limit = Some(77);
    command.restart_policy = Some(RestartPolicy { name: "always".into(), maximum_retry_count: 0 });
    engine.core.containers.update(command).await.expect("update");
    assert_eq!(engine.core.containers.stats(&id).await.expect("stats").pids_limit, 77);
    let mut bad = UpdateContainer { id: id.clone(), ..UpdateContainer::default() };
    bad.resources.memory = 1;
    let told = engine.core.containers.update(bad).await.expect_err("too little");
    assert!(told.message().ends_with("Minimum memory limit allowed is 6MB"), "{told}");
    engine.remove(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_that_cannot_be_refused_is_done_when_it_returns() {
    let engine = Engine::new().await;
    let id = engine.create(request(&["sleep", "1000"])).await;
    engine.start(&id).await;
    engine.core.containers.kill(KillContainer { id: id.clone(), signal: None }).await.expect("kill");
    let state = engine.state(&id).await;
    assert_eq!((state.status, state.exit_code), (Status::Exited, 137));
    engine.remove(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_meanwhile_is_committed_all_the_same() {
    let engine = Engine::new().await;
    for _ in 0..5 {
        let id = engine.create(request(&["true"])).await;
        engine.start(&id).await;
        let command = CommitContainer { id: id.clone(), pause: true, ..CommitContainer::default() };
        let image = engine.core.containers.commit(command).await.expect("commit");
        let base = engine.core.images.inspect("busybox").await.expect("base").id;
        assert_eq!(engine.core.images.inspect(&image.to_string()).await.expect("image").parent, Some(base));
        engine.remove(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_container_takes_a_signal_by_running_on() {
    let engine = Engine::new().await;
    let id = engine.create(shell("trap 'exit 7' USR1; while :; do sleep 0.1; done")).await;
    engine.start(&id).await;
    engine.core.containers.pause(&id).await.expect("pause");
    engine.core.containers.kill(KillContainer { id: id.clone(), signal: Some("WINCH".into()) }).await.expect("kill");
    assert_eq!(engine.state(&id).await.status, Status::Running);
    engine.remove(&id).await;
}

/// The second signal meets the end that the first one brings.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_meets_the_end_is_done() {
    let engine = Engine::new().await;
    for _ in 0..10 {
        let id = engine.create(shell("trap 'exit 0' TERM; while :; do sleep 0.1; done")).await;
        engine.start(&id).await;
        engine.core.containers.stop(StopContainer { id: id.clone(), timeout: Some(0), signal: None }).await.expect("stop");
        assert_eq!(engine.state(&id).await.status, Status::Exited);
        engine.remove(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_each_signal() {
    let engine = Engine::new().await;
    let id = engine.create(shell("trap '' TERM; while :; do sleep 0.1; done")).await;
    engine.start(&id).await;
    engine.core.containers.stop(StopContainer { id: id.clone(), timeout: Some(1), signal: None }).await.expect("stop");
    let (since, until) = (Some(jiff::Timestamp::UNIX_EPOCH), Some(jiff::Timestamp::now()));
    let query = EventQuery { since, until, ..EventQuery::default() };
    let events: Vec<_> = within(engine.core.events.subscribe(query).await.expect("subscribe").collect()).await;
    let events: Vec<_> = events.into_iter().map(|event| event.expect("event")).filter(|event| event.actor == id).collect();
    let signals: Vec<&str> =
        events.iter().filter(|event| event.action == "kill").map(|event| event.attributes["signal"].as_str()).collect();
    assert_eq!(signals, ["15", "9"]);
    let backwards = EventQuery { since: until, until: since, ..EventQuery::default() };
    assert!(engine.core.events.subscribe(backwards).await.is_err());
    engine.remove(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_that_cannot_start_leaves_a_code() {
    let engine = Engine::new().await;
    let id = engine.create(request(&["sleep", "1000"])).await;
    engine.start(&id).await;
    for (cmd, user, code) in [("nosuchprogram", "", 127), ("/etc/passwd", "", 126), ("true", "nobody1", 126)] {
        let command = CreateExec { container: id.clone(), cmd: vec![cmd.into()], user: user.into(), ..CreateExec::default() };
        let exec = engine.core.execs.create(command).await.expect("create");
        engine.core.execs.start(StartExec { id: exec.clone(), detach: true, console_size: None }).await.expect_err("cannot start");
        let seen = engine.core.execs.inspect(&exec).await.expect("inspect");
        assert_eq!((seen.exit_code, seen.start_failed), (Some(code), true), "{cmd} {user}");
    }
    engine.remove(&id).await;
}

/// Clients ask for both at once, on two connections; docker 20.10 repeats the size for 150 ms only.
#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_is_told_before_the_exec_has_started_holds() {
    let engine = Engine::new().await;
    let id = engine.create(request(&["sleep", "1000"])).await;
    engine.start(&id).await;
    let script = "until [ \"$(busybox stty size)\" = '31 117' ]; do :; done";
    let command = CreateExec {
        container: id.clone(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        tty: true,
        attach_stdin: true,
        attach_stdout: true,
        ..CreateExec::default()
    };
    let exec = engine.core.execs.create(command).await.expect("create");
    let resize = engine.core.execs.resize(ResizeExec { id: exec.clone(), rows: 31, columns: 117 });
    let start = engine.core.execs.start(StartExec { id: exec.clone(), ..StartExec::default() });
    let (resized, started) = within(async { tokio::join!(resize, start) }).await;
    resized.expect("resize");
    within(harness::collect(started.expect("start").expect("streams"))).await;
    assert_eq!(engine.core.execs.inspect(&exec).await.expect("inspect").exit_code, Some(0));
    engine.remove(&id).await;
}

/// Waits for a health status; gives the events that told of it.
async fn until_healthy(engine: &Engine, id: &str, wanted: HealthStatus) {
    within(async {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        while engine.state(id).await.health.is_none_or(|health| health.status != wanted) {
            every.tick().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_probe_and_survives_the_manager() {
    let engine = Engine::new().await;
    let mut request = shell("touch /ok; exec sleep 1000");
    request.config.healthcheck = Some(HealthCheck {
        test: vec!["CMD-SHELL".into(), "echo looked; busybox test -e /ok".into()],
        interval: 50_000_000,
        timeout: 20_000_000_000,
        retries: 2,
        ..HealthCheck::default()
    });
    let id = engine.create(request).await;
    let mut events = engine.core.events.subscribe(EventQuery::default()).await.expect("events");
    engine.start(&id).await;
    until_healthy(&engine, &id, HealthStatus::Healthy).await;
    assert_eq!(engine.state(&id).await.health.expect("health").log[0].output, "looked\n");
    let told = within(async {
        loop {
            let event = events.next().await.expect("an event").expect("event");
            if event.action.starts_with("health_status") {
                return event.action;
            }
        }
    })
    .await;
    assert_eq!(told, "health_status: healthy");
    let engine = engine.restart().await;
    assert_eq!(engine.state(&id).await.health.expect("health").status, HealthStatus::Healthy, "right after the restart");
    let exec = CreateExec { container: id.clone(), cmd: ["busybox", "rm", "/ok"].map(str::to_owned).to_vec(), ..CreateExec::default() };
    let exec = engine.core.execs.create(exec).await.expect("exec");
    engine.core.execs.start(StartExec { id: exec, detach: true, console_size: None }).await.expect("start");
    until_healthy(&engine, &id, HealthStatus::Unhealthy).await;
    engine.remove(&id).await;
    engine.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_and_volumes_of_another_container() {
    let engine = Engine::new().await;
    let mut donor = shell("hostname > /data/name; echo shared > /dev/shm/x; exec sleep 1000");
    donor.name = Some("donor".into());
    donor.host_config.ipc_mode = "shareable".into();
    donor.host_config.binds = vec!["shared:/data".into()];
    let id = engine.create(donor).await;
    let mut guest = shell("cat /dev/shm/x; busybox ps | busybox grep -c 'sleep 1000'; cat /data/name; touch /data/x || echo read-only");
    guest.host_config.network_mode = "container:donor".into();
    guest.host_config.pid_mode = "container:donor".into();
    guest.host_config.ipc_mode = "container:donor".into();
    guest.host_config.volumes_from = vec!["donor:ro".into()];
    let early = engine.create(guest.clone()).await;
    let refused =
        engine.core.containers.start(rcontainerd_core::containers::StartContainer { id: early.clone(), console_size: None }).await;
    assert_eq!(refused.expect_err("the donor does not run").message(), format!("cannot join network of a non running container: {id}"));
    engine.start(&id).await;
    within(async {
        while engine.core.files.stat(path(&id, "/data/name")).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (code, out, err) = engine.run(guest).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines.first(), lines.last()), (Some(&"shared"), Some(&"read-only")), "{code} {out} {err}");
    assert!(lines[1].parse::<u32>().is_ok_and(|count| count >= 1), "{out}");
    assert_eq!(lines[2], &id[..12]);
    for container in
        engine.core.containers.list(rcontainerd_core::containers::ListContainers { all: true, ..Default::default() }).await.expect("list")
    {
        engine.remove(&container.container.id).await;
    }
    engine.assert_nothing_left().await;
}

/// A task that is not Docker's, as containerd's clients make them.
async fn foreign_task(engine: &Engine) -> rcontainerd_task::TaskKey {
    let bin = engine.dir.path().join("rootfs/bin");
    std::fs::create_dir_all(&bin).expect("directory");
    std::fs::copy("/bin/busybox", bin.join("sh")).expect("busybox-static is installed");
    let namespaces = ["pid", "mount", "ipc", "uts", "network"].map(|kind| serde_json::json!({"type": kind}));
    let config = serde_json::json!({
        "ociVersion": "1.2.0",
        "process": {"args": ["sh", "-c", "trap 'exit 9' TERM; while :; do :; done"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": engine.dir.path().join("rootfs")},
        "linux": {
            "cgroupsPath": format!("/{}/foreign", harness::cgroup_of(engine.dir.path())),
            "namespaces": namespaces,
        },
    });
    let key = rcontainerd_task::TaskKey { namespace: "other".into(), id: "foreign".into() };
    let tasks = &engine.core.tasks;
    tasks.create_bundle(&key, config.to_string().as_bytes()).await.expect("bundle");
    let request = rcontainerd_task::CreateTask {
        key: key.clone(),
        rootfs: Vec::new(),
        stdio: rcontainerd_task::Stdio::default(),
        terminal: false,
        runtime: rcontainerd_task::RuntimeOptions::default(),
    };
    tasks.create(request).await.expect("create").start(None).await.expect("start");
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_host_everything_ends_and_policies_wait_for_the_next_start() {
    let engine = Engine::new().await;
    let stubborn = |policy: &str| {
        let mut request = shell("trap '' TERM; echo up; while :; do sleep 0.01; done");
        request.config.stop_timeout = Some(1);
        request.host_config.restart_policy = RestartPolicy { name: policy.into(), maximum_retry_count: 0 };
        request
    };
    let once = engine.create(stubborn("no")).await;
    let always = engine.create(stubborn("always")).await;
    let manual = engine.create(stubborn("unless-stopped")).await;
    for id in [&once, &always, &manual] {
        engine.start(id).await;
    }
    engine
        .core
        .containers
        .stop(rcontainerd_core::containers::StopContainer { id: manual.clone(), ..Default::default() })
        .await
        .expect("stop");
    let foreign = foreign_task(&engine).await;
    let begun = std::time::Instant::now();
    engine.core.end_with_host().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "all at once, each in its own time: {:?}", begun.elapsed());
    for id in [&once, &always] {
        let state = engine.state(id).await;
        assert_eq!((state.status, state.exit_code), (Status::Exited, 137), "{id}");
    }
    assert!(engine.core.tasks.get(&foreign).is_none(), "its shim is gone too");
    let left = std::fs::read_dir(engine.dir.path().join("s/s")).expect("the shims' sockets").count();
    assert_eq!(left, 0, "no shim is left");
    let engine = engine.restart().await;
    within(async {
        while engine.state(&always).await.status != Status::Running {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(engine.state(&once).await.status, Status::Exited);
    assert_eq!(engine.state(&manual).await.status, Status::Exited);
    for id in [&once, &always, &manual] {
        engine.remove(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_back_off_end_at_their_count_and_outlive_the_manager() {
    let engine = Engine::new().await;
    let mut failing = shell("exit 3");
    failing.host_config.restart_policy = RestartPolicy { name: "on-failure".into(), maximum_retry_count: 2 };
    let id = engine.create(failing).await;
    let begun = std::time::Instant::now();
    engine.start(&id).await;
    assert_eq!(engine.wait(&id, WaitCondition::NotRunning).await, 3, "a wait ends with the first run");
    within(async {
        while engine.state(&id).await.status != Status::Exited {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let state = engine.state(&id).await;
    assert_eq!((state.restart_count, state.exit_code, state.run), (2, 3, 3));
    assert!(begun.elapsed() >= Duration::from_millis(300), "100 ms, then 200 ms");
    let mut lasting = request(&["sleep", "1000"]);
    lasting.host_config.restart_policy = RestartPolicy { name: "unless-stopped".into(), maximum_retry_count: 0 };
    let lasting = engine.create(lasting).await;
    let mut stopped = request(&["sleep", "1000"]);
    stopped.host_config.restart_policy = RestartPolicy { name: "unless-stopped".into(), maximum_retry_count: 0 };
    let stopped = engine.create(stopped).await;
    for id in [&lasting, &stopped] {
        engine.start(id).await;
    }
    engine.core.containers.stop(StopContainer { id: stopped.clone(), timeout: Some(0), signal: None }).await.expect("stop");
    let pid = engine.state(&lasting).await.pid;
    let engine = engine.restart().await;
    assert_eq!(engine.state(&lasting).await.pid, pid, "it did not notice");
    assert_eq!(engine.state(&stopped).await.status, Status::Exited, "a client had stopped it");
    assert_eq!(engine.state(&id).await.run, 3, "its retries are used up");
    // The process is killed behind the manager's back: the policy brings it back.
    let waiter =
        engine.core.containers.wait(WaitContainer { id: lasting.clone(), condition: WaitCondition::NextExit }).await.expect("wait");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    assert_eq!(tokio::time::timeout(PATIENCE, waiter).await.expect("in time").expect("waited").exit_code, 137);
    within(async {
        while engine.state(&lasting).await.status != Status::Running {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for id in [&id, &lasting, &stopped] {
        engine.remove(id).await;
    }
    engine.assert_nothing_left().await;
}
