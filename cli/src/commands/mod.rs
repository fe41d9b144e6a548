//! The commands, one file each, and the tree they hang in.

pub mod attach;
pub mod common;
pub mod create;
pub mod exec;
pub mod images;
pub mod inspect;
pub mod logs;
pub mod ps;
pub mod pull;
pub mod run;
pub mod version;

use crate::cmdline::{Command, Entry, Flag, Section, entry, group, many, one, string, switch};

static GLOBAL_FLAGS: &[Flag] = &[
    string("config", "", "Directory of the client's configuration files (default \"~/.docker\")"),
    string("context", "c", "Name of the context to connect to (overrides DOCKER_HOST and the default set with \"rdocker context use\")"),
    switch("debug", "D", "Enable debug mode"),
    many("host", "H", "list", "Daemon socket to connect to"),
    one("log-level", "l", "string", "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")").default("\"info\""),
    switch("tls", "", "Use TLS; implied by --tlsverify"),
    string("tlscacert", "", "Trust only certificates signed by this CA (default \"~/.docker/ca.pem\")"),
    string("tlscert", "", "TLS certificate file (default \"~/.docker/cert.pem\")"),
    string("tlskey", "", "TLS key file (default \"~/.docker/key.pem\")"),
    switch("tlsverify", "", "Use TLS and verify the remote"),
    switch("version", "v", "Print version information and quit"),
];

static COMMON: &[Entry] = &[
    entry("run", &run::COMMAND),
    entry("exec", &exec::COMMAND),
    entry("ps", &ps::COMMAND),
    entry("pull", &pull::COMMAND),
    entry("images", &images::COMMAND),
    entry("version", &version::COMMAND),
];

static OTHERS: &[Entry] = &[
    entry("attach", &attach::COMMAND),
    entry("create", &create::COMMAND),
    entry("inspect", &inspect::COMMAND),
    entry("logs", &logs::COMMAND),
];

static SECTIONS: &[Section] = &[Section { title: "Common Commands", entries: COMMON }, Section { title: "Commands", entries: OTHERS }];

pub static ROOT: Command = Command { flags: &[GLOBAL_FLAGS], ..group("A self-sufficient runtime for containers", SECTIONS) };
