//! Times on the wire.

use jiff::{SignedDuration, Timestamp};

use super::error::ApiError;
use super::query::Query;

/// What Go prints for the zero time.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with up to nine digits of fraction, trailing zeros left out, as Go's `RFC3339Nano`.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time.to_string()
}

/// As [`rfc3339`]; [`NEVER`] for `None`.
pub(crate) fn rfc3339_or_never(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), rfc3339)
}

/// RFC 3339 with always nine digits, as log lines are stamped.
pub(crate) fn rfc3339_fixed(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// RFC 3339 in whole seconds.
pub(crate) fn rfc3339_seconds(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// A point in time as filters give it: seconds since the epoch, RFC 3339, or how long before `now` (`10m`, `1h30m`).
pub(crate) fn point(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(time) = parse(text) {
        return Some(time);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let ago: SignedDuration = text.parse().ok()?;
    now.checked_sub(ago).ok()
}

/// `since` and `until`: `seconds[.nanoseconds]` since the epoch; `None` if missing, empty or 0.
///
/// # Errors
/// 400 naming the parameter and its value.
pub(crate) fn parameter(query: &Query, key: &str) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = query.text(key).filter(|text| *text != "0") else {
        return Ok(None);
    };
    match parse(text) {
        Some(time) => Ok(Some(time)),
        None => Err(ApiError::bad_request(format!("invalid value for \"{key}\": \"{text}\" is not a time in seconds since the epoch"))),
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    let whole = SignedDuration::from_secs(seconds.parse().ok()?);
    Timestamp::from_duration(whole.checked_add(SignedDuration::from_nanos(i64::from(nanoseconds)))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_go_prints_them() {
        let time = Timestamp::new(1_795_234_277, 966_270_000).expect("a time");
        assert_eq!(rfc3339(time), "2026-11-21T04:11:17.96627Z");
        assert_eq!(rfc3339_fixed(time), "2026-11-21T04:11:17.966270000Z");
        let whole = Timestamp::from_second(1_795_234_277).expect("a time");
        assert_eq!(rfc3339(whole), "2026-11-21T04:11:17Z");
        assert_eq!(rfc3339_fixed(whole), "2026-11-21T04:11:17.000000000Z");
        assert_eq!(rfc3339_or_never(None), NEVER);
    }

    #[test]
    fn points_in_time_may_be_relative() {
        let now = Timestamp::from_second(1_000_000).expect("a time");
        assert_eq!(point("10m", now), Timestamp::from_second(999_400).ok());
        assert_eq!(point("1h30m", now), Timestamp::from_second(994_600).ok());
        assert_eq!(point("5", now), Timestamp::from_second(5).ok());
        assert_eq!(point("1970-01-01T00:00:07Z", now), Timestamp::from_second(7).ok());
        assert_eq!(point("soon", now), None);
    }

    #[test]
    fn parameters_are_seconds_with_a_fraction() {
        let read = |text: &str| parameter(&Query::parse(&format!("since={text}")).expect("a query"), "since");
        assert_eq!(read("1795234277.000000005").expect("good"), Some(Timestamp::new(1_795_234_277, 5).expect("a time")));
        assert_eq!(read("1795234277").expect("good"), Some(Timestamp::from_second(1_795_234_277).expect("a time")));
        assert_eq!(read("1.5").expect("good"), Some(Timestamp::new(1, 500_000_000).expect("a time")));
        assert_eq!(read("").expect("empty"), None);
        assert_eq!(read("0").expect("zero"), None);
        for bad in ["now", "1.x", "2026-01-01", "1.0000000001", "99999999999999999999"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
