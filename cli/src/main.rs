//! `rdocker`: docker's command line for the Docker Engine API.

mod cli;
mod client;
mod cmdline;
mod commands;
mod config;
mod failure;
mod log;
mod output;
mod reference;
mod session;
mod spec;
mod terminal;

use std::process::ExitCode;

use cli::Cli;
use cmdline::parse::{self, full_name};
use cmdline::{Body, Command, Matches, PROGRAM, help, suggest};
use failure::Failure;

fn main() -> ExitCode {
    terminal::restore_on_panic();
    let words: Vec<String> = match std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect() {
        Ok(words) => words,
        Err(word) => {
            eprintln!("{PROGRAM}: the argument {} is not UTF-8 text", word.display());
            return ExitCode::from(125);
        }
    };
    let result = run(&words);
    terminal::restore();
    let code = match result {
        Ok(()) => 0,
        Err(failure) => {
            if let Some(text) = failure.text() {
                eprintln!("{text}");
            }
            failure.code()
        }
    };
    // Not a return: a thread may still sit in a read of stdin.
    std::process::exit(i32::from(code));
}

fn run(words: &[String]) -> Result<(), Failure> {
    let root = &commands::ROOT;
    let globals = match parse::flags(root, "", words) {
        Err(failure) if parse::is_help(&failure) => return output::print(&help::text(root, "", terminal::width())),
        other => other?,
    };
    if globals.bool("version") {
        return output::line(&format!("{PROGRAM} version {}, build {}", env!("CARGO_PKG_VERSION"), commands::version::BUILD));
    }
    log::set_up(&globals)?;
    let rest = globals.args.clone();
    match rest.split_first() {
        // On stderr, as docker has it: nothing was asked for that stdout could carry.
        None => {
            eprint!("{}", help::text(root, "", terminal::width()));
            Ok(())
        }
        Some((word, rest)) if word == "help" => show_help(rest),
        Some(_) => descend(&Cli::new(globals), &rest),
    }
}

/// Finds the command that the words name and runs it.
fn descend(cli: &Cli, words: &[String]) -> Result<(), Failure> {
    let mut command: &Command = &commands::ROOT;
    let mut path = String::new();
    let mut rest = words;
    while let (Body::Group(_), Some((word, after))) = (&command.body, rest.split_first()) {
        if word.starts_with('-') {
            break;
        }
        let Some(entry) = command.find(word) else {
            if rest.iter().any(|word| matches!(word.as_str(), "--help" | "-h")) && !path.is_empty() {
                return output::print(&help::text(command, &path, terminal::width()));
            }
            return Err(unknown(command, &path, word));
        };
        command = entry.command;
        path = if path.is_empty() { word.clone() } else { format!("{path} {word}") };
        rest = after;
    }
    let matches = match parse::flags(command, &path, rest) {
        Err(failure) if parse::is_help(&failure) => return output::print(&help::text(command, &path, terminal::width())),
        other => other?,
    };
    match command.body {
        Body::Group(_) => {
            eprint!("{}", help::text(command, &path, terminal::width()));
            Ok(())
        }
        Body::Run(action) => {
            parse::arity(command, &matches)?;
            execute(cli, action, &matches)
        }
    }
}

fn execute(cli: &Cli, action: cmdline::Action, matches: &Matches) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(action(cli, matches));
    runtime.shutdown_background();
    result
}

fn unknown(command: &Command, path: &str, word: &str) -> Failure {
    let names = command.entries().into_iter().flat_map(|entry| std::iter::once(entry.name).chain(entry.aliases.iter().copied()));
    let hint = suggest::closest(word, names).map(|close| format!("\nDid you mean this?\n\t{close}\n")).unwrap_or_default();
    let full = full_name(path);
    if path.is_empty() && commands::MISSING.contains(&word) {
        return Failure::message(format!("{PROGRAM}: '{word}' is not supported by this engine"));
    }
    if path.is_empty() {
        return Failure::message(format!(
            "{PROGRAM}: '{word}' is not a docker command.\n{hint}\nRun '{PROGRAM} --help' for more information"
        ));
    }
    Failure::message(format!(
        "{PROGRAM}: unknown command: {full} {word}\n{hint}\nUsage:  {full}\n\nRun '{full} --help' for more information"
    ))
}

fn show_help(words: &[String]) -> Result<(), Failure> {
    let mut command: &Command = &commands::ROOT;
    for word in words {
        let Some(entry) = command.find(word) else {
            return Err(Failure::message(format!("unknown help topic: {}", words.join(" "))));
        };
        command = entry.command;
    }
    output::print(&help::text(command, &words.join(" "), terminal::width()))
}
