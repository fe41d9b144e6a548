//! Help pages and flags, side by side with docker's newest.

use std::collections::BTreeSet;

use rcontainerd_tests::{Client, TestHost};

/// Commands that both have, `build` and what only swarms have left out.
const COMMANDS: &[&str] = &[
    "attach",
    "commit",
    "cp",
    "create",
    "diff",
    "events",
    "exec",
    "export",
    "history",
    "images",
    "import",
    "info",
    "inspect",
    "kill",
    "load",
    "login",
    "logout",
    "logs",
    "pause",
    "port",
    "ps",
    "pull",
    "push",
    "rename",
    "restart",
    "rm",
    "rmi",
    "run",
    "save",
    "search",
    "start",
    "stats",
    "stop",
    "tag",
    "top",
    "unpause",
    "update",
    "version",
    "wait",
    "container ls",
    "container prune",
    "container inspect",
    "image ls",
    "image inspect",
    "image prune",
    "network connect",
    "network create",
    "network disconnect",
    "network inspect",
    "network ls",
    "network prune",
    "network rm",
    "volume create",
    "volume inspect",
    "volume ls",
    "volume prune",
    "volume rm",
    "system df",
    "system events",
    "system info",
    "system prune",
    "context create",
    "context export",
    "context import",
    "context inspect",
    "context ls",
    "context rm",
    "context show",
    "context update",
    "context use",
    "builder prune",
];

/// The flags of a help page, and its usage line.
fn page(host: &TestHost, client: Client, command: &str) -> (BTreeSet<String>, String) {
    let words = command.split(' ').chain(["--help"]);
    let text = host.run(&client.program(), words).success().stdout.replace("rdocker", "docker");
    let usage = text.lines().find(|line| line.starts_with("Usage:")).unwrap_or_default().to_owned();
    let flags = text.lines().filter_map(|line| line.trim_start().split("--").nth(1).filter(|_| line.trim_start().starts_with('-')));
    (flags.filter_map(|flag| flag.split(' ').next()).map(str::to_owned).collect(), usage)
}

#[test]
fn each_flag_of_docker_s_is_known_or_refused_by_name() {
    let host = TestHost::start();
    for command in COMMANDS {
        let (theirs, their_usage) = page(&host, Client::Docker28, command);
        let (ours, usage) = page(&host, Client::Ours, command);
        assert!(
            !usage.is_empty() && (usage == their_usage || *command == "builder prune"),
            "{command}: {usage:?}, docker: {their_usage:?}"
        );
        for flag in theirs.difference(&ours).filter(|flag| *flag != "help") {
            let words = format!("{command} --{flag} 1 x y");
            host.rdocker(words.split(' ')).code(125).stderr_has(&format!("--{flag}: this engine cannot do what it asks for"));
        }
    }
}

/// A word after the first argument that looks like a flag and is none: `run`, `exec`, `tag`… take it as an argument, `rm` and most
/// others do not.
#[test]
fn options_end_where_docker_s_end() {
    let host = TestHost::start();
    for command in COMMANDS {
        for words in [
            vec!["nosuch", "-9"],
            vec!["-9", "nosuch"],
            vec!["nosuch", "--no-such-flag", "x"],
            vec!["nosuch", "--", "-9"],
            vec!["--help=x"],
            vec!["--format"],
        ] {
            let words: Vec<&str> = command.split(' ').chain(words).collect();
            let told = |client: Client| {
                let outcome = host.run(&client.program(), words.iter().copied());
                (outcome.code, outcome.stderr)
            };
            let (ours, theirs) = (told(Client::Ours), told(Client::Docker28));
            let flag = |(_, text): &(i32, String)| ["unknown shorthand flag", "unknown flag"].iter().any(|words| text.contains(words));
            assert_eq!((ours.0, flag(&ours)), (theirs.0, flag(&theirs)), "{words:?}: {ours:?}, docker: {theirs:?}");
        }
    }
}
