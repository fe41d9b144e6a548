//! `org.systemd.property.NAME` annotations: properties of the container's scope, from an allow-list, their values in GVariant's text
//! format (`uint64 5`, `'text'`, `true`, `['a', 'b']`, `@as []`).

use std::collections::BTreeMap;

use super::wire::Value;
use crate::error::{Error, Result};

/// Before the name of a property.
pub const PREFIX: &str = "org.systemd.property.";

/// What may be set. Annotations can come from whoever names a container, so nothing here starts or stops another unit, acts on the
/// host, or loosens what the runtime sets itself (slice, delegation, devices, processes).
const ALLOWED: &[&str] = &[
    "After",
    "Before",
    "CPUAccounting",
    "CPUWeight",
    "CollectMode",
    "CoredumpReceive",
    "DefaultDependencies",
    "Description",
    "Documentation",
    "FinalKillSignal",
    "IOAccounting",
    "IOWeight",
    "IPAccounting",
    "IPAddressAllow",
    "IPAddressDeny",
    "IgnoreOnIsolate",
    "JobRunningTimeoutUSec",
    "JobTimeoutUSec",
    "KillMode",
    "KillSignal",
    "ManagedOOMMemoryPressure",
    "ManagedOOMMemoryPressureLimit",
    "ManagedOOMPreference",
    "ManagedOOMSwap",
    "MemoryAccounting",
    "MemoryHigh",
    "MemoryLow",
    "MemoryMin",
    "MemoryPressureThresholdUSec",
    "MemoryPressureWatch",
    "MemorySwapMax",
    "MemoryZSwapMax",
    "OOMPolicy",
    "RequiresMountsFor",
    "RestartKillSignal",
    "RuntimeMaxUSec",
    "RuntimeRandomizedExtraUSec",
    "SendSIGHUP",
    "SendSIGKILL",
    "StartupCPUWeight",
    "StartupIOWeight",
    "TasksAccounting",
    "TimeoutStopUSec",
    "WatchdogSignal",
];

/// The properties among a container's annotations.
pub fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>> {
    let named = annotations.iter().filter_map(|(key, value)| Some((key, key.strip_prefix(PREFIX)?, value)));
    named.map(|(key, name, text)| property(name, text).map_err(|why| Error::Invalid(format!("annotation {key}={text:?}: {why}")))).collect()
}

fn property(name: &str, text: &str) -> std::result::Result<(String, Value), String> {
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err("no name of a property: three letters at least, and nothing else".into());
    }
    let value = parse(text)?;
    // In unit files times are in seconds (`TimeoutStopSec`), on the bus in microseconds.
    let seconds = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    let (name, value) = match seconds {
        Some(stem) => (format!("{stem}USec"), microseconds(&value)?),
        None => (name.to_owned(), value),
    };
    if ALLOWED.contains(&name.as_str()) {
        Ok((name, value))
    } else {
        Err(format!("the property {name} may not be set by annotation: drop it, or set it on the slice that the container is in"))
    }
}

fn microseconds(seconds: &Value) -> std::result::Result<Value, String> {
    let whole = |n: i128| u64::try_from(n.saturating_mul(1_000_000)).map(Value::U64).map_err(|_| "no such time".to_owned());
    match seconds {
        Value::Byte(n) => whole((*n).into()),
        Value::I16(n) => whole((*n).into()),
        Value::U16(n) => whole((*n).into()),
        Value::I32(n) => whole((*n).into()),
        Value::U32(n) => whole((*n).into()),
        Value::I64(n) => whole((*n).into()),
        Value::U64(n) => whole((*n).into()),
        Value::Double(n) if *n >= 0.0 && n.is_finite() => Ok(Value::U64((*n * 1e6) as u64)),
        _ => Err("a number of seconds is wanted".into()),
    }
}

/// One value in GVariant's text format.
pub fn parse(text: &str) -> std::result::Result<Value, String> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None)?;
    parser.space();
    if parser.rest.is_empty() { Ok(value) } else { Err(format!("{:?} is left over", parser.rest)) }
}

