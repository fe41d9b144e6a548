//! The command line as a person types it: tables of commands and flags, a parser with the habits of the flag
//! library that docker uses (interspersed flags, `-itd`, `--flag=value`, `--flag value`), help and error texts.

pub mod check;
pub mod help;
pub mod matches;
pub mod parse;
pub mod suggest;

use std::future::Future;
use std::pin::Pin;

use crate::cli::Cli;
use crate::failure::Failure;
pub use matches::Matches;

pub const PROGRAM: &str = "rdocker";

pub type Outcome = Result<(), Failure>;
pub type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;
pub type Action = for<'a> fn(&'a Cli, &'a Matches) -> Running<'a>;
pub type Check = fn(&str) -> Result<(), String>;

/// What a flag takes; the name in the help and the check of the value follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// One value, the last one given counts.
    One(&'static str),
    /// Every value given counts.
    Many(&'static str),
}

#[derive(Clone, Copy)]
pub struct Flag {
    pub name: &'static str,
    /// One letter, or empty.
    pub short: &'static str,
    pub kind: Kind,
    pub about: &'static str,
    /// As the help shows it; empty if there is nothing to show.
    pub default: &'static str,
    pub check: Option<Check>,
    /// Docker knows it, this engine does not: using it is an error that says so.
    pub unsupported: bool,
    /// Accepted for old scripts, not shown.
    pub hidden: bool,
}

impl Flag {
    const fn new(name: &'static str, short: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, short, kind, about, default: "", check: None, unsupported: false, hidden: false }
    }

    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = text;
        self
    }

    pub const fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}

pub const fn switch(name: &'static str, short: &'static str, about: &'static str) -> Flag {
    Flag::new(name, short, Kind::Bool, about)
}

pub const fn string(name: &'static str, short: &'static str, about: &'static str) -> Flag {
    Flag::new(name, short, Kind::One("string"), about)
}

pub const fn int(name: &'static str, short: &'static str, about: &'static str) -> Flag {
    Flag::new(name, short, Kind::One("int"), about).check(check::int)
}

pub const fn bytes(name: &'static str, short: &'static str, about: &'static str) -> Flag {
    Flag::new(name, short, Kind::One("bytes"), about).check(check::bytes)
}

pub const fn duration(name: &'static str, about: &'static str) -> Flag {
    Flag::new(name, "", Kind::One("duration"), about).check(check::duration).default("0s")
}

pub const fn one(name: &'static str, short: &'static str, type_name: &'static str, about: &'static str) -> Flag {
    Flag::new(name, short, Kind::One(type_name), about)
}

pub const fn list(name: &'static str, short: &'static str, about: &'static str) -> Flag {
    Flag::new(name, short, Kind::Many("list"), about)
}

pub const fn many(name: &'static str, short: &'static str, type_name: &'static str, about: &'static str) -> Flag {
    Flag::new(name, short, Kind::Many(type_name), about)
}

pub const fn filter(short: &'static str, about: &'static str) -> Flag {
    Flag::new("filter", short, Kind::Many("filter"), about).check(check::filter)
}

/// A flag of docker's that this engine cannot honour.
pub const fn unsupported(name: &'static str, short: &'static str, kind: Kind) -> Flag {
    let mut flag = Flag::new(name, short, kind, "");
    flag.unsupported = true;
    flag.hidden = true;
    flag
}

/// How many positional arguments a command takes.
#[derive(Clone, Copy, Debug)]
pub enum Args {
    None,
    Any,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

pub enum Body {
    Group(&'static [Section]),
    Run(Action),
}

/// A titled part of a group's help.
pub struct Section {
    pub title: &'static str,
    pub entries: &'static [Entry],
}

/// A command under a name in a group; the same command may stand in several groups.
pub struct Entry {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub command: &'static Command,
}

pub const fn entry(name: &'static str, command: &'static Command) -> Entry {
    Entry { name, aliases: &[], command }
}

pub struct Command {
    /// What follows the command's name, such as `[OPTIONS] CONTAINER`; a line per form.
    pub usage: &'static str,
    pub about: &'static str,
    /// More paragraphs for the command's own help.
    pub details: &'static str,
    /// Full names under which it can be called, without the program's.
    pub names: &'static [&'static str],
    pub flags: &'static [&'static [Flag]],
    pub args: Args,
    /// Whether flags are recognised after positional arguments.
    pub interspersed: bool,
    pub body: Body,
}

/// Defaults for a table entry: `Command { usage: …, ..leaf(run) }`.
pub const fn leaf(run: Action) -> Command {
    Command { usage: "", about: "", details: "", names: &[], flags: &[], args: Args::None, interspersed: true, body: Body::Run(run) }
}

pub const fn group(about: &'static str, sections: &'static [Section]) -> Command {
    Command {
        usage: "COMMAND",
        about,
        details: "",
        names: &[],
        flags: &[],
        args: Args::None,
        interspersed: false,
        body: Body::Group(sections),
    }
}

impl Command {
    pub fn all_flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.flags.iter().flat_map(|set| set.iter())
    }

    pub fn find(&self, name: &str) -> Option<&'static Entry> {
        let Body::Group(sections) = self.body else { return None };
        sections.iter().flat_map(|section| section.entries).find(|entry| entry.name == name || entry.aliases.contains(&name))
    }

    pub fn entries(&self) -> Vec<&'static Entry> {
        match self.body {
            Body::Group(sections) => sections.iter().flat_map(|section| section.entries).collect(),
            Body::Run(_) => Vec::new(),
        }
    }
}
