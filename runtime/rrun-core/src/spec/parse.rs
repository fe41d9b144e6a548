use serde::de::DeserializeOwned;

use super::{Process, Spec};
use crate::{Error, Result};

/// Parses config.json. The error names the JSON path of what is wrong.
pub fn parse_spec(text: &[u8]) -> Result<Spec> {
    parse(text, "config.json")
}

/// Parses a process document (`exec -p`).
pub fn parse_process(text: &[u8]) -> Result<Process> {
    parse(text, "process file")
}

fn parse<T: DeserializeOwned>(text: &[u8], what: &str) -> Result<T> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let cause = e.into_inner();
        if path == "." { Error::invalid(format!("{what}: {cause}")) } else { Error::invalid(format!("{what}: {path}: {cause}")) }
    })?;
    json.end().map_err(|e| Error::invalid(format!("{what}: {e}")))?;
    Ok(parsed)
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
    fn unknown_keys_and_names_do_not_fail_the_parser() {
        let spec = parse_spec(
            br#"{"x-new":1,"process":{"capabilities":{"bounding":["CAP_FUTURE"]},"rlimits":[{"type":"RLIMIT_FUTURE","soft":1,"hard":1}]}}"#,
        )
        .unwrap();
        assert_eq!(spec.process.unwrap().capabilities.unwrap().bounding, ["CAP_FUTURE"]);
    }

    #[test]
    fn trailing_text_is_refused() {
        assert!(parse_spec(b"{} {}").is_err());
    }
}
