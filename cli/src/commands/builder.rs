//! `build` and `compose`: known by name, not there yet.

use crate::cmdline::{Args, Command, Flag, Outcome, PROGRAM, Running, leaf};
use crate::failure::Failure;

static NO_FLAGS: &[Flag] = &[];

pub static BUILD: Command = Command {
    usage: "[OPTIONS] PATH | URL | -",
    about: "Build an image from a Dockerfile",
    flags: &[NO_FLAGS],
    args: Args::Any,
    interspersed: false,
    ..leaf(|_, _| missing("build", "images can be pulled, loaded, imported and committed"))
};

pub static COMPOSE: Command = Command {
    usage: "[OPTIONS] COMMAND",
    about: "Define and run applications of several containers",
    flags: &[NO_FLAGS],
    args: Args::Any,
    interspersed: false,
    ..leaf(|_, _| missing("compose", "start the containers one by one with 'run'"))
};

fn missing(what: &'static str, remedy: &'static str) -> Running<'static> {
    Box::pin(async move { Outcome::Err(Failure::message(format!("{PROGRAM}: '{what}' is not supported by this version: {remedy}"))) })
}
