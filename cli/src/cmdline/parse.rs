//! From words to a command and its [`Matches`].

use super::{Args, Body, Command, Flag, Kind, Matches, PROGRAM, check, suggest};
use crate::failure::Failure;

/// Exit status for a malformed flag, in any command.
const FLAG_ERROR: u8 = 125;

/// Parses flags and arguments of one command.
///
/// # Errors
/// An unknown or malformed flag, with the usage and a suggestion.
pub fn flags(command: &Command, path: &str, words: &[String]) -> Result<Matches, Failure> {
    let mut parser = Parser { command, words, at: 0, matches: Matches::new(path) };
    parser.run().map_err(|why| flag_error(command, path, &why))?;
    Ok(parser.matches)
}

fn flag_error(command: &Command, path: &str, why: &str) -> Failure {
    let usage = match command.body {
        Body::Group(_) if path.is_empty() => "[OPTIONS] COMMAND [ARG...]",
        _ => command.usage.lines().next().unwrap_or_default(),
    };
    let full = full_name(path);
    Failure::exit_with(FLAG_ERROR, format!("{why}\n\nUsage:  {full} {usage}\n\nRun '{full} --help' for more information"))
}

pub fn full_name(path: &str) -> String {
    if path.is_empty() { PROGRAM.to_owned() } else { format!("{PROGRAM} {path}") }
}

struct Parser<'a> {
    command: &'a Command,
    words: &'a [String],
    at: usize,
    matches: Matches,
}

impl Parser<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(word) = self.words.get(self.at).cloned() {
            self.at += 1;
            match word.as_bytes() {
                b"--" => {
                    self.rest();
                    return Ok(());
                }
                [b'-', b'-', ..] => self.long(&word[2..])?,
                [b'-', _, ..] => self.shorts(&word[1..])?,
                _ => {
                    self.matches.args.push(word);
                    if !self.command.interspersed {
                        self.rest();
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn rest(&mut self) {
        self.matches.args.extend_from_slice(&self.words[self.at..]);
        self.at = self.words.len();
    }

    fn long(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(format!("bad flag syntax: --{text}"));
        }
        let Some(flag) = self.find(|flag| flag.name == name) else {
            return self.help_or(name == "help", value.as_deref(), || self.unknown_long(name));
        };
        let value = match (flag.kind, value) {
            (_, Some(value)) => value,
            (Kind::Bool, None) => "true".to_owned(),
            (_, None) => self.next_word().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        self.set(flag, value)
    }

    fn shorts(&mut self, text: &str) -> Result<(), String> {
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            let after = &rest[letter.len_utf8()..];
            let Some(flag) = self.find(|flag| !flag.short.is_empty() && flag.short.starts_with(letter)) else {
                let known = letter == 'h' && self.find(|flag| flag.short == "h").is_none();
                return self.help_or(known, None, || format!("unknown shorthand flag: '{letter}' in -{rest}"));
            };
            if flag.kind == Kind::Bool && !after.starts_with('=') {
                self.set(flag, "true".to_owned())?;
                rest = after;
                continue;
            }
            let value = match after.strip_prefix('=') {
                Some(value) => value.to_owned(),
                None if !after.is_empty() => after.to_owned(),
                None => self.next_word().ok_or_else(|| format!("flag needs an argument: '{letter}' in -{rest}"))?,
            };
            return self.set(flag, value);
        }
        Ok(())
    }

    /// `--help` and `-h` are known to every command that does not use them otherwise.
    fn help_or(&self, is_help: bool, value: Option<&str>, error: impl Fn() -> String) -> Result<(), String> {
        if !is_help {
            return Err(error());
        }
        match value.map(|value| (value, check::parse_bool(value))) {
            Some((_, Some(false))) => Ok(()),
            Some((value, None)) => Err(check::bool(value)
                .map_or_else(|why| format!("invalid argument {value:?} for \"--help\" flag: {why}"), |()| HELP.to_owned())),
            _ => Err(HELP.to_owned()),
        }
    }

    fn find(&self, is: impl Fn(&Flag) -> bool) -> Option<&'static Flag> {
        self.command.all_flags().find(|flag| is(flag))
    }

    fn next_word(&mut self) -> Option<String> {
        let word = self.words.get(self.at).cloned();
        self.at += 1;
        word
    }

    fn unknown_long(&self, name: &str) -> String {
        let names = self.command.all_flags().filter(|flag| !flag.hidden).map(|flag| flag.name);
        match suggest::closest(name, names) {
            Some(close) => format!("unknown flag: --{name}\n\nDid you mean --{close}?"),
            None => format!("unknown flag: --{name}"),
        }
    }

    fn set(&mut self, flag: &'static Flag, value: String) -> Result<(), String> {
        let shown = if flag.short.is_empty() { format!("--{}", flag.name) } else { format!("-{}, --{}", flag.short, flag.name) };
        if flag.unsupported {
            return Err(format!("unsupported flag: {shown}: this engine cannot do what it asks for; leave it out"));
        }
        let form = (flag.kind == Kind::Bool).then_some(check::bool as super::Check);
        for check in form.into_iter().chain(flag.check) {
            check(&value).map_err(|why| format!("invalid argument {value:?} for \"{shown}\" flag: {why}"))?;
        }
        self.matches.set(flag.name, value, matches!(flag.kind, Kind::Many(_)));
        Ok(())
    }
}

/// Marks a request for help among parse errors; no flag error has this text.
pub const HELP: &str = "\0help";

/// Whether the failure is a request for help.
pub fn is_help(failure: &Failure) -> bool {
    failure.text().is_some_and(|text| text.starts_with(HELP))
}

/// Checks the number of positional arguments.
///
/// # Errors
/// Too few or too many, in docker's words.
pub fn arity(command: &Command, matches: &Matches) -> Result<(), Failure> {
    let count = matches.args.len();
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    let (fits, what, verb) = match command.args {
        Args::Any => return Ok(()),
        Args::None => (count == 0, "accepts no arguments".to_owned(), "Run"),
        Args::Exactly(n) => (count == n, format!("requires {n} {}", plural(n)), "Run"),
        Args::AtLeast(n) => (count >= n, format!("requires at least {n} {}", plural(n)), "See"),
        Args::AtMost(n) => (count <= n, format!("requires at most {n} {}", plural(n)), "Run"),
        Args::Between(low, high) => {
            ((low..=high).contains(&count), format!("requires at least {low} and at most {high} {}", plural(high)), "Run")
        }
    };
    if fits {
        return Ok(());
    }
    let full = full_name(&matches.path);
    let usage = command.usage.replace("{}", &full);
    let usage = if command.usage.contains("{}") { usage } else { format!("{full} {usage}") };
    let text = format!("{PROGRAM}: '{full}' {what}\n\nUsage:  {}\n\n{verb} '{full} --help' for more information", usage.trim_end());
    Err(Failure::message(text))
}

#[cfg(test)]
mod tests {
    use super::super::{Outcome, int, leaf, list, string, switch};
    use super::*;

