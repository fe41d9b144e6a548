//! Forms of flag values, with the words docker uses to refuse them.

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

pub fn bool(text: &str) -> Result<(), String> {
    match parse_bool(text) {
        Some(_) => Ok(()),
        None => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// `--disable-content-trust`: signatures in docker's old form are not looked at, so nobody may count on it.
pub fn untrusted(text: &str) -> Result<(), String> {
    if parse_bool(text) == Some(false) { Err("this engine does not verify signatures of images".to_owned()) } else { Ok(()) }
}

/// Go's `strconv.ParseInt(text, 0, 64)`: decimal, `0x`, `0o`, `0b` or a leading zero.
pub fn parse_int(text: &str) -> Result<i64, &'static str> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let clean = body.replace('_', "");
    if clean.is_empty() || !clean.chars().all(|c| c.is_digit(radix)) {
        return Err("invalid syntax");
    }
    let value = i128::from_str_radix(&clean, radix).map_err(|_| "value out of range")?;
    i64::try_from(if negative { -value } else { value }).map_err(|_| "value out of range")
}

pub fn int(text: &str) -> Result<(), String> {
    parse_int(text).map(drop).map_err(|why| format!("strconv.ParseInt: parsing {text:?}: {why}"))
}

pub fn uint16(text: &str) -> Result<(), String> {
    match parse_int(text) {
        Ok(value) if u16::try_from(value).is_ok() => Ok(()),
        Ok(_) => Err(format!("strconv.ParseUint: parsing {text:?}: value out of range")),
        Err(why) => Err(format!("strconv.ParseUint: parsing {text:?}: {why}")),
    }
}

/// A size such as `100m` or `1.5GiB`; units are powers of 1024.
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    scaled(text, 1024.0)
}

fn scaled(text: &str, base: f64) -> Result<i64, String> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let (number, suffix) = (&text[..end], text[end..].trim_start_matches(' '));
    let number = number.trim_end();
    if number.is_empty() {
        return Err(format!("invalid size: '{text}'"));
    }
    let value: f64 = number.parse().map_err(|_| format!("invalid size: '{text}'"))?;
    if value < 0.0 {
        return Err(format!("invalid size: '{text}'"));
    }
    let lower = suffix.to_ascii_lowercase();
    let power = match lower.trim_end_matches("ib").trim_end_matches('b') {
        "" if lower == "ib" => return Err(format!("invalid suffix: '{suffix}'")),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(format!("invalid suffix: '{suffix}'")),
    };
    #[expect(clippy::cast_possible_truncation, reason = "sizes beyond i64 saturate, as nothing can be that large")]
    let size = (value * base.powi(power)) as i64;
    Ok(size)
}

pub fn bytes(text: &str) -> Result<(), String> {
    parse_bytes(text).map(drop)
}

/// CPUs as billionths: `1.5` is 1 500 000 000.
pub fn parse_cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("failed to parse {text} as a rational number");
    if text.is_empty() || text.chars().any(|c| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | '/' | 'e' | 'E'))) {
        return Err(bad());
    }
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let value = numerator.parse::<f64>().map_err(|_| bad())? / denominator.parse::<f64>().map_err(|_| bad())?;
    let nano = value * 1e9;
    if !nano.is_finite() {
        return Err(bad());
    }
    if (nano - nano.round()).abs() > 1e-6 {
        return Err("value is too precise".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, reason = "a whole number of billionths, far below 2^63")]
    let whole = nano.round() as i64;
    Ok(whole)
}

pub fn cpus(text: &str) -> Result<(), String> {
    parse_cpus(text).map(drop)
}

/// Go's `time.ParseDuration`, in nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let bad = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let end =
            rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let value: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        rest = &rest[end..];
        total += value * unit;
    }
    #[expect(clippy::cast_possible_truncation, reason = "durations beyond 292 years saturate")]
    let nanos = (sign * total) as i64;
    Ok(nanos)
}

pub fn duration(text: &str) -> Result<(), String> {
    parse_duration(text).map(drop)
}

pub fn filter(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('=') { Ok(()) } else { Err("bad format of filter (expected name=value)".to_owned()) }
}

pub fn key_value(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(()),
        Some(_) => Err(format!("empty variable name: '{text}'")),
        None => Err(format!("bad format for attribute: {text}: expected key=value")),
    }
}

/// `-e NAME` or `-e NAME=value`.
pub fn env(text: &str) -> Result<(), String> {
    if text.split('=').next().unwrap_or_default().is_empty() {
        return Err(format!("invalid environment variable: {text}"));
    }
    Ok(())
}

pub fn label(text: &str) -> Result<(), String> {
    if text.split('=').next().unwrap_or_default().is_empty() { Err(format!("invalid label '{text}': empty name")) } else { Ok(()) }
}

pub fn stream(text: &str) -> Result<(), String> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// Docker's `--link` and `--volumes-from` take anything; an address must be one.
pub fn ip_address(text: &str) -> Result<(), String> {
    match text.trim().parse::<std::net::IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

/// `host:ip`, `host=ip`, or `host:host-gateway`.
pub fn extra_host(text: &str) -> Result<(), String> {
    let bad = || format!("bad format for add-host: {text:?}");
    let (name, ip) = match text.find(['=', ':']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => return Err(bad()),
    };
    if name.is_empty() {
        return Err(bad());
    }
    let bare = ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(ip);
    if bare == "host-gateway" || bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("invalid IP address in add-host: {ip:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("1", 1), ("100m", 100 << 20), ("1.5GiB", 3 << 29), ("64 kb", 65536), ("2G", 2 << 30), ("0", 0), ("-1", -1), ("1t", 1 << 40)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_bytes("10q"), Err("invalid suffix: 'q'".to_owned()));
        assert_eq!(parse_bytes("x"), Err("invalid size: 'x'".to_owned()));
        assert_eq!(parse_bytes("-5m"), Err("invalid size: '-5m'".to_owned()));
    }

    #[test]
    fn processors() {
        assert_eq!(parse_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_cpus(".5"), Ok(500_000_000));
        assert_eq!(parse_cpus("1/4"), Ok(250_000_000));
        assert_eq!(parse_cpus("abc"), Err("failed to parse abc as a rational number".to_owned()));
        assert_eq!(parse_cpus("0.0000000001"), Err("value is too precise".to_owned()));
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1h30m"), Ok(5400 * 1_000_000_000));
        assert_eq!(parse_duration("1.5s"), Ok(1_500_000_000));
        assert_eq!(parse_duration("-2ms"), Ok(-2_000_000));
        assert_eq!(parse_duration("0"), Ok(0));
        assert!(parse_duration("5").is_err());
        assert!(parse_duration("5x").is_err());
    }

    #[test]
    fn integers() {
        assert_eq!(parse_int("0x10"), Ok(16));
        assert_eq!(parse_int("010"), Ok(8));
        assert_eq!(parse_int("-7"), Ok(-7));
        assert_eq!(parse_int("9999999999999999999"), Err("value out of range"));
        assert_eq!(parse_int("1a"), Err("invalid syntax"));
    }

    #[test]
    fn hosts() {
        for good in ["a:1.2.3.4", "a=::1", "a:::1", "a:[::1]", "a:host-gateway"] {
            assert!(extra_host(good).is_ok(), "{good}");
        }
        for bad in ["a", ":1.2.3.4", "a:b"] {
            assert!(extra_host(bad).is_err(), "{bad}");
        }
    }
}
