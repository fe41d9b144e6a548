//! The words of a command line → options and operands, by tables. The field's rules: `-name` is `--name`, a flag takes `=true` and
//! `=false`, the last of an option counts. Beyond them options may follow operands, and short flags may share one dash.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// An option, as help shows it.
#[derive(Debug)]
pub struct Opt {
    pub long: &'static str,
    pub short: Option<char>,
    pub takes_value: bool,
    pub help: &'static str,
    /// Known, but not told.
    pub hidden: bool,
}

pub const HELP: Opt = Opt { long: "help", short: Some('h'), takes_value: false, help: "show help", hidden: false };
pub const VERSION: Opt = Opt { long: "version", short: Some('v'), takes_value: false, help: "print the version", hidden: false };

/// What comes after the operands that must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    None,
    /// One operand may follow.
    Optional,
    /// The words of another program: the first that is no option of ours, and all after it.
    Program,
    /// The same, but its options begin with the first short one.
    ProgramWithOptions,
}

/// What a line may hold up to the end of this part of it.
#[derive(Debug, Clone, Copy)]
pub struct Grammar {
    pub options: &'static [&'static [Opt]],
    pub operands: usize,
    pub rest: Rest,
}

/// A part of a line, taken apart.
#[derive(Debug, Default)]
pub struct Words {
    given: Vec<(&'static str, OsString)>,
    operands: std::collections::VecDeque<OsString>,
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Odd {
    Help,
    Version,
    /// No command has this name.
    Unknown(String),
    /// What is wrong, in the field's words.
    Wrong(String),
    /// The number of operands is.
    Count,
}

impl Grammar {
    /// Up to the first operand: the words of a program before its command.
    pub fn parse_head(&self, line: &mut impl Iterator<Item = OsString>) -> Result<(Words, Option<OsString>), Odd> {
        let mut words = Words::default();
        while let Some(word) = line.next() {
            if !is_option(&word) {
                return Ok((words, Some(word)));
            }
            self.option(&word, line, &mut words)?;
        }
        Ok((words, None))
    }

    /// All that is left of a line.
    pub fn parse(&self, line: &mut impl Iterator<Item = OsString>) -> Result<Words, Odd> {
        let mut words = Words::default();
        while let Some(word) = line.next() {
            let in_rest = words.operands.len() >= self.operands;
            let of_program = in_rest && matches!(self.rest, Rest::Program | Rest::ProgramWithOptions);
            if word == "--" {
                words.operands.extend(line.by_ref());
            } else if of_program && !self.is_ours(&word) {
                words.operands.push_back(word);
                words.operands.extend(line.by_ref());
            } else if is_option(&word) {
                self.option(&word, line, &mut words)?;
            } else {
                words.operands.push_back(word);
            }
        }
        let most = match self.rest {
            Rest::None => self.operands,
            Rest::Optional => self.operands + 1,
            Rest::Program | Rest::ProgramWithOptions => usize::MAX,
        };
        if (self.operands..=most).contains(&words.operands.len()) { Ok(words) } else { Err(Odd::Count) }
    }

    /// Where another program's words begin.
    fn is_ours(&self, word: &OsStr) -> bool {
        let dashes = word.as_bytes().iter().take_while(|b| **b == b'-').count();
        let least = if self.rest == Rest::ProgramWithOptions { 2 } else { 1 };
        dashes >= least && is_option(word) && (self.long(word).is_some() || self.cluster(word).is_some())
    }

    fn all(&self) -> impl Iterator<Item = &'static Opt> {
        self.options.iter().copied().flatten().chain([&HELP])
    }

    /// The long option that a word names, and the value behind `=`.
    fn long(&self, word: &OsStr) -> Option<(&'static Opt, Option<OsString>)> {
        let bytes = word.as_bytes();
        let bare = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"))?;
        let (name, value) = match bare.iter().position(|b| *b == b'=') {
            Some(at) => (&bare[..at], Some(OsString::from_vec(bare[at + 1..].to_vec()))),
            None => (bare, None),
        };
        let is_short = |opt: &Opt| matches!(name, [one] if opt.short == Some(char::from(*one)));
        self.all().find(|opt| opt.long.as_bytes() == name || is_short(opt)).map(|opt| (opt, value))
    }

    /// Several short options behind one dash, the last perhaps with its value.
    fn cluster(&self, word: &OsStr) -> Option<Vec<(&'static Opt, Option<OsString>)>> {
        let bytes = word.as_bytes();
        let mut letters = bytes.strip_prefix(b"-").filter(|letters| !letters.starts_with(b"-"))?;
        let mut found = Vec::new();
        while let [letter, rest @ ..] = letters {
            let opt = self.all().find(|opt| opt.short == Some(char::from(*letter)))?;
            letters = if opt.takes_value { &[] } else { rest };
            let value = (opt.takes_value && !rest.is_empty()).then(|| OsString::from_vec(rest.to_vec()));
            found.push((opt, value));
        }
        Some(found)
    }

    fn option(&self, word: &OsStr, line: &mut impl Iterator<Item = OsString>, words: &mut Words) -> Result<(), Odd> {
        let found = self.long(word).map(|one| vec![one]).or_else(|| self.cluster(word));
        let shown = || word.to_string_lossy().trim_start_matches('-').split('=').next().unwrap_or_default().to_string();
        for (opt, value) in found.ok_or_else(|| Odd::Wrong(format!("flag provided but not defined: -{}", shown())))? {
            let value = match (opt.takes_value, value) {
                (_, Some(value)) => value,
                (false, None) => OsString::from("true"),
                (true, None) => line.next().ok_or_else(|| Odd::Wrong(format!("flag needs an argument: -{}", opt.long)))?,
            };
            let asked = !opt.takes_value && truth(&value) == Some(true);
            match opt.long {
                "help" if asked => return Err(Odd::Help),
                "version" if asked => return Err(Odd::Version),
                long => words.given.push((long, value)),
            }
        }
        Ok(())
    }
}

fn is_option(word: &OsStr) -> bool {
    word.len() > 1 && word.as_bytes()[0] == b'-'
}

/// What the field takes for a truth value.
fn truth(value: &OsStr) -> Option<bool> {
    match value.to_str()? {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Words {
    /// The next operand as text.
    pub fn operand(&mut self) -> Result<Option<String>, Odd> {
        self.operands.pop_front().map(|word| text("argument", &word)).transpose()
    }

    /// All operands that are left.
    pub fn operands(self) -> Result<Vec<String>, Odd> {
        self.operands.iter().map(|word| text("argument", word)).collect()
    }

    fn last(&self, long: &str) -> Option<&OsStr> {
        self.given.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_os_str())
    }
}

fn text(what: &str, word: &OsStr) -> Result<String, Odd> {
    word.to_str().map(str::to_string).ok_or_else(|| Odd::Wrong(format!("invalid {what} {word:?}: must be UTF-8")))
}

fn invalid(long: &str, value: &OsStr, rule: &str) -> Odd {
    Odd::Wrong(format!("invalid value {value:?} for flag -{long}: {rule}"))
}

/// What the values of an option become.
pub trait Value: Sized {
    const TAKES_VALUE: bool = true;
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd>;
}

impl Value for bool {
    const TAKES_VALUE: bool = false;
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
        let Some(value) = words.last(long) else { return Ok(false) };
        truth(value).ok_or_else(|| invalid(long, value, "give true or false"))
    }
}

impl Value for Option<PathBuf> {
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
        Ok(words.last(long).map(PathBuf::from))
    }
}

