//! A container's life through the manager's task service, our shim and the runtime.

mod support;

use std::time::Duration;

use rcontainerd_task::{AttachStream, EventItem, ProcessStatus, Stdio, TaskEventKind};
use rcontainerd_types::ErrorKind;
use support::{Host, exec_process, read_all, read_log, wait};
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn output_goes_to_the_log_and_the_exit_code_to_whoever_waits() {
    let host = Host::new().await;
    let (code, log) = host.run("a", "echo out; echo err >&2; printf 'no newline'; exit 7").await;
    assert_eq!(code, 7);
    let mut lines: Vec<&str> = log.split_inclusive('\n').collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err\n", "no newline", "out\n"]);
    assert!(!host.tasks.bundle_path(&host.key("a")).exists(), "the bundle is gone");
    assert_eq!(std::fs::read_dir(host.dir.path().join("state/s")).expect("sockets").count(), 0, "no socket is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_client_gets_everything_and_then_the_end() {
    let host = Host::new().await;
    let task = host.create("a", "seq 1 20000; echo done >&2", host.log_stdio("a"), false).await;
    let mut attach = AttachStream::connect(&host.attach_socket("a")).await.expect("attach");
    task.start(None).await.expect("start");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(frame) = attach.next().await.expect("output") {
        if frame.stderr { err.extend_from_slice(&frame.data) } else { out.extend_from_slice(&frame.data) }
    }
    let expected: String = (1..=20000).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8(out).expect("utf-8"), expected);
    assert_eq!(err, b"done\n");
    assert_eq!(wait(&task, None).await, 0);
    task.delete(None).await.expect("delete");
    assert!(AttachStream::connect(&host.attach_socket("a")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_have_their_own_streams_and_exit_codes() {
    let host = Host::new().await;
    let task = host.create("a", "sleep 100", host.log_stdio("a"), false).await;
    task.start(None).await.expect("start");
    for code in [0, 1, 42, 255] {
        let name = format!("e{code}");
        let (mut fifos, mut pipes) = host.fifos(&name, false);
        let script = format!("echo hello {code}; echo oops >&2; exit {code}");
        task.exec(exec_process(&name, &["sh", "-c", &script], fifos.stdio().clone(), false)).await.expect("exec");
        let pid = task.start(Some(&name)).await.expect("start");
        assert!(pid > 0);
        fifos.release();
        assert_eq!(read_all(pipes.stdout.as_mut().expect("stdout")).await, format!("hello {code}\n"));
        assert_eq!(read_all(pipes.stderr.as_mut().expect("stderr")).await, "oops\n");
        assert_eq!(wait(&task, Some(&name)).await, code);
        assert_eq!(task.delete(Some(&name)).await.expect("delete exec").code, code);
        assert_eq!(task.state(Some(&name)).await.expect_err("deleted").kind(), ErrorKind::NotFound);
    }
    task.kill(None, 9, false).await.expect("kill");
    assert_eq!(wait(&task, None).await, 137);
    assert_eq!(task.kill(None, 9, false).await.expect_err("ended").kind(), ErrorKind::NotFound);
    task.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_reaches_the_process_and_closing_it_is_end_of_file() {
    let host = Host::new().await;
    let (mut fifos, pipes) = host.fifos("in", true);
    let stdio = Stdio { stdin: fifos.stdio().stdin.clone(), ..host.log_stdio("a") };
    let task = host.create("a", "cat; echo end", stdio, false).await;
    task.start(None).await.expect("start");
    fifos.release();
    let mut stdin = pipes.stdin.expect("stdin");
    let text = "x".repeat(300_000);
    stdin.write_all(text.as_bytes()).await.expect("write");
    drop(stdin);
    // The manager's end is gone, which is no end of file: the shim holds one.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(task.state(None).await.expect("state").status, ProcessStatus::Running);
    task.close_stdin(None).await.expect("close");
    assert_eq!(wait(&task, None).await, 0);
    assert_eq!(read_log(&host.log("a")), format!("{text}end\n"));
    task.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_echoes_and_logs() {
    let host = Host::new().await;
    let (mut fifos, pipes) = host.fifos("in", true);
    let stdio = Stdio { stdin: fifos.stdio().stdin.clone(), stderr: String::new(), ..host.log_stdio("a") };
    let task = host.create("a", "read line; stty size; test -t 0 && test -t 1 && test -t 2 && echo got $line", stdio, true).await;
    task.start(None).await.expect("start");
    fifos.release();
    task.resize(None, 132, 43).await.expect("resize");
    let mut stdin = pipes.stdin.expect("stdin");
    stdin.write_all(b"hello\n").await.expect("write");
    assert_eq!(wait(&task, None).await, 0);
    assert_eq!(read_log(&host.log("a")), "hello\r\n43 132\r\ngot hello\r\n");
    task.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_with_a_terminal() {
    let host = Host::new().await;
    let task = host.create("a", "sleep 100", host.log_stdio("a"), false).await;
    task.start(None).await.expect("start");
    let (mut fifos, mut pipes) = host.fifos("e", true);
    let stdio = Stdio { stderr: String::new(), ..fifos.stdio().clone() };
    task.exec(exec_process("e", &["sh", "-c", "read x; test -t 1 && echo tty $x; exit 3"], stdio, true)).await.expect("exec");
    task.start(Some("e")).await.expect("start");
    fifos.release();
    pipes.stdin.as_mut().expect("stdin").write_all(b"q\n").await.expect("write");
    assert_eq!(read_all(pipes.stdout.as_mut().expect("stdout")).await, "q\r\ntty q\r\n");
    assert_eq!(wait(&task, Some("e")).await, 3);
    task.kill(None, 9, false).await.expect("kill");
    wait(&task, None).await;
    task.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_command_is_told_in_the_runtimes_words_and_leaves_nothing() {
    let host = Host::new().await;
    host.bundle("a", &["no-such-program"], false).await;
    let created = host.tasks.create(host.request("a", host.log_stdio("a"), false)).await;
    // Some runtimes look the program up in create, others in start.
    let message = match created {
        Err(err) => err.message().to_owned(),
        Ok(task) => {
            let err = task.start(None).await.expect_err("start fails");
            task.delete(None).await.expect("delete");
            err.message().to_owned()
        }
    };
    assert!(message.contains("\"no-such-program\"") && message.contains("executable file not found in $PATH"), "{message}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(&host.dir.path().display().to_string()), "a mount is left");
    host.tasks.remove_bundle(&host.key("a")).await.expect("the bundle can be removed");

    let task = host.create("b", "sleep 100", host.log_stdio("b"), false).await;
    task.start(None).await.expect("start");
    task.exec(exec_process("e", &["no-such-program"], Stdio::default(), false)).await.expect("exec");
    let err = task.start(Some("e")).await.expect_err("start fails");
    assert!(err.message().contains("executable file not found in $PATH"), "{err}");
    task.delete(Some("e")).await.expect("delete exec");
    task.kill(None, 9, false).await.expect("kill");
    wait(&task, None).await;
    task.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_the_life_in_order() {
    let host = Host::new().await;
    let mut events = host.tasks.subscribe();
    host.run("a", "exit 5").await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let item = tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("an event").expect("open");
        let EventItem::Event(event) = item else { panic!("lagged") };
        assert_eq!(event.namespace, "shimtest");
        seen.push(match event.kind {
            TaskEventKind::Create { .. } => "create".to_owned(),
            TaskEventKind::Start { .. } => "start".to_owned(),
            TaskEventKind::Exit { exec_id: None, exit, .. } => format!("exit {}", exit.code),
            TaskEventKind::Delete { exec_id: None, exit, .. } => format!("delete {}", exit.code),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["create", "start", "exit 5", "delete 5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_stops_and_resume_goes_on_and_pids_and_stats_are_told() {
    let host = Host::new().await;
    let task = host.create("a", "sleep 100 & echo ready; sleep 100", host.log_stdio("a"), false).await;
    let mut attach = AttachStream::connect(&host.attach_socket("a")).await.expect("attach");
    task.start(None).await.expect("start");
    assert_eq!(attach.next().await.expect("output").expect("a frame").data.as_ref(), b"ready\n");
    task.pause().await.expect("pause");
    assert_eq!(task.state(None).await.expect("state").status, ProcessStatus::Paused);
    assert_eq!(task.pause().await.expect_err("paused already").kind(), ErrorKind::Conflict);
    task.resume().await.expect("resume");
    assert_eq!(task.state(None).await.expect("state").status, ProcessStatus::Running);
    let pids = task.pids().await.expect("pids");
    assert!(pids.len() >= 2 && pids.iter().any(|process| process.pid == task.pid()), "{pids:?}");
    let (type_url, bytes) = task.stats().await.expect("stats");
    assert!(type_url.starts_with("io.containerd.cgroups.v") && !bytes.is_empty(), "{type_url}");
    task.kill(None, 9, false).await.expect("kill");
    wait(&task, None).await;
    task.delete(None).await.expect("delete");
}

/// The next manager asks while the pause of one that was killed is under way: "running" would be believed from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_just_changing_is_told_when_it_has_changed() {
    let host = Host::new().await;
    let path = |name: &str| host.dir.path().join(name);
    let [begun, gate, runtime] = ["begun", "gate", "slow-runtime"].map(path);
    assert!(std::process::Command::new("mkfifo").args([&begun, &gate]).status().expect("mkfifo").success());
    let wait = format!("case \" $* \" in *' pause '*) echo >{}; cat {} ;; esac", begun.display(), gate.display());
    support::executable(&runtime, &format!("#!/bin/sh\n{wait}\nexec {} \"$@\"\n", support::runtime().display()));
    host.bundle("a", &["sleep", "100"], false).await;
    let mut request = host.request("a", host.log_stdio("a"), false);
    request.runtime.binary = Some(runtime);
    let task = host.tasks.create(request).await.expect("create");
    task.start(None).await.expect("start");
    let pause = tokio::spawn({
        let task = task.clone();
        async move { task.pause().await }
    });
    tokio::task::spawn_blocking(move || std::fs::read(begun)).await.expect("join").expect("the pause is under way");
    assert_eq!(task.resume().await.expect_err("it is just being paused").kind(), ErrorKind::Conflict);
    let mut state = std::pin::pin!(task.state(None));
    // Asked later, answered before.
    tokio::select! {
        biased;
        state = &mut state => panic!("told before it was known: {state:?}"),
        pids = task.pids() => drop(pids.expect("pids")),
    }
    tokio::task::spawn_blocking(move || std::fs::write(gate, "")).await.expect("join").expect("open the gate");
    assert_eq!(state.await.expect("state").status, ProcessStatus::Paused);
    pause.await.expect("join").expect("paused");
    task.resume().await.expect("resume");
    task.kill(None, 9, false).await.expect("kill");
    support::wait(&task, None).await;
    task.delete(None).await.expect("delete");
}

/// The container ends by the signal and is deleted while the runtime that sent it has not ended yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_ended_the_container_is_answered_before_the_shim_ends() {
    let host = Host::new().await;
    let [gate, runtime] = ["gate", "slow-runtime"].map(|name| host.dir.path().join(name));
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().expect("mkfifo").success());
    let (real, wait) = (support::runtime(), format!("case \" $* \" in *' kill '*) cat {} ;; esac", gate.display()));
    support::executable(&runtime, &format!("#!/bin/sh\n{} \"$@\" || exit\n{wait}\n", real.display()));
    host.bundle("a", &["sleep", "100"], false).await;
    let mut request = host.request("a", host.log_stdio("a"), false);
    request.runtime.binary = Some(runtime);
    let task = host.tasks.create(request).await.expect("create");
    task.start(None).await.expect("start");
    let record = std::fs::read_to_string(host.tasks.bundle_path(&host.key("a")).join("manager.json")).expect("the shim's record");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    let socket = std::path::PathBuf::from(record["socket"].as_str().expect("a socket"));
    let kill = tokio::spawn({
        let task = task.clone();
        async move { task.kill(None, 9, false).await }
    });
    support::wait(&task, None).await;
    let delete = tokio::spawn({
        let task = task.clone();
        async move { task.delete(None).await }
    });
    // It goes when the shim is told to end.
    while socket.exists() {
        assert!(!delete.is_finished(), "the shim has ended without its socket");
        tokio::task::yield_now().await;
    }
    tokio::task::spawn_blocking(move || std::fs::write(gate, "")).await.expect("join").expect("open the gate");
    kill.await.expect("join").expect("it was sent");
    delete.await.expect("join").expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_to_a_file_is_appended() {
    let host = Host::new().await;
    let (out, err) = (host.dir.path().join("out"), host.dir.path().join("err"));
    std::fs::write(&out, "before\n").expect("write");
    let uri = |path: &std::path::Path| format!("file://{}", path.display());
    let stdio = Stdio { stdin: String::new(), stdout: uri(&out), stderr: uri(&err) };
    let task = host.create("a", "echo after; echo e >&2", stdio, false).await;
    task.start(None).await.expect("start");
    assert_eq!(wait(&task, None).await, 0);
    assert_eq!(std::fs::read_to_string(&out).expect("out"), "before\nafter\n");
    assert_eq!(std::fs::read_to_string(&err).expect("err"), "e\n");
    task.delete(None).await.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logging_binary_gets_both_streams_and_the_names() {
    let host = Host::new().await;
    let (program, out) = (host.dir.path().join("logger"), host.dir.path().join("logged"));
    let script = "#!/bin/sh\nexec 5>&-\ncat <&3 >\"$2.out\" &\ncat <&4 >\"$2.err\"\nwait\necho $CONTAINER_NAMESPACE $CONTAINER_ID $1 >\"$2.tmp\"\nmv \"$2.tmp\" \"$2\"\n";
    support::executable(&program, script);
    let uri = format!("binary://{}?to={}", program.display(), out.display());
    let stdio = Stdio { stdin: String::new(), stdout: uri.clone(), stderr: uri };
    let task = host.create("a", "echo one; echo two >&2", stdio, false).await;
    task.start(None).await.expect("start");
    assert_eq!(wait(&task, None).await, 0);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !out.exists() {
        assert!(std::time::Instant::now() < deadline, "the logger saw no end of file");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(std::fs::read_to_string(&out).expect("names"), "shimtest a to\n");
    assert_eq!(std::fs::read_to_string(out.with_extension("out")).expect("out"), "one\n");
    assert_eq!(std::fs::read_to_string(out.with_extension("err")).expect("err"), "two\n");
    task.delete(None).await.expect("delete");
}

/// Cgroups of the test's own, of v1 and v2 alike.
struct Cgroups(Vec<std::path::PathBuf>);

impl Cgroups {
    fn new(name: &str) -> Self {
        let hierarchies = ["memory", "pids", "unified", ""].map(|one| std::path::Path::new("/sys/fs/cgroup").join(one));
        let dirs = hierarchies.into_iter().filter(|dir| dir.join("cgroup.procs").exists()).map(|dir| dir.join(name));
        Self(dirs.inspect(|dir| std::fs::create_dir(dir).expect("make a cgroup")).collect())
    }

    fn all_have(&self, pid: u32) -> bool {
        let has = |dir: &std::path::PathBuf| {
            std::fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|all| all.lines().any(|one| one == pid.to_string()))
        };
        self.0.iter().all(has)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in &self.0 {
            // Its last process may still be on its way out.
            while std::fs::remove_dir(dir).is_err_and(|err| err.kind() == std::io::ErrorKind::ResourceBusy) && !std::thread::panicking() {
                std::thread::yield_now();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_enters_the_cgroup_that_its_options_name() {
    let host = Host::new().await;
    let name = format!("rct-shim-{}", std::process::id());
    let request = |id: &str, cgroup: &str| {
        let options = proto_containerd::runc::v1::Options { shim_cgroup: format!("/{cgroup}"), ..Default::default() };
        let mut request = host.request(id, host.log_stdio(id), false);
        request.runtime.raw =
            Some((<proto_containerd::runc::v1::Options as prost::Name>::type_url(), prost::Message::encode_to_vec(&options)));
        request
    };
    host.bundle("no", &["true"], false).await;
    let refused = host.tasks.create(request("no", &name)).await.expect_err("there is no such cgroup");
    assert!(refused.message().contains("ShimCgroup"), "{refused}");
    let cgroups = Cgroups::new(&name);
    host.bundle("a", &["sleep", "1000"], false).await;
    let task = host.tasks.create(request("a", &name)).await.expect("create");
    assert!(cgroups.all_have(support::shim_pid(&host.tasks.bundle_path(&host.key("a")))), "the shim is elsewhere");
    task.kill(None, 9, true).await.expect("kill");
    wait(&task, None).await;
    task.delete(None).await.expect("delete");
}
