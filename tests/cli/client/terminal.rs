//! `run -it --rm debian bash` is a shell that behaves, and the terminal is as it was on every way out.

use rcontainerd_tests::{Client, Terminal, TestHost, debian, each_client};
use rustix::process::Signal;

each_client!(
    bash_in_a_debian_behaves,
    leaving_and_coming_back,
    several_are_attached_at_once,
    other_detach_keys,
    every_way_out_restores_the_terminal,
    a_killed_manager_gives_the_terminal_back,
    without_a_terminal_it_is_said,
    signals_reach_the_process_or_not,
    a_reader_that_goes_away_is_no_panic,
);

/// One manager for all of it: to load a real Debian takes a while.
fn bash_in_a_debian_behaves(client: Client) {
    let host = TestHost::start().with_client(client);
    let archive = debian::archive();
    host.docker(["load", "-i", archive.to_str().expect("a path")]).success();
    job_control(&host);
    the_window_s_size_follows(&host);
    colours_and_control_keys(&host);
    processes_and_file_systems(&host);
    a_second_shell_by_exec(&host);
    host.docker(["rm", "-f", "box"]).success();
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

fn busybox(client: Client) -> TestHost {
    TestHost::with_busybox().with_client(client)
}

/// `CLIENT ARGS` on a terminal; the container's shell shows `$ ` as its prompt.
fn on_terminal(host: &TestHost, args: &[&str]) -> Terminal {
    let mut command = host.command(host.client().program());
    command.args(args).env("TERM", "xterm-256color");
    Terminal::run(&command)
}

/// A job that says when it has the terminal: a key typed before that would be the shell's own. The shell gives the terminal away before it
/// starts a job or lets it go on. It has no children: dash starts them by vfork(2), and one that is stopped before its exec holds its parent
/// up so that neither of them counts as stopped.
const JOB: &str = "JOB=trap 'echo on-$((40+2))' CONT; echo on-$((40+2)); while :; do :; done";
const SHELL: [&str; 10] = ["run", "-it", "--rm", "--network", "none", "-e", "PS1=READY> ", "-e", JOB, "debian"];

/// bash as Debian has it, with a prompt that is easy to wait for.
fn shell(host: &TestHost) -> Terminal {
    let mut terminal = on_terminal(host, &[&SHELL[..], &["bash", "--norc"]].concat());
    terminal.expect("READY> ");
    terminal
}

fn job_control(host: &TestHost) {
    let mut terminal = shell(host);
    terminal.keys("sh -c \"$JOB\"\r").expect("on-42").keys("\x1a").expect("Stopped").expect("READY> ");
    terminal.keys("bg\r").expect("sh -c \"$JOB\" &").expect("on-42");
    terminal.keys("jobs\r").expect("Running").expect("READY> ");
    // Only a stopped job is told to go on, and so tells that it has the terminal again.
    terminal.keys("kill -STOP %1; until [[ $(jobs) == *Stopped* ]]; do :; done; echo st''opped\r").expect("stopped").expect("READY> ");
    terminal.keys("fg\r").expect("on-42").keys("\x03").expect("READY> ");
    // 128 + SIGINT: the job had the terminal again.
    terminal.keys("echo code $?\r").expect("code 130").expect("READY> ");
    terminal.keys("exit 7\r");
    assert_eq!(terminal.wait().code, 7);
}

/// At the prompt, and at the next one. Clients since 23.0 tell the size with the request that makes the process; 20.10 only when it runs.
fn the_size_is(host: &TestHost, terminal: &mut Terminal, size: &str) {
    if host.client().is_old() {
        terminal.keys("until [[ $(stty size) != '0 0' ]]; do :; done; echo si''zed\r").expect("sized").expect("READY> ");
    }
    terminal.keys("stty size\r").expect(size).expect("READY> ");
}

fn the_window_s_size_follows(host: &TestHost) {
    let mut terminal = shell(host);
    the_size_is(host, &mut terminal, "24 80");
    terminal.keys("trap 'echo chang''ed' WINCH; echo s''et\r").expect("set").expect("READY> ");
    // docker 28 sends both the new size and the signal itself, and nothing says which comes first.
    terminal.resize(31, 117).expect("changed");
    terminal.keys("until [[ $(stty size) == '31 117' ]]; do :; done; echo follow''ed\r").expect("followed").expect("READY> ");
    terminal.keys("exit\r");
    assert_eq!(terminal.wait().code, 0);
}

fn colours_and_control_keys(host: &TestHost) {
    let mut terminal = shell(host);
    terminal.keys("echo $TERM; tty\r").expect("xterm").expect("/dev/pts/0").expect("READY> ");
    terminal.keys("mkdir /tmp/colour; ls --color=auto /tmp\r").expect("\x1b[01;34mcolour\x1b[0m").expect("READY> ");
    terminal.keys("sh -c 'echo on-$((40+2)); exec cat'\r").expect("on-42").keys("typed\r").expect("typed\r\ntyped");
    terminal.keys("\x04").expect("READY> ");
    terminal.keys("sh -c \"$JOB\"\r").expect("on-42").keys("\x03").expect("^C").expect("READY> ");
    // End of input at the prompt ends the shell.
    terminal.keys("\x04");
    assert_eq!(terminal.wait().code, 130);
}

fn processes_and_file_systems(host: &TestHost) {
    let mut terminal = shell(host);
    terminal.keys("df -h\r").expect("Mounted on");
    for line in ["overlay", "tmpfs", "shm"] {
        terminal.expect(line);
    }
    terminal.expect("READY> ").keys("ps aux\r").expect("COMMAND").expect("root").expect("  1  ").expect("bash --norc").expect("ps aux");
    terminal.expect("READY> ").keys("exit\r");
    assert_eq!(terminal.wait().code, 0);
    let table = host.docker(["run", "--rm", "--network", "none", "debian", "df", "-h"]).success().stdout;
    let line = |mount: &str| table.lines().find(|line| line.ends_with(&format!(" {mount}"))).unwrap_or_else(|| panic!("{mount}: {table}"));
    assert!(line("/").starts_with("overlay "), "{table}");
    for (mount, name, size) in [("/dev", "tmpfs", "64M"), ("/dev/shm", "shm", "64M"), ("/proc/acpi", "tmpfs", "")] {
        // A kernel without ACPI has nothing to mask.
        if mount == "/proc/acpi" && !std::path::Path::new(mount).exists() {
            continue;
        }
        let words: Vec<&str> = line(mount).split_whitespace().collect();
        assert!(words[0] == name && words[1].contains(size), "{mount}: {table}");
    }
}

fn leaving_and_coming_back(client: Client) {
    let host = busybox(client);
    let mut terminal = on_terminal(&host, &["run", "-it", "--name", "left", "--network", "none", "busybox", "sh"]);
    terminal.expect("/ # ").keys("\x10\x11");
    assert_eq!(terminal.wait().code, 0);
    host.docker(["inspect", "-f", "{{.State.Status}}", "left"]).success().stdout("running\n");
    let mut terminal = on_terminal(&host, &["attach", "left"]);
    terminal.keys("\r").expect("/ # ").keys("echo a\x10b\r").expect("ab").keys("\x10\x11").expect("read escape sequence");
    assert_eq!(terminal.wait().code, 1);
    let mut terminal = on_terminal(&host, &["attach", "left"]);
    terminal.keys("\r").expect("/ # ").keys("exit 5\r");
    assert_eq!(terminal.wait().code, 5);
    let mut terminal = on_terminal(&host, &["start", "-ai", "left"]);
    terminal.expect("/ # ").keys("exit 6\r");
    assert_eq!(terminal.wait().code, 6);
    host.docker(["rm", "left"]).success();
}

fn several_are_attached_at_once(client: Client) {
    let host = busybox(client);
    host.docker(["run", "-itd", "--name", "shared", "--network", "none", "busybox", "sh"]).success();
    let mut terminals: Vec<Terminal> = (0..3).map(|_| on_terminal(&host, &["attach", "shared"])).collect();
    for (index, terminal) in terminals.iter_mut().enumerate() {
        // Each is attached once the answer to its own word is there.
        terminal.keys(&format!("echo from{index}-$((40+2))\r")).expect(&format!("from{index}-42"));
    }
    terminals[1].keys("echo all-$((1+1))\r");
    for terminal in &mut terminals {
        terminal.expect("all-2");
    }
    terminals[2].keys("exit 3\r");
    for terminal in terminals {
        assert_eq!(terminal.wait().code, 3);
    }
}

fn other_detach_keys(client: Client) {
    let host = busybox(client);
    host.docker(["run", "-itd", "--name", "box", "--network", "none", "busybox", "sh"]).success();
    let mut terminal = on_terminal(&host, &["attach", "--detach-keys", "ctrl-a,x", "box"]);
    terminal.keys("\r").expect("/ # ").keys("\x01x").expect("read escape sequence");
    assert_eq!(terminal.wait().code, 1);
    let mut terminal = on_terminal(&host, &["exec", "-it", "--detach-keys", "ctrl-e,e", "box", "sh"]);
    terminal.expect("/ # ").keys("\x05e");
    let ended = terminal.wait();
    assert_eq!(ended.code, 1, "{}", ended.screen);
    let ended = on_terminal(&host, &["attach", "--detach-keys", "ctrl-ä", "box"]).wait();
    // docker leaves it to the engine to refuse, and does not show what it says.
    assert!(ended.code == 1 && (client != Client::Ours || ended.screen.contains("ctrl-ä")), "{}", ended.screen);
    // The keys of the configuration file hold where no flag speaks.
    std::fs::create_dir_all(host.path().join(".docker")).expect("make a directory");
    std::fs::write(host.path().join(".docker/config.json"), r#"{"detachKeys":"ctrl-b,d"}"#).expect("write");
    let mut terminal = on_terminal(&host, &["attach", "box"]);
    terminal.keys("\r").expect("/ # ").keys("\x02d").expect("read escape sequence");
    assert_eq!(terminal.wait().code, 1);
}

fn a_second_shell_by_exec(host: &TestHost) {
    host.docker(["run", "-d", "--name", "box", "--network", "none", "-e", JOB, "debian", "sleep", "1000"]).success();
    let mut terminal = on_terminal(host, &["exec", "-it", "-e", "PS1=READY> ", "box", "bash", "--norc"]);
    terminal.expect("READY> ");
    the_size_is(host, &mut terminal, "24 80");
    terminal.keys("trap 'echo changed $(stty size)' WINCH; echo s''et\r").expect("set").expect("READY> ");
    terminal.resize(40, 100).expect("changed 40 100");
    terminal.keys("sh -c \"$JOB\"\r").expect("on-42").keys("\x1a").expect("Stopped").expect("READY> ");
    terminal.keys("fg\r").expect("on-42").keys("\x03").expect("READY> ").keys("exit 9\r");
    assert_eq!(terminal.wait().code, 9);
}

/// A signal that ends the client, and the exit status that says so.
fn every_way_out_restores_the_terminal(client: Client) {
    let host = busybox(client);
    host.docker(["run", "-itd", "--name", "box", "--network", "none", "busybox", "sh"]).success();
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        // docker's own clients leave raw mode on when a signal ends them; ours is to do better.
        if client != Client::Ours {
            continue;
        }
        for args in [&["attach", "box"][..], &["exec", "-it", "box", "sh"]] {
            let mut terminal = on_terminal(&host, args);
            terminal.keys("\r").expect("/ # ");
            assert!(terminal.is_raw());
            rustix::process::kill_process(terminal.pid(), signal).expect("signal the client");
            assert_eq!(terminal.wait().code, 128 + signal.as_raw(), "{args:?} {signal:?}");
        }
    }
    // The container is killed from elsewhere.
    let mut terminal = on_terminal(&host, &["attach", "box"]);
    terminal.keys("\r").expect("/ # ");
    host.docker(["kill", "box"]).success();
    assert_eq!(terminal.wait().code, 137);
    // It cannot be started at all.
    let terminal = on_terminal(&host, &["run", "-it", "--rm", "--network", "none", "busybox", "no-such-command"]);
    assert_eq!(terminal.wait().code, 127);
    let terminal = on_terminal(&host, &["exec", "-it", "box", "sh"]);
    assert_eq!(terminal.wait().code, 1);
}

fn a_killed_manager_gives_the_terminal_back(client: Client) {
    let mut host = busybox(client);
    for args in [&["run", "-it", "--name", "one", "--network", "none", "busybox", "sh"][..], &["exec", "-it", "one", "sh"]] {
        if args[0] == "exec" {
            host.start_manager();
        }
        let mut terminal = on_terminal(&host, args);
        terminal.expect("/ # ");
        host.kill_manager();
        let ended = terminal.wait();
        assert!(ended.code != 0, "{args:?}: {}", ended.screen);
    }
    host.start_manager();
    host.docker(["inspect", "-f", "{{.State.Status}}", "one"]).success().stdout("running\n");
}

fn without_a_terminal_it_is_said(client: Client) {
    let host = busybox(client);
    host.docker(["run", "-it", "--rm", "--network", "none", "busybox", "true"]).code(1).stderr_has("the input device is not a TTY");
    host.docker(["run", "-t", "--rm", "--network", "none", "busybox", "tty"]).success().stdout_has("/dev/pts/0");
    host.docker(["run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000"]).success();
    host.docker(["exec", "-it", "box", "true"]).code(1).stderr_has("the input device is not a TTY");
    host.docker(["exec", "-t", "box", "tty"]).success().stdout_has("/dev/pts/0");
}

fn signals_reach_the_process_or_not(client: Client) {
    let host = busybox(client);
    let script = "trap 'exit 11' USR1; echo up; while :; do sleep 0.05; done";
    let run = |options: &[&str], name: &str| {
        let args = [&["run", "--name", name, "--network", "none"][..], options, &["busybox", "sh", "-c", script]].concat();
        on_terminal(&host, &args)
    };
    let mut terminal = run(&[], "proxied");
    terminal.expect("up");
    rustix::process::kill_process(terminal.pid(), Signal::USR1).expect("signal the client");
    assert_eq!(terminal.wait().code, 11);
    let mut terminal = run(&["--sig-proxy=false"], "alone");
    terminal.expect("up");
    rustix::process::kill_process(terminal.pid(), Signal::KILL).expect("signal the client");
    assert_eq!(terminal.wait().code, 128 + Signal::KILL.as_raw());
    host.docker(["inspect", "-f", "{{.State.Status}}", "alone"]).success().stdout("running\n");
}

fn a_reader_that_goes_away_is_no_panic(client: Client) {
    let host = busybox(client);
    for n in 0..20 {
        host.docker(["create", "--network", "none", "--name", &format!("c{n}"), "busybox", "true"]).success();
    }
    host.docker(["run", "--name", "loud", "--network", "none", "busybox", "seq", "100000"]).success();
    let program = host.client().program();
    for words in ["ps -a", "ps -a --format '{{json .}}'", "inspect c1 c2 c3", "logs loud", "run --rm --network none busybox seq 100000"] {
        let line = format!("{} {words} | head -n 1 >/dev/null", program.display());
        let outcome = host.run("sh".as_ref(), ["-c", &line]).success();
        assert!(!outcome.stderr.contains("panic"), "{outcome}");
    }
}