impl Value for Option<String> {
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
        words.last(long).map(|value| text(&format!("value of flag -{long}:"), value)).transpose()
    }
}

impl Value for Vec<String> {
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
        let all = words.given.iter().filter(|(name, _)| *name == long);
        all.map(|(_, value)| text(&format!("value of flag -{long}:"), value)).collect()
    }
}

impl Value for Vec<u32> {
    fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
        let all = words.given.iter().filter(|(name, _)| *name == long);
        all.map(|(_, value)| number(long, value, i128::from(u32::MIN)..=i128::from(u32::MAX)).map(|n| n as u32)).collect()
    }
}

fn number(long: &str, value: &OsStr, range: std::ops::RangeInclusive<i128>) -> Result<i128, Odd> {
    let told = || invalid(long, value, &format!("give a number from {} to {}", range.start(), range.end()));
    value.to_str().and_then(|text| text.parse().ok()).filter(|n| range.contains(n)).ok_or_else(told)
}

macro_rules! numbers {
    ($($kind:ty)*) => { $(
        impl Value for Option<$kind> {
            fn take(words: &Words, long: &'static str) -> Result<Self, Odd> {
                let range = i128::from(<$kind>::MIN)..=i128::from(<$kind>::MAX);
                words.last(long).map(|value| number(long, value, range).map(|n| n as $kind)).transpose()
            }
        }
    )* };
}
numbers!(u16 u32 u64 i64);

/// One of a few words; the first is the default.
pub fn one_of<T: Copy>(words: &Words, long: &'static str, all: &[(&str, T)]) -> Result<T, Odd> {
    let Some(value) = words.last(long) else { return Ok(all[0].1) };
    let known = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    all.iter()
        .find(|(name, _)| value == *name)
        .map(|(_, what)| *what)
        .ok_or_else(|| invalid(long, value, &format!("give one of {}", known())))
}