    fn run<'a>(_: &'a crate::cli::Cli, _: &'a Matches) -> super::super::Running<'a> {
        Box::pin(async { Outcome::Ok(()) })
    }

    static FLAGS: &[Flag] = &[
        switch("interactive", "i", ""),
        switch("tty", "t", ""),
        switch("detach", "d", ""),
        switch("rm", "", ""),
        string("name", "", ""),
        string("cpus", "", ""),
        list("env", "e", ""),
        int("tail", "n", ""),
    ];
    static RUN: Command = Command { usage: "[OPTIONS] IMAGE", flags: &[FLAGS], interspersed: false, args: Args::AtLeast(1), ..leaf(run) };
    static PS: Command = Command { usage: "[OPTIONS]", flags: &[FLAGS], ..leaf(run) };

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn error(command: &Command, text: &str) -> String {
        let failure = flags(command, "run", &words(text)).expect_err(text);
        assert_eq!(failure.code(), 125);
        failure.text().unwrap_or_default().to_owned()
    }

    #[test]
    fn combined_and_attached_forms() {
        let m = flags(&RUN, "run", &words("-itd --rm=false -eA=1 -e B --name=x -n5 img -t --rm")).expect("parses");
        assert!(m.bool("interactive") && m.bool("tty") && m.bool("detach") && !m.bool("rm"));
        assert_eq!(m.list("env"), ["A=1", "B"]);
        assert_eq!((m.str("name"), m.int("tail")), (Some("x"), Some(5)));
        assert_eq!(m.args, ["img", "-t", "--rm"]);
    }

    #[test]
    fn interspersed_flags_and_double_dash() {
        let m = flags(&PS, "ps", &words("a -t b -- -d c")).expect("parses");
        assert!(m.bool("tty") && !m.bool("detach"));
        assert_eq!(m.args, ["a", "b", "-d", "c"]);
    }

    #[test]
    fn errors_are_dockers() {
        assert!(
            error(&RUN, "--cpu 1 x")
                .starts_with("unknown flag: --cpu\n\nDid you mean --cpus?\n\nUsage:  rdocker run [OPTIONS] IMAGE\n\nRun")
        );
        assert!(error(&RUN, "-z x").starts_with("unknown shorthand flag: 'z' in -z\n"));
        assert!(error(&RUN, "-iz x").starts_with("unknown shorthand flag: 'z' in -z\n"));
        assert!(
            error(&RUN, "--help=x").starts_with("invalid argument \"x\" for \"--help\" flag: strconv.ParseBool: parsing \"x\": invalid")
        );
        assert!(error(&RUN, "--name").starts_with("flag needs an argument: --name\n"));
        assert!(error(&RUN, "-e").starts_with("flag needs an argument: 'e' in -e\n"));
        assert!(
            error(&RUN, "-n x i")
                .starts_with("invalid argument \"x\" for \"-n, --tail\" flag: strconv.ParseInt: parsing \"x\": invalid syntax\n")
        );
        assert!(error(&RUN, "--rm=maybe").contains("for \"--rm\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax"));
    }

    #[test]
    fn too_few_arguments() {
        let m = flags(&RUN, "run", &[]).expect("parses");
        let text = arity(&RUN, &m).expect_err("needs one").text().unwrap_or_default().to_owned();
        let want = "rdocker: 'rdocker run' requires at least 1 argument\n\nUsage:  rdocker run [OPTIONS] IMAGE\n\nSee 'rdocker run --help' for more information";
        assert_eq!(text, want);
    }
}
