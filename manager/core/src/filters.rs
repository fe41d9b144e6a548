//! Docker's `filters` parameter: key → accepted values.

use std::collections::BTreeMap;

use rcontainerd_types::{Error, Result};
use regex::{Regex, RegexBuilder};

/// Bytes that a compiled pattern may take.
const PATTERN_MAX: usize = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(pub BTreeMap<String, Vec<String>>);

impl Filters {
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    pub fn has(&self, key: &str) -> bool {
        !self.get(key).is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `key` is not asked for, or one of its values satisfies `test`.
    pub fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// Whether every value of `key` satisfies `test`.
    pub fn all(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        self.get(key).iter().all(|value| test(value))
    }

    /// Whether every asked label (`key` or `key=value`) is among `labels`.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let held = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        self.all("label", held) && self.all("label!", |wanted| !held(wanted))
    }

    /// The values of `key` as regular expressions.
    pub fn patterns(&self, key: &str) -> Patterns {
        let compiled = |text: &String| (text.clone(), RegexBuilder::new(text).size_limit(PATTERN_MAX).build().ok());
        Patterns(self.get(key).iter().map(compiled).collect())
    }

    /// Refuses values of `key` that it cannot have.
    ///
    /// # Errors
    /// `InvalidArgument` naming key and value.
    pub fn one_of(&self, key: &str, known: &[&str]) -> Result<()> {
        match self.get(key).iter().find(|value| !known.contains(&value.as_str())) {
            Some(bad) => Err(Error::invalid(format!("invalid filter '{key}={bad}'"))),
            None => Ok(()),
        }
    }

    /// The value of a yes/no key.
    ///
    /// # Errors
    /// `InvalidArgument` when the value is neither.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            [] => Ok(None),
            [value] => match value.as_str() {
                "1" | "true" | "True" | "TRUE" | "t" => Ok(Some(true)),
                "0" | "false" | "False" | "FALSE" | "f" => Ok(Some(false)),
                other => Err(Error::invalid(format!("invalid filter '{key}={other}'"))),
            },
            many => Err(Error::invalid(format!("invalid filter '{key}={many:?}': expected one value"))),
        }
    }

    /// `until`: a date, seconds since the epoch, or a duration back from now (`24h`, `10m30s`).
    ///
    /// # Errors
    /// `InvalidArgument` for anything else.
    pub fn until(&self) -> Result<Option<jiff::Timestamp>> {
        self.get("until").first().map(|text| until(text)).transpose()
    }

    /// Refuses keys that the list does not know, as Docker does.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn accept(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Error::invalid(format!("invalid filter '{key}'"))),
            None => Ok(()),
        }
    }
}

/// What a name may be: regular expressions, found anywhere in it; what is none is taken literally.
pub struct Patterns(Vec<(String, Option<Regex>)>);

impl Patterns {
    /// Whether there are none, or one of them is found in `name`.
    pub fn hold(&self, name: &str) -> bool {
        let found =
            |(text, pattern): &(String, Option<Regex>)| text == name || pattern.as_ref().is_some_and(|pattern| pattern.is_match(name));
        self.0.is_empty() || self.0.iter().any(found)
    }
}

fn until(text: &str) -> Result<jiff::Timestamp> {
    let invalid = || Error::invalid(format!("invalid filter 'until={text}'"));
    if let Ok(seconds) = text.parse::<i64>() {
        return jiff::Timestamp::from_second(seconds).map_err(|_| invalid());
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    let span: jiff::SignedDuration = text.parse().map_err(|_| invalid())?;
    jiff::Timestamp::now().checked_sub(span).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_regular_expressions() {
        let held = |pattern: &str| {
            let filters = Filters(BTreeMap::from([("name".to_owned(), vec![pattern.to_owned()])]));
            let patterns = filters.patterns("name");
            ["web", "web2", "my-web"].into_iter().filter(|name| patterns.hold(name)).collect::<Vec<_>>()
        };
        assert_eq!(held("web"), ["web", "web2", "my-web"]);
        assert_eq!(held("^web$"), ["web"]);
        assert_eq!(held("web[12]"), ["web2"]);
        assert_eq!(held("^(web|my-.*)$"), ["web", "my-web"]);
        assert_eq!(held("["), [""; 0], "no regular expression, and no name");
        assert!(Filters::default().patterns("name").hold("web"), "not asked for");
    }
}
