//! The management groups: `container`, `image`, `system`, `builder`.

use super::common::json_format_flag;
use super::inspect::{self, Kind};
use super::{
    attach, builder, cp, create, df, dial_stdio, diff, events, exec, history, images, info, kill, load, logs, pause, port, prune, ps, pull,
    push, rename, rm, rmi, run, save, start, stats, stop, tag, top, update, wait,
};
use crate::cmdline::{Args, Command, Entry, Flag, Section, entry, group, leaf, string, switch};

static CONTAINER_ENTRIES: &[Entry] = &[
    entry("attach", &attach::COMMAND),
    entry("commit", &push::COMMIT),
    entry("cp", &cp::COMMAND),
    entry("create", &create::COMMAND),
    entry("diff", &diff::COMMAND),
    entry("exec", &exec::COMMAND),
    entry("export", &save::EXPORT),
    entry("inspect", &CONTAINER_INSPECT),
    entry("kill", &kill::COMMAND),
    entry("logs", &logs::COMMAND),
    Entry { name: "ls", aliases: &["list", "ps"], command: &ps::COMMAND },
    entry("pause", &pause::PAUSE),
    entry("port", &port::COMMAND),
    entry("prune", &prune::CONTAINER),
    entry("rename", &rename::COMMAND),
    entry("restart", &stop::RESTART),
    Entry { name: "rm", aliases: &["remove"], command: &rm::COMMAND },
    entry("run", &run::COMMAND),
    entry("start", &start::COMMAND),
    entry("stats", &stats::COMMAND),
    entry("stop", &stop::STOP),
    entry("top", &top::COMMAND),
    entry("unpause", &pause::UNPAUSE),
    entry("update", &update::COMMAND),
    entry("wait", &wait::COMMAND),
];

pub static CONTAINER: Command = group("Manage containers", &[Section { title: "Commands", entries: CONTAINER_ENTRIES }]);

static CONTAINER_INSPECT_FLAGS: &[Flag] = &[json_format_flag("f"), switch("size", "s", "Display total file sizes")];

static CONTAINER_INSPECT: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Display detailed information on one or more containers",
    flags: &[CONTAINER_INSPECT_FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(inspect::one_kind(cli, matches, Kind::Container)))
};

static IMAGE_ENTRIES: &[Entry] = &[
    entry("build", &builder::BUILD),
    entry("history", &history::COMMAND),
    entry("import", &load::IMPORT),
    entry("inspect", &IMAGE_INSPECT),
    entry("load", &load::COMMAND),
    Entry { name: "ls", aliases: &["list"], command: &images::COMMAND },
    entry("prune", &prune::IMAGE),
    entry("pull", &pull::COMMAND),
    entry("push", &push::PUSH),
    Entry { name: "rm", aliases: &["remove"], command: &rmi::COMMAND },
    entry("save", &save::SAVE),
    entry("tag", &tag::COMMAND),
];

pub static IMAGE: Command = group("Manage images", &[Section { title: "Commands", entries: IMAGE_ENTRIES }]);

static IMAGE_INSPECT_FLAGS: &[Flag] =
    &[json_format_flag("f"), string("platform", "", "Inspect that platform of the image (os/arch[/variant])")];

static IMAGE_INSPECT: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Display detailed information on one or more images",
    flags: &[IMAGE_INSPECT_FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(inspect::one_kind(cli, matches, Kind::Image)))
};

static SYSTEM_ENTRIES: &[Entry] =
    &[entry("df", &df::COMMAND), entry("events", &events::COMMAND), entry("info", &info::COMMAND), entry("prune", &prune::SYSTEM)];

static SYSTEM_HIDDEN: &[Entry] = &[entry("dial-stdio", &dial_stdio::COMMAND)];

pub static SYSTEM: Command =
    group("Manage the engine", &[Section { title: "Commands", entries: SYSTEM_ENTRIES }, Section { title: "", entries: SYSTEM_HIDDEN }]);

static BUILDER_ENTRIES: &[Entry] = &[entry("build", &builder::BUILD), entry("prune", &prune::BUILDER)];

pub static BUILDER: Command = group("Manage builds", &[Section { title: "Commands", entries: BUILDER_ENTRIES }]);
