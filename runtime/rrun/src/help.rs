//! Help texts in the shape of the field's runtimes, from the tables of the options; and what is said to a wrong line.

use std::ffi::OsString;
use std::fmt::Write as _;

use crate::cli::{Asked, COMMANDS, Global, Info, VERSION_TEXT};
use crate::words::{HELP, Odd, Opt, Rest, VERSION};

/// What to print instead of running a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub stdout: String,
    /// Goes to the log, as engines read it there.
    pub error: Option<String>,
    pub code: i32,
}

/// The answer to a line that names no command to run: help, the version, or what is wrong with it.
pub fn answer((odd, command): Asked, program: &str) -> Answer {
    let help = || command.map_or_else(|| program_help(program), |c| command_help(c, program));
    let good = |stdout| Answer { stdout, error: None, code: 0 };
    let why = match odd {
        Odd::Help => return good(help()),
        Odd::Version => return good(format!("{program} version {VERSION_TEXT}\n")),
        Odd::Unknown(topic) => return unknown_topic(&topic),
        Odd::Wrong(why) => why,
        Odd::Count => command.map_or_else(String::new, |c| wrong_count(c, program)),
    };
    Answer { stdout: format!("Incorrect Usage: {why}\n\n{}", help()), error: Some(why), code: 1 }
}

/// `help`, `help COMMAND`, `h …`.
pub fn asked_for(program: &str, line: &[OsString]) -> Option<Answer> {
    let mut words = line.iter().filter_map(|word| word.to_str()).filter(|word| !word.starts_with('-'));
    if !matches!(words.next(), Some("help" | "h")) {
        return None;
    }
    let Some(topic) = words.next() else { return Some(Answer { stdout: program_help(program), error: None, code: 0 }) };
    Some(match COMMANDS.iter().find(|info| info.name == topic) {
        Some(command) => Answer { stdout: command_help(command, program), error: None, code: 0 },
        None => unknown_topic(topic),
    })
}

fn unknown_topic(topic: &str) -> Answer {
    Answer { stdout: String::new(), error: Some(format!("No help topic for '{topic}'")), code: 3 }
}

fn wrong_count(command: &Info, program: &str) -> String {
    let bound = if command.grammar.rest == Rest::None { "exactly" } else { "a minimum of" };
    format!("{program}: {:?} requires {bound} {} argument(s)", command.name, command.grammar.operands)
}

fn program_help(program: &str) -> String {
    let mut out = format!(
        "NAME:\n   {program} - Open Container Initiative runtime\n\n\
         Runs containers from OCI bundles: a directory with a config.json and a root file system.\n\n\
         USAGE:\n   {program} [global options] command [command options] [arguments...]\n\nVERSION:\n   {}\n\nCOMMANDS:\n",
        env!("CARGO_PKG_VERSION")
    );
    for command in COMMANDS {
        line(&mut out, &format!("{:<12}{}", command.name, command.about));
    }
    line(&mut out, "help, h     Shows a list of commands or help for one command");
    out.push_str("\nGLOBAL OPTIONS:\n");
    options(&mut out, &[Global::OPTIONS, &[HELP, VERSION]]);
    out
}

fn command_help(command: &Info, program: &str) -> String {
    let Info { name, about, operands, grammar } = command;
    let has_options = grammar.options.iter().copied().flatten().any(|opt| !opt.hidden);
    let mut usage = format!("{program} {name}");
    for part in [if has_options { "[command options]" } else { "" }, operands] {
        if !part.is_empty() {
            usage.push(' ');
            usage.push_str(part);
        }
    }
    let mut out = format!("NAME:\n   {program} {name} - {about}\n\nUSAGE:\n   {usage}\n");
    if has_options {
        out.push_str("\nOPTIONS:\n");
        options(&mut out, grammar.options);
    }
    out
}

fn options(out: &mut String, all: &[&[Opt]]) {
    for opt in all.iter().copied().flatten().filter(|opt| !opt.hidden) {
        let value = if opt.takes_value { " value" } else { "" };
        let short = opt.short.map(|s| format!(", -{s}{value}")).unwrap_or_default();
        line(out, &format!("{:<35} {}", format!("--{}{value}{short}", opt.long), opt.help.trim_start()));
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    writeln!(out, "   {text}").expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn said(line: &str) -> Answer {
        let line = line.split(' ').skip(1).filter(|w| !w.is_empty()).map(OsString::from).collect();
        answer(Cli::parse(line).unwrap_err(), "rrun")
    }

    #[test]
    fn help_starts_as_in_the_field() {
        assert!(said("rrun -h").stdout.starts_with("NAME:\n   rrun - Open Container Initiative runtime\n"));
        assert!(said("rrun").stdout.contains("GLOBAL OPTIONS:\n   --root value "));
        for command in COMMANDS {
            let name = command.name;
            let got = said(&format!("rrun {name} --help"));
            assert!(got.stdout.starts_with(&format!("NAME:\n   rrun {name} - ")) && got.code == 0, "{}", got.stdout);
        }
    }

    #[test]
    fn wrong_lines_are_told_in_the_fields_words() {
        assert_eq!(said("rrun foo -h").error.unwrap(), "No help topic for 'foo'");
        assert_eq!(said("rrun foo").code, 3);
        assert_eq!(said("rrun run --foo x").error.unwrap(), "flag provided but not defined: -foo");
        assert_eq!(said("rrun run").error.unwrap(), "rrun: \"run\" requires exactly 1 argument(s)");
        assert_eq!(said("rrun state a b").error.unwrap(), "rrun: \"state\" requires exactly 1 argument(s)");
        assert_eq!(said("rrun exec").error.unwrap(), "rrun: \"exec\" requires a minimum of 1 argument(s)");
        assert_eq!(said("rrun state a b").code, 1);
        assert_eq!(said("rrun --log-format x list").error.unwrap(), "invalid value \"x\" for flag -log-format: give one of text, json");
        assert_eq!(said("rrun -v").stdout.lines().next().unwrap(), format!("rrun version {}", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn help_as_a_command() {
        let asked = |line: &str| asked_for("rrun", &line.split(' ').skip(1).map(OsString::from).collect::<Vec<_>>());
        assert!(asked("rrun help run").unwrap().stdout.contains("rrun run [command options] <container-id>"));
        assert_eq!(asked("rrun h nosuch").unwrap().code, 3);
        assert!(asked("rrun run help").is_none());
    }
}
