//! The manager dies; containers do not.

use rcontainerd_tests::TestHost;

#[test]
fn ten_containers_outlive_kill_minus_nine() {
    let mut host = TestHost::with_busybox();
    let names: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
    for name in &names {
        let script = "i=0; while [ ! -e /stop ]; do echo $i; i=$((i+1)); sleep 0.02; done; exit 42";
        host.rdocker(["run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c", script]).success();
    }
    host.kill_manager();
    host.start_manager();
    let running = host.rdocker(["ps", "-q"]).success().stdout;
    assert_eq!(running.lines().count(), 10, "{running}");
    for name in &names {
        host.rdocker(["exec", name, "touch", "/stop"]).success();
        host.rdocker(["wait", name]).success().stdout("42\n");
        let log = host.rdocker(["logs", name]).success().stdout;
        let numbers: Vec<usize> = log.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "a gap in the log of {name}");
    }
}

#[test]
fn an_exit_while_the_manager_is_away_is_known_afterwards() {
    let mut host = TestHost::with_busybox();
    let fifo = host.path().join("gate");
    std::fs::create_dir(&fifo).expect("make a directory");
    let bind = format!("{}:/gate", fifo.display());
    host.rdocker([
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
    host.rdocker(["wait", "away"]).success().stdout("9\n");
    host.rdocker(["logs", "away"]).success().stdout("last\n");
    host.rdocker(["inspect", "-f", "{{.State.Status}}", "away"]).success().stdout("exited\n");
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
