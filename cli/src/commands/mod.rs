//! The commands, one file each, and the tree they hang in.

pub mod attach;
pub mod builder;
pub mod common;
pub mod completion;
pub mod context;
mod context_archive;
pub mod cp;
pub mod create;
pub mod df;
pub mod dial_stdio;
pub mod diff;
pub mod events;
pub mod exec;
pub mod groups;
pub mod history;
pub mod images;
pub mod info;
pub mod inspect;
pub mod kill;
pub mod load;
pub mod login;
pub mod logs;
pub mod manifest;
pub mod network;
pub mod pause;
pub mod port;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod push;
pub mod rename;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod search;
pub mod start;
pub mod stats;
pub mod stop;
pub mod tag;
pub mod top;
pub mod update;
pub mod version;
pub mod volume;
pub mod wait;

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
    entry("build", &builder::BUILD),
    entry("pull", &pull::COMMAND),
    entry("push", &push::PUSH),
    entry("images", &images::COMMAND),
    entry("login", &login::LOGIN),
    entry("logout", &login::LOGOUT),
    entry("search", &search::COMMAND),
    entry("version", &version::COMMAND),
    entry("info", &info::COMMAND),
];

static MANAGEMENT: &[Entry] = &[
    entry("builder", &groups::BUILDER),
    entry("completion", &completion::COMMAND),
    entry("compose", &builder::COMPOSE),
    entry("container", &groups::CONTAINER),
    entry("context", &context::COMMAND),
    entry("image", &groups::IMAGE),
    entry("manifest", &manifest::COMMAND),
    entry("network", &network::COMMAND),
    entry("system", &groups::SYSTEM),
    entry("volume", &volume::COMMAND),
];

static OTHERS: &[Entry] = &[
    entry("attach", &attach::COMMAND),
    entry("commit", &push::COMMIT),
    entry("cp", &cp::COMMAND),
    entry("create", &create::COMMAND),
    entry("diff", &diff::COMMAND),
    entry("events", &events::COMMAND),
    entry("export", &save::EXPORT),
    entry("history", &history::COMMAND),
    entry("import", &load::IMPORT),
    entry("inspect", &inspect::COMMAND),
    entry("kill", &kill::COMMAND),
    entry("load", &load::COMMAND),
    entry("logs", &logs::COMMAND),
    entry("pause", &pause::PAUSE),
    entry("port", &port::COMMAND),
    entry("rename", &rename::COMMAND),
    entry("restart", &stop::RESTART),
    entry("rm", &rm::COMMAND),
    entry("rmi", &rmi::COMMAND),
    entry("save", &save::SAVE),
    entry("start", &start::COMMAND),
    entry("stats", &stats::COMMAND),
    entry("stop", &stop::STOP),
    entry("tag", &tag::COMMAND),
    entry("top", &top::COMMAND),
    entry("unpause", &pause::UNPAUSE),
    entry("update", &update::COMMAND),
    entry("wait", &wait::COMMAND),
];

static SECTIONS: &[Section] = &[
    Section { title: "Common Commands", entries: COMMON },
    Section { title: "Management Commands", entries: MANAGEMENT },
    Section { title: "Commands", entries: OTHERS },
    Section { title: "", entries: HIDDEN },
];

static HIDDEN: &[Entry] = &[entry("__complete", &completion::COMPLETE)];

/// Docker has these commands, this engine has nothing for them to do.
pub const MISSING: &[&str] = &["checkpoint", "config", "node", "plugin", "secret", "service", "stack", "swarm", "trust"];

pub static ROOT: Command = Command { flags: &[GLOBAL_FLAGS], ..group("A self-sufficient runtime for containers", SECTIONS) };
