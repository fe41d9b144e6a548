//! The `filters` parameter: JSON, either `{"key": ["value"]}` or the older `{"key": {"value": true}}`.

use std::collections::BTreeMap;

use rcontainerd_core::filters::Filters;
use serde_json::Value;

use super::error::ApiError;
use super::query::Query;

/// Reads `filters` of a query; missing and empty mean none.
///
/// # Errors
/// 400 for what is neither of the two forms.
pub(crate) fn parse(query: &Query) -> Result<Filters, ApiError> {
    let Some(text) = query.text("filters") else {
        return Ok(Filters::default());
    };
    let refuse = || ApiError::bad_request(format!("invalid filter: {text} is neither a JSON map of lists nor a map of maps"));
    let parsed: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| refuse())?;
    let mut filters = BTreeMap::new();
    for (key, value) in parsed {
        let values = values(&value).ok_or_else(refuse)?;
        if !values.is_empty() {
            filters.insert(key, values);
        }
    }
    Ok(Filters(filters))
}

fn values(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(list) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Value::Object(map) => map
            .iter()
            .filter_map(|(name, on)| match on {
                Value::Bool(true) => Some(Some(name.clone())),
                Value::Bool(false) => None,
                _ => Some(None),
            })
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(filters: &str) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
        parse(&Query::parse(&format!("filters={filters}")).expect("a query")).map(|filters| filters.0)
    }

    #[test]
    fn both_forms_mean_the_same() {
        let expected = BTreeMap::from([("status".to_owned(), vec!["exited".to_owned()])]);
        assert_eq!(read(r#"{"status":["exited"]}"#).expect("lists"), expected);
        assert_eq!(read(r#"{"status":{"exited":true,"paused":false}}"#).expect("maps"), expected);
        assert!(read("").expect("empty").is_empty());
        assert!(read("{}").expect("none").is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["x", "[]", r#"{"a":1}"#, r#"{"a":[1]}"#, r#"{"a":{"b":2}}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