/// A structure of options: `name: type = "long" short`, each with its help; `#hidden` ones are known, but not told.
macro_rules! options {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[doc = $help:literal])* $field:ident: $kind:ty = $long:literal $($short:literal)? $(#$hidden:ident)?,)* }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name { $($(#[doc = $help])* pub $field: $kind,)* }

        impl $name {
            pub const OPTIONS: &[$crate::words::Opt] = &[$($crate::words::Opt {
                long: $long,
                short: $crate::words::options!(@short $($short)?),
                takes_value: <$kind as $crate::words::Value>::TAKES_VALUE,
                help: concat!($($help),*),
                hidden: $crate::words::options!(@hidden $($hidden)?),
            },)*];

            pub fn take(words: &$crate::words::Words) -> Result<Self, $crate::words::Odd> {
                Ok($name { $($field: $crate::words::Value::take(words, $long)?,)* })
            }
        }
    };
    (@short) => { None };
    (@short $short:literal) => { Some($short) };
    (@hidden) => { false };
    (@hidden hidden) => { true };
}
pub(crate) use options;

#[cfg(test)]
mod tests {
    use super::*;

    options! {
        pub struct Example {
            /// a path
            bundle: Option<PathBuf> = "bundle" 'b',
            /// a flag
            tty: bool = "tty" 't',
            /// a list
            env: Vec<String> = "env" 'e',
            /// a number
            limit: Option<i64> = "limit",
        }
    }

    const PROGRAM: Grammar = Grammar { options: &[Example::OPTIONS, &[HELP]], operands: 1, rest: Rest::Program };

    fn parse(grammar: &Grammar, line: &str) -> Result<(Example, String), Odd> {
        let words = grammar.parse(&mut line.split(' ').filter(|w| !w.is_empty()).map(OsString::from))?;
        let operands: Vec<_> = words.operands.iter().map(|w| w.to_string_lossy().into_owned()).collect();
        Ok((Example::take(&words)?, operands.join(" ")))
    }

    #[test]
    fn one_dash_is_enough_for_long_options_and_several_short_ones_share_one() {
        for line in ["-bundle=/x c", "--bundle /x c", "-b /x c", "-b=/x c", "-b/x c", "-tb /x c", "c -b /x", "-b /y -b /x c"] {
            assert_eq!(parse(&PROGRAM, line).unwrap().0.bundle, Some("/x".into()), "{line}");
        }
    }

    #[test]
    fn flags_take_a_truth_value() {
        for (line, on) in [("-t c", true), ("--tty=true c", true), ("-t=0 c", false), ("-t --tty=false c", false), ("c", false)] {
            assert_eq!(parse(&PROGRAM, line).unwrap().0.tty, on, "{line}");
        }
        assert_eq!(
            parse(&PROGRAM, "-tty=maybe c").unwrap_err(),
            Odd::Wrong("invalid value \"maybe\" for flag -tty: give true or false".into())
        );
    }

    #[test]
    fn the_words_of_a_program_are_its_own() {
        for (line, operands) in [
            ("c find -user root -t", "c find -user root -t"),
            ("c -e A=b -- -t x", "c -t x"),
            ("c -t find --bundle", "c find --bundle"),
            ("c sh -- -t", "c sh -- -t"),
            ("-- c -t", "c -t"),
            ("c -x -t", "c -x -t"),
        ] {
            assert_eq!(parse(&PROGRAM, line).unwrap().1, operands, "{line}");
        }
        let ps = Grammar { rest: Rest::ProgramWithOptions, ..PROGRAM };
        assert_eq!(parse(&ps, "c -e -t x").unwrap().1, "c -e -t x");
        assert_eq!(parse(&ps, "c --env x").unwrap().1, "c");
    }

    #[test]
    fn values_may_look_like_options_and_must_be_there() {
        assert_eq!(parse(&PROGRAM, "--limit -1 c").unwrap().0.limit, Some(-1));
        assert_eq!(parse(&PROGRAM, "-e -t -e x c").unwrap().0.env, ["-t", "x"]);
        let wrong = |line: &str| match parse(&PROGRAM, line) {
            Err(Odd::Wrong(why)) => why,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(wrong("c -b"), "flag needs an argument: -bundle");
        assert_eq!(wrong("--foo=1 c"), "flag provided but not defined: -foo");
        assert!(wrong("--limit 9223372036854775808 c").starts_with("invalid value \"9223372036854775808\" for flag -limit: give a number"));
        assert!(wrong("--limit x c").contains("\"x\""));
    }

    #[test]
    fn operands_are_counted() {
        let none = Grammar { rest: Rest::None, ..PROGRAM };
        let optional = Grammar { rest: Rest::Optional, ..PROGRAM };
        assert!(parse(&none, "c").is_ok() && parse(&optional, "c d").is_ok());
        for (grammar, line) in [(none, ""), (none, "c d"), (optional, ""), (optional, "c d e"), (PROGRAM, "-t")] {
            assert_eq!(parse(&grammar, line).unwrap_err(), Odd::Count, "{line}");
        }
        assert_eq!(parse(&none, "--help").unwrap_err(), Odd::Help);
    }
}
