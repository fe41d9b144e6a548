use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Process, Spec};
use crate::{Error, Result, one_line};

/// Parses config.json. The error names the JSON path of what is wrong.
pub fn parse_spec(text: &[u8]) -> Result<Spec> {
    parse(text, "config.json")
}

/// Parses a process document (`exec -p`).
pub fn parse_process(text: &[u8]) -> Result<Process> {
    parse(text, "process file")
}

fn parse<T: DeserializeOwned>(text: &[u8], what: &str) -> Result<T> {
    let parsed = serde_json::from_slice(text).map_err(|e| Error::invalid(format!("{what}: {}", located(text, &e))))?;
    refuse_nul(text, what)?;
    Ok(parsed)
}

/// What the parser found wrong with `text`, behind the JSON path of the place: one line.
pub(crate) fn located(text: &[u8], e: &serde_json::Error) -> String {
    let lines_before = text.split_inclusive(|b| *b == b'\n').take(e.line().saturating_sub(1));
    let at = lines_before.map(<[u8]>::len).sum::<usize>() + e.column();
    let path = path_to(&text[..at.min(text.len())]);
    if path.is_empty() { one_line(e) } else { format!("{}: {}", one_line(&path), one_line(e)) }
}

/// The JSON path of the value that ends, or has come so far, where `text` ends. The parser tells the place alone; to have it keep the
/// path while it reads would make it twice as large.
fn path_to(text: &[u8]) -> String {
    enum Level {
        /// Its present key as it is written; None: it comes next.
        Object(Option<String>),
        Array(usize),
    }
    let mut levels: Vec<Level> = Vec::new();
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, levels.last_mut()) {
            (b'"', level) => {
                let word;
                (word, rest) = string(rest);
                if let Some(Level::Object(key @ None)) = level {
                    *key = Some(String::from_utf8_lossy(word).into_owned());
                }
            }
            (b'{', _) => levels.push(Level::Object(None)),
            (b'[', _) => levels.push(Level::Array(0)),
            (b'}' | b']', _) => drop(levels.pop()),
            (b',', Some(Level::Object(key))) => *key = None,
            (b',', Some(Level::Array(index))) => *index += 1,
            _ => {}
        }
    }
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Object(None) => {}
            Level::Object(Some(key)) if path.is_empty() => path = key,
            Level::Object(Some(key)) => path = format!("{path}.{key}"),
            Level::Array(index) => path = format!("{path}[{index}]"),
        }
    }
    path
}

/// What a string holds whose first quotation mark has been read, and what follows it.
fn string(text: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or((text, &[]), |end| (&text[..end], &text[end + 1..]))
}

/// No name, path or argument of Linux can hold a NUL byte: what comes after it would be cut off somewhere on the way.
fn refuse_nul(text: &[u8], what: &str) -> Result<()> {
    // JSON can write it in no other way.
    if !text.windows(6).any(|w| w == br"\u0000") {
        return Ok(());
    }
    let value = serde_json::from_slice(text).map_err(|e| Error::invalid(format!("{what}: {}", one_line(&e))))?;
    match nul(&value) {
        Some((path, found)) => Err(Error::invalid(format!("{what}: {}: {found:?}: must not hold a NUL byte", one_line(&path)))),
        None => Ok(()),
    }
}

/// The JSON path of the first text with a NUL byte, and the text.
fn nul(value: &Value) -> Option<(String, &str)> {
    let below = |name: String, value| {
        let (rest, found) = nul(value)?;
        let dot = if rest.is_empty() || rest.starts_with('[') { "" } else { "." };
        Some((format!("{name}{dot}{rest}"), found))
    };
    match value {
        Value::String(text) => text.contains('\0').then(|| (String::new(), text.as_str())),
        Value::Array(list) => list.iter().enumerate().find_map(|(n, value)| below(format!("[{n}]"), value)),
        Value::Object(map) => {
            let named = |(key, value): (&'_ String, _)| below(key.clone(), value);
            map.iter().find_map(|(key, value)| if key.contains('\0') { Some((key.clone(), key.as_str())) } else { named((key, value)) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent() {
        let spec =
            parse_spec(br#"{"ociVersion":"1.0.2","mounts":null,"hooks":null,"linux":null,"process":{"args":["a"],"env":null}}"#).unwrap();
        assert!(spec.mounts.is_empty());
        assert_eq!(spec.process.unwrap().args, ["a"]);
    }

    #[test]
    fn a_wrong_type_is_told_with_its_path() {
        let e = parse_spec(br#"{"linux":{"namespaces":[{"type":"pid"},{"type":5}]}}"#).unwrap_err().to_string();
        assert!(e.starts_with("config.json: linux.namespaces[1].type: invalid type: integer `5`, expected a string"), "{e}");
    }

    #[test]
    fn the_path_is_that_of_the_value_whatever_lies_before_it() {
        for (json, told) in [
            (r#"{"hooks": {"prestart": []}, "process": 7}"#, "config.json: process: invalid type"),
            (
                "{\n \"linux\": {\"uidMappings\": [{}, {\"size\": 1},\n {\"size\": -1}]}}",
                "config.json: linux.uidMappings[2].size: invalid value",
            ),
            (r#"{"annotations": {"a\"]}": "[{,", "b": []}}"#, "config.json: annotations.b: invalid type"),
            (r#"{"root": {"path": {}}}"#, "config.json: root.path: invalid type: map"),
            (r#"{"mounts": [{"options": ["a", "b", 3]}]}"#, "config.json: mounts[0].options[2]: invalid type"),
            (r#"{"linux": {"memoryPolicy": {"mode": "#, "config.json: linux.memoryPolicy.mode: EOF"),
            ("[", "config.json: "),
        ] {
            let e = parse_spec(json.as_bytes()).unwrap_err().to_string();
            assert!(e.starts_with(told), "{json}: {e}");
        }
    }

    #[test]
    fn unknown_keys_and_names_do_not_fail_the_parser() {
        let spec = parse_spec(
            br#"{"x-new":1,"process":{"capabilities":{"bounding":["CAP_FUTURE"]},"rlimits":[{"type":"RLIMIT_FUTURE","soft":1,"hard":1}]}}"#,
        )
        .unwrap();
        assert_eq!(spec.process.unwrap().capabilities.unwrap().bounding, ["CAP_FUTURE"]);
    }

    #[test]
    fn a_nul_byte_is_refused_wherever_it_is() {
        let told = |json: &str| parse_spec(json.as_bytes()).unwrap_err().to_string();
        assert_eq!(told(r#"{"hostname":"a\u0000b"}"#), r#"config.json: hostname: "a\0b": must not hold a NUL byte"#);
        let nested = r#"{"hooks":{"poststop":[{"path":"/x"},{"path":"/x","args":["a","\u0000"]}]}}"#;
        assert_eq!(told(nested), r#"config.json: hooks.poststop[1].args[1]: "\0": must not hold a NUL byte"#);
        assert!(told(r#"{"linux":{"sysctl":{"net.\u0000":"1"}}}"#).starts_with("config.json: linux.sysctl.net."));
        assert!(parse_spec(br#"{"hostname":"\\u0000"}"#).is_ok(), "a backslash and five characters");
    }

    #[test]
    fn trailing_text_is_refused() {
        assert!(parse_spec(b"{} {}").is_err());
    }
}
