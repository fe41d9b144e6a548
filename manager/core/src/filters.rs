//! Docker's `filters` parameter: key → accepted values.

use std::collections::BTreeMap;

use rcontainerd_types::{Error, Result};

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