struct Parser<'a> {
    rest: &'a str,
}

/// The words before a number, and the type that each means.
const TYPES: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, sign: char) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// `kind`: the type that is asked for, as a signature.
    fn value(&mut self, kind: Option<&str>) -> std::result::Result<Value, String> {
        self.space();
        match self.rest.chars().next() {
            None => Err("no value".into()),
            Some('@') => {
                self.rest = &self.rest[1..];
                let end = self.rest.find(char::is_whitespace).ok_or("a type without a value")?;
                let (asked, rest) = self.rest.split_at(end);
                self.rest = rest;
                if !known(asked) {
                    return Err(format!("the type {asked:?} is not supported: basic types and arrays of them are"));
                }
                self.value(Some(asked))
            }
            Some('[') => self.array(kind),
            Some('\'' | '"') => typed_text(self.quoted()?, kind),
            Some(_) => {
                let word = self.word();
                if let Some((_, asked)) = TYPES.iter().find(|(name, _)| *name == word) {
                    return self.value(Some(asked));
                }
                typed_word(word, kind)
            }
        }
    }

    fn array(&mut self, kind: Option<&str>) -> std::result::Result<Value, String> {
        let mut element = match kind {
            None => None,
            Some(kind) => Some(kind.strip_prefix('a').ok_or("an array where none is wanted")?.to_owned()),
        };
        self.take('[');
        let mut values: Vec<Value> = Vec::new();
        while !self.take(']') {
            if !values.is_empty() && !self.take(',') {
                return Err("an array's values are separated by commas".into());
            }
            let value = self.value(element.as_deref())?;
            element.get_or_insert_with(|| value.signature());
            values.push(value);
        }
        let element = element.ok_or("an empty array needs a type: write @as []")?;
        if values.iter().any(|v| v.signature() != element) {
            return Err("an array's values have one type".into());
        }
        Ok(Value::Array(element, values))
    }

    fn quoted(&mut self) -> std::result::Result<String, String> {
        let mut chars = self.rest.chars();
        let quote = chars.next();
        let mut text = String::new();
        loop {
            match chars.next().ok_or("a text without its closing quote")? {
                c if Some(c) == quote => break,
                '\\' => text.push(escape(&mut chars)?),
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Ok(text)
    }
}

fn known(kind: &str) -> bool {
    let basic = kind.trim_start_matches('a');
    basic.len() == 1 && kind.len() <= 4 && TYPES.iter().any(|(_, k)| *k == basic)
}

fn escape(chars: &mut std::str::Chars<'_>) -> std::result::Result<char, String> {
    Ok(match chars.next().ok_or("a text without its closing quote")? {
        'u' => hex(chars, 4)?,
        'U' => hex(chars, 8)?,
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        c => c,
    })
}

fn hex(chars: &mut std::str::Chars<'_>, digits: usize) -> std::result::Result<char, String> {
    let text: String = chars.take(digits).collect();
    let number = u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits);
    number.and_then(char::from_u32).filter(|c| *c != '\0').ok_or_else(|| format!("{text:?} is no character's number"))
}

fn typed_text(text: String, kind: Option<&str>) -> std::result::Result<Value, String> {
    match kind.unwrap_or("s") {
        "s" | "g" => Ok(Value::Text(text)),
        "o" => Ok(Value::Path(text)),
        _ => Err(format!("{text:?}: a text where none is wanted")),
    }
}

fn typed_word(word: &str, kind: Option<&str>) -> std::result::Result<Value, String> {
    if let ("true" | "false", "b") = (word, kind.unwrap_or("b")) {
        return Ok(Value::Bool(word == "true"));
    }
    let float = !word.contains("0x") && word.contains(['.', 'e', 'E']);
    let kind = kind.unwrap_or(if float { "d" } else { "i" });
    let wrong = || format!("{word:?} is no value of the type {kind:?}: write texts in quotes, numbers such as uint64 5");
    if kind == "d" {
        return word.parse().map(Value::Double).map_err(|_| wrong());
    }
    let number = integer(word).ok_or_else(wrong)?;
    let value = match kind {
        "y" => u8::try_from(number).ok().map(Value::Byte),
        "n" => i16::try_from(number).ok().map(Value::I16),
        "q" => u16::try_from(number).ok().map(Value::U16),
        "i" => i32::try_from(number).ok().map(Value::I32),
        "u" => u32::try_from(number).ok().map(Value::U32),
        "x" => i64::try_from(number).ok().map(Value::I64),
        "t" => u64::try_from(number).ok().map(Value::U64),
        _ => None,
    };
    value.ok_or_else(wrong)
}

