//! Sizes and times in the words docker has for them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// Go's `%.{precision}g`.
fn general(value: f64, precision: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{:.*e}", precision.saturating_sub(1), value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = i32::try_from(precision).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= digits {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim_zeros(mantissa), exponent.abs());
    }
    let decimals = usize::try_from(digits - 1 - exponent).unwrap_or(0);
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn scaled(size: f64, base: f64, units: &[&'static str]) -> (f64, &'static str) {
    let mut value = size;
    let mut unit = 0;
    while value >= base && unit < units.len() - 1 {
        value /= base;
        unit += 1;
    }
    (value, units[unit])
}

#[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
pub fn human_size_with(size: i64, precision: usize) -> String {
    let (value, unit) = scaled(size as f64, 1000.0, &DECIMAL);
    format!("{}{unit}", general(value, precision))
}

/// `1.234MB`.
pub fn human_size(size: i64) -> String {
    human_size_with(size, 4)
}

/// `1.5GiB`.
pub fn bytes_size(size: f64) -> String {
    let (value, unit) = scaled(size, 1024.0, &BINARY);
    format!("{}{unit}", general(value, 4))
}

/// `About a minute`, `3 weeks`.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match seconds {
        s if s < 1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        s if s < 60 => format!("{s} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago a moment was.
pub fn ago(epoch_seconds: i64) -> String {
    format!("{} ago", human_duration(Timestamp::now().as_second() - epoch_seconds))
}

fn local_zone() -> TimeZone {
    TimeZone::system()
}

/// Go's default print of a local time: `2026-11-21 04:03:08 +0000 UTC`.
pub fn local_time(epoch_seconds: i64) -> String {
    let Ok(stamp) = Timestamp::from_second(epoch_seconds) else { return String::new() };
    stamp.to_zoned(local_zone()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// `2026-11-21T04:03:08Z` in local time.
pub fn local_rfc3339(epoch_seconds: i64) -> String {
    let Ok(stamp) = Timestamp::from_second(epoch_seconds) else { return String::new() };
    rfc3339(stamp, false)
}

/// With nine decimals, as events show times.
pub fn local_rfc3339_nano(epoch_nanos: i64) -> String {
    let Ok(stamp) = Timestamp::from_nanosecond(i128::from(epoch_nanos)) else { return String::new() };
    rfc3339(stamp, true)
}

fn rfc3339(stamp: Timestamp, nanos: bool) -> String {
    let zoned = stamp.to_zoned(local_zone());
    let format = if nanos { "%Y-%m-%dT%H:%M:%S.%9f" } else { "%Y-%m-%dT%H:%M:%S" };
    let zone = if zoned.offset().is_zero() { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    format!("{}{zone}", zoned.strftime(format))
}

/// `--since` and `--until`: a time, a number of seconds, or how long ago (`42m`), as `seconds.nanos`.
///
/// # Errors
/// When the text is none of these.
pub fn timestamp(text: &str) -> Result<String, String> {
    use crate::cmdline::check::parse_duration;
    if text.is_empty() {
        return Ok(String::new());
    }
    // As docker has it: the start of all time, not no time ago.
    if let Some(nanos) = parse_duration(text).ok().filter(|_| text != "0") {
        let then = Timestamp::now().as_nanosecond() - i128::from(nanos);
        return Ok(format!("{}.{:09}", then.div_euclid(1_000_000_000), then.rem_euclid(1_000_000_000)));
    }
    if text.parse::<f64>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Ok(seconds_nanos(stamp));
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H"] {
        if let Ok(civil) = jiff::civil::DateTime::strptime(format, text.trim_end_matches('Z')) {
            return at_zone(civil, text.ends_with('Z'), text);
        }
    }
    match jiff::civil::Date::strptime("%Y-%m-%d", text) {
        Ok(date) => at_zone(date.at(0, 0, 0, 0), false, text),
        Err(_) => Err(format!("failed to parse value as time or duration: {text:?}")),
    }
}

fn at_zone(civil: jiff::civil::DateTime, utc: bool, text: &str) -> Result<String, String> {
    let zone = if utc { TimeZone::UTC } else { local_zone() };
    let zoned = civil.to_zoned(zone).map_err(|err| format!("failed to parse value as time or duration: {text:?}: {err}"))?;
    Ok(seconds_nanos(zoned.timestamp()))
}

fn seconds_nanos(stamp: Timestamp) -> String {
    let nanos = stamp.as_nanosecond();
    format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
}

/// Cuts to `width` characters, the last being `…`, as docker does with long cells.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    if width <= 1 { kept } else { format!("{kept}…") }
}

/// An id without its algorithm and cut to twelve digits.
pub fn short_id(id: &str) -> String {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (size, text) in [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.235MB"), (2_100_000_000, "2.1GB")] {
            assert_eq!(human_size(size), text);
        }
        assert_eq!(human_size_with(4_260_000, 3), "4.26MB");
        assert_eq!(human_size_with(999_900, 3), "1e+03kB");
        assert_eq!(bytes_size(1024.0 * 1.5), "1.5KiB");
    }

    #[test]
    fn ages_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (3600 * 47, "47 hours"),
            (3600 * 48, "2 days"),
            (86400 * 14, "2 weeks"),
            (86400 * 60, "2 months"),
            (86400 * 365 * 3, "3 years"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn moments() {
        assert_eq!(timestamp("1700000000"), Ok("1700000000".into()));
        assert_eq!(timestamp("0"), Ok("0".into()));
        assert_eq!(timestamp("2013-01-02T13:23:37Z"), Ok("1357133017.000000000".into()));
        assert_eq!(timestamp("2013-01-02T13:23:37.5Z"), Ok("1357133017.500000000".into()));
        assert!(timestamp("10m").is_ok());
        assert!(timestamp("yesterday").is_err());
    }

    #[test]
    fn long_cells_are_cut() {
        assert_eq!(ellipsis("\"sleep 100000000000000\"", 20), "\"sleep 100000000000…");
        assert_eq!(ellipsis("short", 20), "short");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
