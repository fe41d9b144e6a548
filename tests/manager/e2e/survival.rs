//! The manager dies; containers do not.

use rcontainerd_tests::{Client, TestHost, each_client};

each_client!(ten_containers_outlive_kill_minus_nine, an_exit_while_the_manager_is_away_is_known_afterwards);

fn ten_containers_outlive_kill_minus_nine(client: Client) {
    let mut host = TestHost::with_busybox().with_client(client);
    let names: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
    for name in &names {
        let script = "trap 'exit 42' USR1; i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done";
        host.docker(["run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c", script]).success();
    }
    host.kill_manager();
    host.start_manager();
    let running = host.docker(["ps", "-q"]).success().stdout;
    assert_eq!(running.lines().count(), 10, "{running}");
    for name in &names {
        host.docker(["exec", name, "true"]).success();
        // Not by an exec: it would be killed with the process that it ends.
        host.docker(["kill", "-s", "USR1", name]).success();
        host.docker(["wait", name]).success().stdout("42\n");
        let log = host.docker(["logs", name]).success().stdout;
        let numbers: Vec<usize> = log.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "a gap in the log of {name}");
    }
}

fn an_exit_while_the_manager_is_away_is_known_afterwards(client: Client) {
    let mut host = TestHost::with_busybox().with_client(client);
    let fifo = host.path().join("gate");
    std::fs::create_dir(&fifo).expect("make a directory");
    let bind = format!("{}:/gate", fifo.display());
    host.docker([
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "away",
        "-v",
        &bind,
        "busybox",
        "sh",
        "-c",
        "while [ ! -e /gate/open ]; do sleep 0.02; done; echo last; exit 9",
    ])
    .success();
    host.stop_manager();
    std::fs::write(fifo.join("open"), "").expect("open the gate");
    host.start_manager();
    host.docker(["wait", "away"]).success().stdout("9\n");
    host.docker(["logs", "away"]).success().stdout("last\n");
    host.docker(["inspect", "-f", "{{.State.Status}}", "away"]).success().stdout("exited\n");
}

