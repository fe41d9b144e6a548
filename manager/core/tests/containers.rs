//! Containers end to end through core: real shim, real runtime. Needs root and busybox-static.

mod harness;

use std::collections::BTreeMap;

use futures_util::StreamExt;
use harness::{Engine, collect, request, shell, within};
use rcontainerd_core::containers::{
    AttachContainer, KillContainer, ListContainers, LogsQuery, RemoveContainer, StartContainer, Status, StopContainer, TopContainer,
    WaitCondition, WaitContainer,
};
use rcontainerd_core::execs::{CreateExec, StartExec};
use rcontainerd_core::filters::Filters;
use rcontainerd_types::ErrorKind;

async fn logs(engine: &Engine, id: &str, follow: bool) -> String {
    let query = LogsQuery { id: id.to_owned(), stdout: true, stderr: true, follow, ..LogsQuery::default() };
    let stream = engine.core.containers.logs(query).await.expect("logs");
    let parts: Vec<_> = within(stream.collect()).await;
    parts.into_iter().map(|entry| String::from_utf8_lossy(&entry.expect("entry").data).into_owned()).collect()
}

fn filters(pairs: &[(&str, &str)]) -> Filters {
    Filters(pairs.iter().map(|&(key, value)| (key.to_owned(), vec![value.to_owned()])).collect::<BTreeMap<_, _>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn output_code_logs_and_nothing_left() {
    let engine = Engine::new().await;
    let mut command = shell("echo out; echo err >&2; exit 7");
    command.name = Some("first".into());
    let (code, stdout, stderr) = engine.run(command).await;
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (7, "out\n", "err\n"));
    assert_eq!(logs(&engine, "first", false).await, "out\nerr\n");
    let state = engine.state("first").await;
    assert_eq!((state.status, state.exit_code), (Status::Exited, 7));
    // As with dockerd, `exited` alone looks at running containers only.
    let exited = ListContainers { all: true, filters: filters(&[("exited", "7")]), ..ListContainers::default() };
    let listed = engine.core.containers.list(exited).await.expect("list");
    assert_eq!(listed.iter().map(|one| one.container.name.as_str()).collect::<Vec<_>>(), ["first"]);
    assert!(listed[0].status.starts_with("Exited (7) "), "{}", listed[0].status);
    engine.remove("first").await;
    engine.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_gives_a_container_is_seen_inside() {
    let engine = Engine::new().await;
    let script = "id -u; hostname; echo $PATH $FROM_IMAGE; cat /etc/hostname; stat -f -c %T /dev/shm; ls /proc/acpi 2>/dev/null | wc -l; cat /proc/1/comm; true";
    let mut command = shell(script);
    command.config.hostname = "box".into();
    let (code, stdout, stderr) = engine.run(command).await;
    assert_eq!((code, stdout.as_str()), (0, "0\nbox\n/bin yes\nbox\ntmpfs\n0\nsh\n"), "{stderr}");
    let mut command = shell("id");
    command.config.user = "me".into();
    let (_, stdout, _) = engine.run(command).await;
    assert!(stdout.starts_with("uid=1000(me) gid=1001"), "{stdout}");
    assert!(stdout.contains("29(audio)"), "{stdout}");
}

/// A client passes on the signal that answers what it has just been shown, while the manager may still be about the start.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_at_the_first_output_is_not_lost() {
    let engine = Engine::new().await;
    for _ in 0..20 {
        let id = engine.create(shell("trap 'exit 11' USR1; echo up; while :; do sleep 0.01; done")).await;
        let attach = AttachContainer { id: id.clone(), stream: true, stdout: true, ..AttachContainer::default() };
        let mut io = engine.core.containers.attach(attach).await.expect("attach");
        let signal = async {
            within(io.output.next()).await.expect("output").expect("output");
            engine.core.containers.kill(KillContainer { id: id.clone(), signal: Some("USR1".into()) }).await
        };
        let ((), signalled) = tokio::join!(engine.start(&id), signal);
        signalled.expect("the signal");
        assert_eq!(engine.wait(&id, WaitCondition::NotRunning).await, 11);
        engine.remove(&id).await;
    }
    engine.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_reaches_the_process_and_ends_with_the_client() {
    let engine = Engine::new().await;
    let mut command = request(&["cat"]);
    command.config.open_stdin = true;
    command.config.stdin_once = true;
    let id = engine.create(command).await;
    let attach = AttachContainer { id: id.clone(), stream: true, stdin: true, stdout: true, stderr: true, ..AttachContainer::default() };
    let mut io = engine.core.containers.attach(attach).await.expect("attach");
    engine.start(&id).await;
    let mut input = io.input.take().expect("stdin");
    within(input.write(b"hello\n")).await.expect("write");
    within(input.close()).await.expect("close");
    assert_eq!(within(collect(io)).await.0, "hello\n");
    assert_eq!(engine.wait(&id, WaitCondition::NotRunning).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_has_its_own_output_and_code() {
    let engine = Engine::new().await;
    let id = engine.create(request(&["sleep", "1000"])).await;
    engine.start(&id).await;
    let create = CreateExec {
        container: id.clone(),
        cmd: ["sh", "-c", "echo $X; id -u; exit 3"].map(str::to_owned).to_vec(),
        user: "me".into(),
        env: vec!["X=1".into()],
        attach_stdout: true,
        attach_stderr: true,
        ..CreateExec::default()
    };
    let exec = engine.core.execs.create(create).await.expect("create");
    let io = engine.core.execs.start(StartExec { id: exec.clone(), ..StartExec::default() }).await.expect("start").expect("streams");
    assert_eq!(within(collect(io)).await.0, "1\n1000\n");
    assert_eq!(engine.core.execs.inspect(&exec).await.expect("inspect").exit_code, Some(3));
    let again = engine.core.execs.start(StartExec { id: exec, ..StartExec::default() }).await;
    assert_eq!(again.expect_err("once only").kind(), ErrorKind::Conflict);
    engine.remove(&id).await;
    engine.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_is_told_in_plain_words_and_leaves_nothing() {
    let engine = Engine::new().await;
    for (program, words) in [
        ("nosuch", "nosuch"),
        ("/bin/plain", "not executable"),
        ("/bin/crlf", "CRLF"),
        ("/bin/nointerp", "/usr/bin/python3, which is not in the image"),
    ] {
        let mut command = request(&[program]);
        command.host_config.auto_remove = true;
        let id = engine.create(command).await;
        let err = engine.core.containers.start(StartContainer { id: id.clone(), console_size: None }).await.expect_err(program);
        assert!(err.message().contains(words), "{program}: {err}");
        assert!(!err.message().contains('\n'), "{err}");
    }
    engine.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_asks_then_kills_and_kill_is_137() {
    let engine = Engine::new().await;
    let id = engine.create(shell("trap 'exit 5' TERM; while true; do sleep 0.1; done")).await;
    engine.start(&id).await;
    // The trap is set once the shell runs its loop.
    let pid = engine.state(&id).await.pid;
    within(async {
        while !std::fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|text| text.lines().any(|line| line.starts_with("SigCgt") && !line.ends_with("0000000000000000")))
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stop = StopContainer { id: id.clone(), ..StopContainer::default() };
    within(engine.core.containers.stop(stop.clone())).await.expect("stop");
    assert_eq!(engine.state(&id).await.exit_code, 5);
    assert_eq!(engine.core.containers.stop(stop).await.expect_err("stopped").kind(), ErrorKind::NotModified);
    engine.start(&id).await;
    engine.core.containers.kill(KillContainer { id: id.clone(), signal: None }).await.expect("kill");
    assert_eq!(engine.wait(&id, WaitCondition::NotRunning).await, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_conflict_and_running_containers_stay() {
    let engine = Engine::new().await;
    let mut command = request(&["sleep", "1000"]);
    command.name = Some("twin".into());
    let id = engine.create(command.clone()).await;
    let err = engine.core.containers.create(command).await.expect_err("taken");
    let wanted = format!(
        "Conflict. The container name \"/twin\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    );
    assert_eq!((err.kind(), err.message()), (ErrorKind::Conflict, wanted.as_str()));
    engine.start(&id).await;
    let remove = RemoveContainer { id: "twin".into(), force: false, volumes: false };
    let err = engine.core.containers.remove(remove).await.expect_err("running");
    assert_eq!(
        err.message(),
        "cannot remove container \"/twin\": container is running: stop the container before removing or force remove"
    );
    engine.remove(&id).await;
    engine.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_begin_with_the_image_s_files_and_keep_theirs() {
    let engine = Engine::new().await;
    let mut command = shell("cat /data/seed; stat -c %a /data/seed; echo more > /data/own");
    command.host_config.binds = vec!["kept:/data".into()];
    let (code, stdout, stderr) = engine.run(command).await;
    assert_eq!((code, stdout.as_str()), (0, "seeded\n640\n"), "{stderr}");
    let mut command = shell("cat /x/own");
    command.host_config.binds = vec!["kept:/x:ro".into()];
    assert_eq!(engine.run(command).await.1, "more\n");
    let mut command = shell("touch /x/y");
    command.host_config.binds = vec!["kept:/x:ro".into()];
    assert_ne!(engine.run(command).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_outlives_the_manager_with_its_logs_and_code() {
    let engine = Engine::new().await;
    let fifo = engine.dir.path().join("go");
    std::fs::create_dir(&fifo).expect("mkdir");
    let made = std::process::Command::new("mkfifo").arg(fifo.join("fifo")).status().expect("mkfifo");
    assert!(made.success());
    let mut command = shell("echo before; cat /go/fifo; echo after; exit 9");
    command.host_config.binds = vec![format!("{}:/go", fifo.display())];
    let id = engine.create(command).await;
    engine.start(&id).await;
    let engine = engine.restart().await;
    assert_eq!(engine.state(&id).await.status, Status::Running);
    let path = fifo.join("fifo");
    tokio::task::spawn_blocking(move || std::fs::write(path, "through\n")).await.expect("join").expect("write");
    assert_eq!(engine.wait(&id, WaitCondition::NotRunning).await, 9);
    assert_eq!(logs(&engine, &id, true).await, "before\nthrough\nafter\n");
    engine.remove(&id).await;
}

/// Whatever is asked of a container while it ends: it is done, or the container is not running.
#[tokio::test(flavor = "multi_thread")]
async fn what_meets_the_end_of_a_container_never_fails_by_its_shim() {
    let engine = Engine::new().await;
    let words = |result: rcontainerd_types::Result<()>| result.err().map(|err| (err.kind(), err.message().to_owned()));
    for round in 0..12 {
        let id = engine.create(shell("trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done")).await;
        engine.start(&id).await;
        while !logs(&engine, &id, false).await.contains("up") {
            tokio::task::yield_now().await;
        }
        let containers = &engine.core.containers;
        let stop = async {
            let stopped = containers.stop(StopContainer { id: id.clone(), timeout: Some(20), signal: None }).await;
            stopped.unwrap_or_else(|err| panic!("round {round}: stop: {err}"));
        };
        let mut waiter = containers.wait(WaitContainer { id: id.clone(), condition: WaitCondition::NotRunning }).await.expect("wait");
        let others = async {
            let mut told = Vec::new();
            loop {
                let kill = KillContainer { id: id.clone(), signal: Some("WINCH".into()) };
                let top = TopContainer { id: id.clone(), ps_args: String::new() };
                let (kill, top) = tokio::join!(containers.kill(kill), containers.top(top));
                told.extend(words(kill).into_iter().chain(words(top.map(drop))));
                if futures_util::poll!(&mut waiter).is_ready() {
                    return told;
                }
            }
        };
        let ((), told) = within(async { tokio::join!(stop, others) }).await;
        for (kind, message) in told {
            assert!(kind == ErrorKind::Conflict && message.ends_with("is not running"), "round {round}: {kind:?}: {message}");
        }
        assert_eq!(engine.state(&id).await.exit_code, 3);
        engine.remove(&id).await;
    }
    engine.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_container_s_own_files_have_a_size() {
    let engine = Engine::new().await;
    let size = async |id: &str| {
        let list = ListContainers { all: true, size: true, filters: filters(&[("id", id)]), ..ListContainers::default() };
        let listed = engine.core.containers.list(list).await.expect("list");
        (listed[0].size_rw.expect("size"), listed[0].size_root_fs.expect("size"))
    };
    let mut idle = shell("true");
    idle.config.tty = true;
    let idle = engine.create(idle).await;
    let (_, image) = size(&idle).await;
    engine.start(&idle).await;
    engine.wait(&idle, WaitCondition::NotRunning).await;
    assert_eq!(size(&idle).await, (0, image), "what it was started on is not its own");
    let busy = engine.create(shell("busybox mkdir -p /a/b; busybox head -c 5000 /dev/zero >/a/b/f; busybox ln /a/b/f /a/g")).await;
    engine.start(&busy).await;
    engine.wait(&busy, WaitCondition::NotRunning).await;
    assert_eq!(size(&busy).await, (5000, image + 5000));
}

/// A mount of its own, gone with the test.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(path: std::path::PathBuf) -> Self {
        std::fs::create_dir(&path).expect("mkdir");
        let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "test"]).arg(&path).status();
        assert!(mount.expect("mount").success(), "this test needs root");
        Self(path)
    }

    fn make(&self, propagation: &str) {
        let made = std::process::Command::new("mount").arg(format!("--make-{propagation}")).arg(&self.0).status();
        assert!(made.expect("mount").success(), "{propagation}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bind_that_cannot_propagate_is_refused_at_the_start() {
    let engine = Engine::new().await;
    let mounted = Mounted::new(engine.dir.path().join("source"));
    for (propagation, given, told) in [
        ("rshared", "private", Some("a shared mount")),
        ("slave", "private", Some("a shared or slave mount")),
        ("rshared", "shared", None),
        ("rslave", "shared", None),
        ("rprivate", "private", None),
    ] {
        mounted.make(given);
        let mut command = shell("true");
        command.host_config.binds = vec![format!("{}:/x:{propagation}", mounted.0.display())];
        let id = engine.create(command).await;
        let started = engine.core.containers.start(StartContainer { id: id.clone(), console_size: None }).await;
        let place = mounted.0.display();
        let expected = told.map(|what| format!("path {place} is mounted on {place} but it is not {what}"));
        assert_eq!(started.err().map(|err| err.message().to_owned()), expected, "{propagation} of a {given} mount");
        engine.remove(&id).await;
    }
    drop(mounted);
    engine.assert_nothing_left().await;
}
