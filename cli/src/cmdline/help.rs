//! Help texts in docker's layout.

use std::fmt::Write as _;

use super::parse::full_name;
use super::{Body, Command, Entry, Flag, Kind, PROGRAM, Section};

/// The help of one command, without a final newline being doubled.
pub fn text(command: &Command, path: &str, width: usize) -> String {
    let mut out = String::new();
    out.push_str("Usage:  ");
    out.push_str(&usage(command, path));
    out.push_str("\n\n");
    out.push_str(if command.details.is_empty() { command.about } else { command.details });
    out.push('\n');
    aliases(&mut out, command);
    if let Body::Group(sections) = command.body {
        for section in sections {
            list(&mut out, section);
        }
    }
    options(&mut out, command, path, width);
    if matches!(command.body, Body::Group(_)) {
        push(&mut out, format_args!("\nRun '{} COMMAND --help' for more information on a command.\n", full_name(path)));
    }
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

fn usage(command: &Command, path: &str) -> String {
    let full = full_name(path);
    if command.usage.contains("{}") {
        return command.usage.replace("{}", &full);
    }
    if path.is_empty() { format!("{full} [OPTIONS] COMMAND") } else { format!("{full} {}", command.usage).trim_end().to_owned() }
}

fn aliases(out: &mut String, command: &Command) {
    if command.names.len() > 1 {
        let names: Vec<String> = command.names.iter().map(|name| format!("{PROGRAM} {name}")).collect();
        push(out, format_args!("\nAliases:\n  {}\n", names.join(", ")));
    }
}

/// A section without a title is not shown: commands for programs, not for people.
fn list(out: &mut String, section: &Section) {
    if section.title.is_empty() {
        return;
    }
    push(out, format_args!("\n{}:\n", section.title));
    let width = section.entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0).max(11);
    for Entry { name, command, .. } in section.entries {
        push(out, format_args!("  {name:width$} {}\n", command.about));
    }
}

fn options(out: &mut String, command: &Command, path: &str, width: usize) {
    let mut flags: Vec<&Flag> = command.all_flags().filter(|flag| !flag.hidden).collect();
    if flags.is_empty() {
        return;
    }
    flags.sort_by_key(|flag| flag.name);
    out.push_str(if path.is_empty() { "\nGlobal Options:\n" } else { "\nOptions:\n" });
    let heads: Vec<String> = flags.iter().map(|flag| head(flag)).collect();
    let column = heads.iter().map(String::len).max().unwrap_or(0) + 3;
    for (head, flag) in heads.iter().zip(flags) {
        let text = about(flag);
        push(out, format_args!("{head:column$}{}\n", wrap(&text, column, width.saturating_sub(1))));
    }
}

fn head(flag: &Flag) -> String {
    let short = if flag.short.is_empty() { "      ".to_owned() } else { format!("  -{}, ", flag.short) };
    match flag.kind {
        Kind::Bool => format!("{short}--{}", flag.name),
        Kind::One(what) | Kind::Many(what) => format!("{short}--{} {what}", flag.name),
    }
}

fn about(flag: &Flag) -> String {
    if flag.default.is_empty() { flag.about.to_owned() } else { format!("{} (default {})", flag.about, flag.default) }
}

/// Breaks lines at spaces so that nothing passes `width`, continuing at `indent`.
fn wrap(text: &str, indent: usize, width: usize) -> String {
    let room = width.saturating_sub(indent).max(24);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join(&format!("\n{}", " ".repeat(indent)))
}