/// Decimal, `0x` or, with a leading zero, octal; `infinity` is systemd's word for the largest number.
fn integer(word: &str) -> Option<i128> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word.strip_prefix('+').unwrap_or(word)), |rest| (true, rest));
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number = match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(&digits[1..], 8),
        None => digits.parse(),
    };
    number.ok().map(|n| if negative { -n } else { n })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, text: &str) -> std::result::Result<(String, Value), String> {
        let annotations = BTreeMap::from([(format!("{PREFIX}{name}"), text.to_owned()), ("other".to_owned(), "x".to_owned())]);
        properties(&annotations).map(|mut all| all.remove(0)).map_err(|e| e.to_string())
    }

    #[test]
    fn values_are_gvariants() {
        assert_eq!(one("TimeoutStopUSec", "uint64 123456789"), Ok(("TimeoutStopUSec".into(), Value::U64(123_456_789))));
        assert_eq!(one("CollectMode", "'inactive-or-failed'"), Ok(("CollectMode".into(), Value::text("inactive-or-failed"))));
        assert_eq!(one("SendSIGHUP", "true"), Ok(("SendSIGHUP".into(), Value::Bool(true))));
        assert_eq!(one("After", "['a.service', \"b.service\"]"), Ok(("After".into(), Value::texts(&["a.service", "b.service"]))));
        assert_eq!(one("Before", "@as []"), Ok(("Before".into(), Value::texts(&[]))));
        assert_eq!(one("KillSignal", "15"), Ok(("KillSignal".into(), Value::I32(15))));
        assert_eq!(parse("@t 0x10"), Ok(Value::U64(16)));
        assert!(parse(" [uint32 1, int32 2] ").unwrap_err().contains("one type"));
        assert_eq!(parse("@au [1, 2]"), Ok(Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])));
        assert_eq!(parse("'a\\n\\'\\u00e9'"), Ok(Value::text("a\n'é")));
        assert_eq!(parse("-1.5e3"), Ok(Value::Double(-1500.0)));
        assert_eq!(parse("-010"), Ok(Value::I32(-8)));
    }

    #[test]
    fn seconds_become_microseconds() {
        assert_eq!(one("RuntimeMaxSec", "2"), Ok(("RuntimeMaxUSec".into(), Value::U64(2_000_000))));
        assert_eq!(one("TimeoutStopSec", "1.5"), Ok(("TimeoutStopUSec".into(), Value::U64(1_500_000))));
        assert!(one("TimeoutStopSec", "'x'").unwrap_err().contains("number of seconds"));
        assert!(one("TimeoutStopSec", "-1").is_err());
    }

    #[test]
    fn what_reaches_beyond_the_container_is_refused_by_name() {
        for name in [
            "Slice",
            "Delegate",
            "DevicePolicy",
            "DeviceAllow",
            "PIDs",
            "BPFProgram",
            "OnFailure",
            "Conflicts",
            "Requires",
            "FailureAction",
        ] {
            let e = one(name, "'x'").unwrap_err();
            assert!(e.contains(&format!("org.systemd.property.{name}")) && e.contains("may not be set"), "{e}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (name, text) in [
            ("Ab", "1"),
            ("A.b", "1"),
            ("After", "x"),
            ("After", ""),
            ("After", "'x"),
            ("After", "[]"),
            ("After", "'x' y"),
            ("KillSignal", "uint64 -1"),
        ] {
            assert!(one(name, text).is_err(), "{name}={text}");
        }
    }
}
