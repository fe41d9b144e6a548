//! What happens when someone dies or does not read: the manager, the shim, a client.

mod support;

use std::time::{Duration, Instant};

use rcontainerd_task::{AttachStream, EventItem, RuntimeOptions, Stdio, TaskEventKind};
use shim_logger::{Driver, LogUri};
use support::{Host, exec_process, memory_kib, read_all, read_log, runtime, shim_pid, wait};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_outlives_its_manager_and_the_next_one_learns_all() {
    let mut host = Host::new().await;
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do echo $n; busybox usleep 50000; done; exit 9";
    let task = host.create("a", script, host.log_stdio("a"), false).await;
    let running = host.create("b", "sleep 100", host.log_stdio("b"), false).await;
    task.start(None).await.expect("start");
    running.start(None).await.expect("start");
    let mut attached = AttachStream::connect(&host.attach_socket("a")).await.expect("attach");
    attached.next().await.expect("output");
    // All of it goes at once: connections, event socket, clients.
    drop((task, running, attached));
    host.restart_manager().await;
    let mut events = host.tasks.subscribe();
    assert_eq!(host.tasks.list().await.expect("list"), [host.key("a"), host.key("b")]);
    let task = host.tasks.reattach(&host.key("a")).await.expect("reattach").expect("its shim lives");
    let running = host.tasks.reattach(&host.key("b")).await.expect("reattach").expect("its shim lives");
    assert_eq!(wait(&task, None).await, 9);
    assert_eq!(read_log(&host.log("a")), (1..=10).map(|n| format!("{n}\n")).collect::<String>());
    loop {
        let item = tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("the exit is told").expect("open");
        if let EventItem::Event(event) = item
            && let TaskEventKind::Exit { id, exit, .. } = event.kind
        {
            assert_eq!((id.as_str(), exit.code), ("a", 9));
            break;
        }
    }
    task.delete(None).await.expect("delete");
    running.kill(None, 9, false).await.expect("kill");
    wait(&running, None).await;
    running.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_manager_that_is_away() {
    let mut host = Host::new().await;
    let task = host.create("a", "exit 3", host.log_stdio("a"), false).await;
    let socket = host.dir.path().join("state/rcontainerd.sock.ttrpc");
    std::fs::rename(&socket, socket.with_extension("away")).expect("hide the event socket");
    host.restart_manager().await;
    std::fs::remove_file(&socket).expect("nobody listens");
    task.start(None).await.expect("start");
    assert_eq!(wait(&task, None).await, 3);
    host.restart_manager().await;
    let mut events = host.tasks.subscribe();
    let mut kinds = Vec::new();
    while kinds.last() != Some(&"exit") {
        let item = tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("events come").expect("open");
        let EventItem::Event(event) = item else { panic!("lagged") };
        kinds.push(match event.kind {
            TaskEventKind::Start { .. } => "start",
            TaskEventKind::Exit { .. } => "exit",
            _ => "other",
        });
    }
    assert!(kinds.contains(&"start"), "{kinds:?}");
    task.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_is_noticed_at_once_and_nothing_of_its_container_stays() {
    let host = Host::new().await;
    let task = host.create("a", "sleep 100", host.log_stdio("a"), false).await;
    task.start(None).await.expect("start");
    let pid = shim_pid(&host.tasks.bundle_path(&host.key("a")));
    let waiting = tokio::spawn({
        let task = task.clone();
        async move { task.wait(None).await }
    });
    kill(pid);
    let status = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("resolves").expect("task").expect("wait");
    assert_eq!((status.code, status.known), (255, false));
    assert!(host.tasks.reattach(&host.key("a")).await.expect("reattach").is_none());
    host.tasks.cleanup_dead(&host.key("a")).await.expect("cleanup");
    assert!(!std::path::Path::new(&format!("/proc/{}/root/bin", task.pid())).exists(), "the container's process lives on");
    assert!(!host.tasks.bundle_path(&host.key("a")).exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(&host.dir.path().display().to_string()), "a mount is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_killed_after_its_container_ended_leaves_the_status() {
    let host = Host::new().await;
    let task = host.create("a", "exit 33", host.log_stdio("a"), false).await;
    task.start(None).await.expect("start");
    assert_eq!(wait(&task, None).await, 33);
    kill(shim_pid(&host.tasks.bundle_path(&host.key("a"))));
    assert_eq!(wait(&task, None).await, 33);
    assert_eq!(host.tasks.cleanup_dead(&host.key("a")).await.expect("cleanup").code, 33);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_passes_a_slow_client_whole_and_the_shim_stays_small() {
    let host = Host::new().await;
    let bytes: u64 = 1 << 30;
    let task = host.create("a", &format!("head -c {bytes} /dev/zero"), unlogged(&host, "a"), false).await;
    let mut attach = AttachStream::connect(&host.attach_socket("a")).await.expect("attach");
    let shim = shim_pid(&host.tasks.bundle_path(&host.key("a")));
    task.start(None).await.expect("start");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut seen = 0;
    let mut peak = 0;
    while let Some(frame) = attach.next().await.expect("output") {
        seen += frame.data.len() as u64;
        if seen % (64 << 20) < frame.data.len() as u64 {
            peak = peak.max(memory_kib(shim, "Pss_Anon:"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(seen, bytes);
    assert!(peak < 1024, "the shim's own memory grew to {peak} KiB");
    assert_eq!(wait(&task, None).await, 0);
    task.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_dropped_and_the_container_goes_on() {
    let host = Host::new().await;
    let task = host.create("a", "head -c 50000000 /dev/zero; exit 4", unlogged(&host, "a"), false).await;
    let stuck = AttachStream::connect(&host.attach_socket("a")).await.expect("attach");
    let start = Instant::now();
    task.start(None).await.expect("start");
    assert_eq!(wait(&task, None).await, 4);
    assert!(start.elapsed() > shim_logger::PATIENCE / 2, "it had no time to catch up");
    drop(stuck);
    task.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_an_exec_leaves_behind_does_not_hold_back_its_exit() {
    let host = Host::new().await;
    let task = host.create("a", "sleep 100", host.log_stdio("a"), false).await;
    task.start(None).await.expect("start");
    let (mut fifos, mut pipes) = host.fifos("e", false);
    task.exec(exec_process("e", &["sh", "-c", "echo last words; sleep 50 & exit 6"], fifos.stdio().clone(), false)).await.expect("exec");
    task.start(Some("e")).await.expect("start");
    fifos.release();
    assert_eq!(wait(&task, Some("e")).await, 6);
    task.delete(Some("e")).await.expect("delete");
    assert_eq!(read_all(pipes.stdout.as_mut().expect("stdout")).await, "last words\n");
    task.kill(None, 9, false).await.expect("kill");
    wait(&task, None).await;
    task.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_has_read_yet_survives_the_delete_of_its_exec() {
    let host = Host::new().await;
    let task = host.create("a", "sleep 100", host.log_stdio("a"), false).await;
    task.start(None).await.expect("start");
    let (mut fifos, mut pipes) = host.fifos("e", false);
    task.exec(exec_process("e", &["head", "-c", "120000", "/dev/zero"], fifos.stdio().clone(), false)).await.expect("exec");
    task.start(Some("e")).await.expect("start");
    fifos.release();
    // Twice a pipe's capacity, less a little: the process ends though nobody reads.
    assert_eq!(wait(&task, Some("e")).await, 0);
    task.delete(Some("e")).await.expect("delete");
    assert_eq!(read_all(pipes.stdout.as_mut().expect("stdout")).await.len(), 120_000);
    assert!(host.tasks.get(task.key()).is_some());
    task.kill(None, 9, false).await.expect("kill");
    wait(&task, None).await;
    task.delete(None).await.expect("delete");
    assert!(host.tasks.get(&host.key("a")).is_none(), "a deleted task is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_shim_is_driven_alike() {
    let shim = std::path::Path::new("/usr/bin/containerd-shim-runc-v2");
    if !shim.exists() {
        eprintln!("skipped: {} is not installed", shim.display());
        return;
    }
    let host = Host::new().await;
    let (mut fifos, mut pipes) = host.fifos("main", false);
    host.bundle("a", &["sh", "-c", "echo from afar; exit 12"], false).await;
    let runtime = RuntimeOptions { shim: Some(shim.into()), binary: Some("/usr/sbin/runc".into()), ..RuntimeOptions::default() };
    let mut request = host.request("a", fifos.stdio().clone(), false);
    request.runtime = runtime;
    let task = host.tasks.create(request).await.expect("create");
    task.start(None).await.expect("start");
    fifos.release();
    assert_eq!(wait(&task, None).await, 12);
    assert_eq!(read_all(pipes.stdout.as_mut().expect("stdout")).await, "from afar\n");
    task.delete(None).await.expect("delete");
    assert!(!host.tasks.bundle_path(&host.key("a")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_execs_at_once_all_end_with_their_own_codes() {
    let host = Host::new().await;
    assert!(runtime().exists());
    let task = host.create("a", "sleep 100", host.log_stdio("a"), false).await;
    task.start(None).await.expect("start");
    let runs: Vec<_> = (0..50u32)
        .map(|n| {
            let task = task.clone();
            tokio::spawn(async move {
                let name = format!("e{n}");
                let script = format!("exit {n}");
                task.exec(exec_process(&name, &["sh", "-c", &script], Stdio::default(), false)).await.expect("exec");
                task.start(Some(&name)).await.expect("start");
                assert_eq!(wait(&task, Some(&name)).await, n);
                task.delete(Some(&name)).await.expect("delete");
            })
        })
        .collect();
    for run in runs {
        run.await.expect("run");
    }
    task.kill(None, 9, false).await.expect("kill");
    wait(&task, None).await;
    task.delete(None).await.expect("delete");
}

fn unlogged(host: &Host, id: &str) -> Stdio {
    let uri = LogUri { driver: Driver::None, ..LogUri::json_file(host.log(id), Some(host.attach_socket(id))) }.to_string();
    Stdio { stdin: String::new(), stdout: uri.clone(), stderr: uri }
}

fn kill(pid: u32) {
    rrun_sys::process::kill(pid.cast_signed(), libc::SIGKILL).expect("kill");
}
