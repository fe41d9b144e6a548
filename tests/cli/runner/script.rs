//! Reading a transcript: see `transcripts/README.md` for its form.

use std::path::Path;

use rcontainerd_tests::Client;

fn mark(client: Client) -> &'static str {
    match client {
        Client::Ours => "r",
        Client::Docker28 => "28",
        Client::Docker20 => "20",
    }
}

/// What happens on a terminal.
#[derive(Debug, PartialEq, Eq)]
pub enum Keys {
    Expect(String),
    Type(Vec<u8>),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// Must succeed, nothing more.
    Prepare,
    Pipes,
    Terminal(Vec<Keys>),
    /// Not there yet.
    Later,
}

#[derive(Debug)]
pub struct Step {
    pub place: String,
    pub command: String,
    pub kind: Kind,
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
    /// Any of these is right.
    pub status: Vec<i32>,
}

/// Reads a file for one client; steps that only another engine can do are `Later` with ours.
pub fn read(path: &Path, client: Client, other_engine: bool) -> Vec<Step> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some((kind, command)) = opening(line, other_engine) {
            steps.push(Step { place, command: command.to_owned(), kind, stdout: Vec::new(), stderr: Vec::new(), status: vec![0] });
            continue;
        }
        let Some(line) = meant_for(line, client, &place) else { continue };
        let step = steps.last_mut().unwrap_or_else(|| panic!("{place}: an expectation before any command"));
        expect(step, line, &place);
    }
    steps
}

fn opening(line: &str, other_engine: bool) -> Option<(Kind, &str)> {
    if let Some(command) = line.strip_prefix("% ") {
        return Some((Kind::Prepare, command));
    }
    if let Some(command) = line.strip_prefix("$ ") {
        return Some((Kind::Pipes, command));
    }
    if let Some(command) = line.strip_prefix("$t ") {
        return Some((Kind::Terminal(Vec::new()), command));
    }
    let (mark, command) = line.strip_prefix('[')?.split_once("] $ ")?;
    let kind = if mark == "e" && other_engine { Kind::Pipes } else { Kind::Later };
    (mark.len() == 1).then_some((kind, command))
}

/// The line without its `{28,20}`, or nothing if it is for other clients.
fn meant_for<'a>(line: &'a str, client: Client, place: &str) -> Option<&'a str> {
    let marked = line.strip_prefix('{').and_then(|rest| rest.split_once("} "));
    let Some((marks, rest)) = marked.filter(|(marks, _)| marks.split(',').all(|mark| ["r", "28", "20"].contains(&mark))) else {
        return Some(line);
    };
    assert!(!rest.is_empty(), "{place}: nothing after the client's mark");
    marks.split(',').any(|mark| mark == self::mark(client)).then_some(rest)
}

fn expect(step: &mut Step, line: &str, place: &str) {
    if let Some(status) = line.strip_prefix("? ") {
        let one = |text: &str| text.trim().parse().unwrap_or_else(|_| panic!("{place}: {status:?} is no exit status"));
        step.status = status.split('|').map(one).collect();
        return;
    }
    if let Kind::Terminal(keys) = &mut step.kind {
        if let Some(text) = line.strip_prefix("< ") {
            keys.push(Keys::Expect(text.to_owned()));
        } else if let Some(text) = line.strip_prefix("> ") {
            keys.push(Keys::Type(unescape(text)));
        } else {
            step.stdout.push(line.to_owned());
        }
        return;
    }
    match line.strip_prefix('!') {
        Some(text) => step.stderr.push(text.strip_prefix(' ').unwrap_or(text).to_owned()),
        // A lone backslash is an empty line, as empty lines in the file have no meaning.
        None if line == "\\" => step.stdout.push(String::new()),
        None => step.stdout.push(line.to_owned()),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend(c.to_string().bytes());
            continue;
        }
        match chars.next() {
            Some('r') => out.push(b'\r'),
            Some('n') => out.push(b'\n'),
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&hex, 16).unwrap_or_else(|_| panic!("\\x{hex} is no byte")));
            }
            Some(other) => out.extend(other.to_string().bytes()),
            None => {}
        }
    }
    out
}

/// Whether what was printed is what was expected, `…` being anything.
pub fn lines_match(expected: &[String], seen: &[&str]) -> bool {
    match (expected.split_first(), seen.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "…" => lines_match(rest, seen) || (!seen.is_empty() && lines_match(expected, &seen[1..])),
        (Some((want, rest)), Some((line, after))) => line_matches(want, line) && lines_match(rest, after),
        _ => false,
    }
}

fn line_matches(want: &str, line: &str) -> bool {
    let parts: Vec<&str> = want.split('…').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return want == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expected: &[&str], seen: &[&str]) -> bool {
        lines_match(&expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), seen)
    }

    #[test]
    fn wildcards() {
        assert!(matches(&["a…c"], &["abc"]) && matches(&["a…c…e"], &["abcde"]) && !matches(&["a…c"], &["ab"]));
        assert!(matches(&["…", "z"], &["x", "y", "z"]) && matches(&["…"], &[]) && !matches(&["…", "z"], &["x"]));
        assert!(!matches(&["a"], &["a", "b"]) && !matches(&["a", "b"], &["a"]) && !matches(&["abc"], &["ab"]));
        assert!(!matches(&["aXa…aXa"], &["aXa"]), "what stands before and after the wildcard does not overlap");
    }

    #[test]
    fn keys() {
        assert_eq!(unescape(r"a\r\x10\\"), b"a\r\x10\\");
    }
}
