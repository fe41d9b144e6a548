//! Limits: `--ulimit`, `--device-read-bps` and their kin, and the flags shared with `update`.

use proto_docker::host_config::{RestartPolicy, ThrottleDevice, Ulimit, WeightDevice};

use crate::cmdline::check;

pub fn check_ulimit(text: &str) -> Result<(), String> {
    parse_ulimit(text).map(drop)
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `nofile=1024:2048`.
///
/// # Errors
/// In docker's words.
pub fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| check::parse_int(text).map_err(|why| format!("strconv.ParseInt: parsing {text:?}: {why}"));
    let (soft, hard) = match limits.split(':').collect::<Vec<_>>().as_slice() {
        [both] => (number(both)?, number(both)?),
        [soft, hard] => (number(soft)?, number(hard)?),
        _ => return Err(format!("too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")),
    };
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

fn device_value(text: &str) -> Result<(&str, &str), String> {
    let (path, value) = text.rsplit_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    if path.starts_with("/dev/") { Ok((path, value)) } else { Err(format!("bad format for device path: {text}")) }
}

pub fn throttle_bytes(text: &str) -> Result<(), String> {
    parse_throttle_bytes(text).map(drop)
}

/// `/dev/sda:1mb`.
///
/// # Errors
/// In docker's words.
pub fn parse_throttle_bytes(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_value(text)?;
    let rate = check::parse_bytes(value).ok().and_then(|rate| u64::try_from(rate).ok()).ok_or_else(|| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb")
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

pub fn throttle_count(text: &str) -> Result<(), String> {
    parse_throttle_count(text).map(drop)
}

/// `/dev/sda:1000`.
///
/// # Errors
/// In docker's words.
pub fn parse_throttle_count(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_value(text)?;
    let bad =
        || format!("invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer");
    Ok(ThrottleDevice { path: path.to_owned(), rate: value.parse().map_err(|_| bad())? })
}

pub fn weight_device(text: &str) -> Result<(), String> {
    parse_weight_device(text).map(drop)
}

/// `/dev/sda:500`.
///
/// # Errors
/// In docker's words.
pub fn parse_weight_device(text: &str) -> Result<WeightDevice, String> {
    let (path, value) = device_value(text)?;
    let weight = value.parse().ok().filter(|weight| *weight == 0 || (10..=1000).contains(weight));
    Ok(WeightDevice { path: path.to_owned(), weight: weight.ok_or_else(|| format!("invalid weight for device: {text}"))? })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:N]`.
///
/// # Errors
/// In docker's words.
pub fn parse_restart(text: &str) -> Result<RestartPolicy, String> {
    if text.is_empty() {
        return Ok(RestartPolicy::default());
    }
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    let maximum_retry_count = match count {
        "" => 0,
        count => count.parse().map_err(|_| "invalid restart policy format: maximum retry count must be an integer".to_owned())?,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert_eq!(parse_ulimit("nofile=1:2"), Ok(Ulimit { name: "nofile".into(), soft: 1, hard: 2 }));
        assert_eq!(parse_ulimit("x"), Err("invalid ulimit argument: x".into()));
        assert_eq!(parse_ulimit("x=1"), Err("invalid ulimit type: x".into()));
        assert!(parse_ulimit("nofile=3:2").is_err());
        assert_eq!(parse_throttle_bytes("/dev/vda:1mb"), Ok(ThrottleDevice { path: "/dev/vda".into(), rate: 1 << 20 }));
        assert!(parse_throttle_bytes("vda:1mb").is_err() && parse_throttle_count("/dev/vda:x").is_err());
        assert!(parse_weight_device("/dev/vda:5").is_err());
    }

    #[test]
    fn restart_policies() {
        assert_eq!(parse_restart("on-failure:3"), Ok(RestartPolicy { name: "on-failure".into(), maximum_retry_count: 3 }));
        assert!(parse_restart(":3").is_err() && parse_restart("on-failure:x").is_err());
    }
}
