//! Query parameters, read as dockerd reads them.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::error::ApiError;

/// The parameters of a request, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: &str) -> Result<Self, ApiError> {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The first value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value of `key`, `None` also if empty.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// All values of `key`.
    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }

    /// Docker's rule: everything but the empty string, `0`, `no`, `false` and `none` is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let value = self.get(key).unwrap_or("").trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// As [`Self::flag`], with another value for a missing parameter.
    pub(crate) fn flag_or(&self, key: &str, missing: bool) -> bool {
        if self.get(key).is_none() { missing } else { self.flag(key) }
    }

    /// A number, `None` if missing or empty.
    ///
    /// # Errors
    /// 400 naming parameter and value.
    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        self.text(key)
            .map(|text| {
                text.parse().map_err(|_| ApiError::bad_request(format!("invalid value for \"{key}\": \"{text}\" is not a number in range")))
            })
            .transpose()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or(""))
    }
}

fn decode(text: &str) -> Result<String, ApiError> {
    percent_decode(&text.replace('+', " ")).ok_or_else(|| ApiError::bad_request(format!("malformed query parameter \"{text}\"")))
}

/// `%2F` → `/`; `None` if an escape is cut short or the result is no UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (high, low) = (hex(*tail.first()?)?, hex(*tail.get(1)?)?);
        bytes.push(high << 4 | low);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// As Go's `url.QueryEscape`.
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_follow_dockers_rule() {
        let query = Query::parse("a=1&b=0&c=False&d=&e&f=none&g=yes&h=no").expect("a query");
        let on: Vec<_> = "abcdefgh".chars().filter(|key| query.flag(&key.to_string())).collect();
        assert_eq!(on, ['a', 'g']);
        assert!(query.flag_or("missing", true) && !query.flag_or("b", true));
    }

    #[test]
    fn escapes_and_pluses_are_decoded() {
        let query = Query::parse("names=a%2Fb&names=c+d&t=%7B%22x%22%7D").expect("a query");
        assert_eq!(query.all("names"), ["a/b", "c d"]);
        assert_eq!(query.get("t"), Some("{\"x\"}"));
        assert!(Query::parse("x=%2").is_err());
        assert!(Query::parse("x=%ff").is_err());
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        let query = Query::parse("t=a&u=&n=-1").expect("a query");
        assert!(query.number::<i64>("t").is_err());
        assert_eq!(query.number::<i64>("u").expect("empty"), None);
        assert_eq!(query.number::<i64>("n").expect("a number"), Some(-1));
    }
}