#[test]
fn two_hundred_runs_leave_nothing() {
    let host = TestHost::with_busybox();
    for n in 0..200 {
        host.rdocker(["run", "--rm", "--network", "none", "busybox", "true"]).success();
        assert!(n % 50 != 0 || host.leftovers().is_empty());
    }
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

/// Nothing of a container that is removed at its end waits for the disk; a crash of the manager must not lose it all the same.
#[test]
fn containers_that_are_removed_at_their_end_outlive_kill_minus_nine() {
    let mut host = TestHost::with_busybox();
    host.rdocker(["run", "-d", "--rm", "--network", "none", "--name", "running", "busybox", "sleep", "1000"]).success();
    host.rdocker(["create", "--rm", "--network", "none", "--name", "made", "busybox", "echo", "here"]).success();
    host.rdocker(["run", "--rm", "--network", "none", "--name", "gone", "busybox", "true"]).success();
    for _ in 0..2 {
        host.kill_manager();
        host.start_manager();
        let names = host.rdocker(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).success().stdout;
        let mut names: Vec<&str> = names.lines().collect();
        names.sort_unstable();
        assert_eq!(names, ["made created", "running running"]);
    }
    host.rdocker(["start", "-a", "made"]).success().stdout("here\n");
    host.rdocker(["exec", "running", "true"]).success();
    host.rdocker(["stop", "-t", "0", "running"]).success();
    // The stop is told when the process has ended; the removal follows, as in Docker.
    host.eventually("both are removed", || host.rdocker(["ps", "-aq"]).success().stdout.is_empty());
    host.eventually("nothing is left", || host.leftovers().is_empty());
}

/// Whoever froze the container for a commit is dead; no client would wake it.
#[test]
fn a_commit_that_was_cut_short_wakes_its_container() {
    let mut host = TestHost::with_busybox();
    let run = |name| host.rdocker(["run", "-d", "--network", "none", "--name", name, "busybox", "sleep", "1000"]).success().word();
    let (held, _, woken) = (run("held"), run("told"), run("woken"));
    host.rdocker(["pause", "held", "told"]).success();
    host.kill_manager();
    // The manager's own pause; and one that it had ended, but not forgotten.
    for id in [held, woken] {
        std::fs::write(host.state().join("c").join(&id[..32]).join("held"), "").expect("mark it as the manager's own pause");
    }
    host.start_manager();
    let states = |host: &TestHost| {
        let state = |name| host.rdocker(["inspect", "-f", "{{.State.Status}}", name]).success().word();
        ["held", "told", "woken"].map(state)
    };
    assert_eq!(states(&host), ["running", "paused", "running"]);
    host.rdocker(["pause", "woken"]).success();
    host.kill_manager();
    host.start_manager();
    assert_eq!(states(&host), ["running", "paused", "paused"], "a client's pause was ended");
}

/// The interface goes first; the records must follow.
#[test]
fn a_disconnect_that_was_cut_short_is_finished() {
    let mut host = TestHost::with_busybox();
    host.rdocker(["network", "create", "net"]).success();
    host.rdocker(["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).success();
    let links = |host: &TestHost| {
        let output = host.command("ip").args(["-o", "link", "show", "type", "veth"]).output().expect("run ip");
        let text = String::from_utf8(output.stdout).expect("text");
        let name = |line: &str| line.split(": ").nth(1).and_then(|name| name.split('@').next()).map(str::to_owned);
        text.lines().filter_map(name).collect::<std::collections::BTreeSet<String>>()
    };
    let before = links(&host);
    host.rdocker(["network", "connect", "net", "box"]).success();
    let link = links(&host).difference(&before).next().expect("an interface more").clone();
    host.kill_manager();
    assert!(host.command("ip").args(["link", "delete", &link]).status().expect("run ip").success());
    host.start_manager();
    let networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    host.rdocker(["inspect", "-f", networks, "box"]).success().stdout("bridge \n");
    host.rdocker(["network", "connect", "net", "box"]).success();
    host.rdocker(["inspect", "-f", networks, "box"]).success().stdout("bridge net \n");
    host.rdocker(["exec", "box", "ip", "link", "show", "eth1"]).success();
}

/// What a manager was just making when it was killed has no record yet, or no more.
#[test]
fn what_a_manager_was_making_is_removed_by_the_next() {
    for end in [TestHost::kill_manager, TestHost::stop_manager] {
        what_the_last_one_left_is_removed(end);
    }
}

fn what_the_last_one_left_is_removed(end: fn(&mut TestHost)) {
    let mut host = TestHost::with_busybox();
    end(&mut host);
    let id = "ab".repeat(32);
    for dir in [host.root().join("containers").join(&id), host.state().join("c").join(&id[..32]), host.state().join("tasks/moby").join(&id)]
    {
        std::fs::create_dir_all(dir.join("rootfs")).expect("make a directory");
    }
    let netns = host.state().join("netns").join(&id);
    std::fs::create_dir_all(netns.parent().expect("a parent")).expect("make a directory");
    std::fs::write(&netns, "").expect("make a file");
    host.start_manager();
    host.eventually("it is removed", || host.fsck(&["--quick"]).code == 0);
    assert!(!netns.exists());
}

/// Their ends are seen while the networks are taken up: what is given back first must not be taken up afterwards.
#[test]
fn what_ended_while_the_manager_was_away_gives_its_network_back() {
    let mut host = TestHost::with_busybox();
    let run = |_| host.rdocker(["run", "-d", "busybox", "sleep", "1000"]).success().word();
    let ids: Vec<String> = (0..8).map(run).collect();
    let pid = |id: &String| host.rdocker(["inspect", "-f", "{{.State.Pid}}", id]).success().word();
    let pids: Vec<String> = ids.iter().map(pid).collect();
    host.kill_manager();
    let signalled = host.command("kill").arg("-9").args(&pids).status().expect("run kill");
    assert!(signalled.success());
    host.eventually("all have ended", || pids.iter().all(|pid| !std::path::Path::new("/proc").join(pid).exists()));
    host.start_manager();
    for id in &ids {
        host.rdocker(["wait", id]).success().stdout("137\n");
    }
    host.rdocker(["rm"].into_iter().chain(ids.iter().map(String::as_str))).success();
    host.fsck(&[]).success();
}
