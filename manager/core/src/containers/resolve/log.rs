//! `--log-driver`, `--log-opt`.

use std::path::{Path, PathBuf};

use rcontainerd_types::{Error, Result};
use shim_logger::{Driver, LogUri};

use super::super::config::LogConfig;

/// How a container's output is kept.
#[derive(Clone, Debug)]
pub struct LogPlan {
    driver: Driver,
    max_size: Option<u64>,
    max_file: Option<u32>,
}

impl LogPlan {
    /// # Errors
    /// `InvalidArgument` in Docker's words for an unknown driver or option.
    pub fn parse(config: &LogConfig) -> Result<Self> {
        let driver = match config.driver.as_str() {
            "" | "json-file" => Driver::JsonFile,
            "none" => Driver::None,
            other => return Err(Error::invalid(format!("logger: no log driver named '{other}' is registered: use json-file or none"))),
        };
        let mut plan = Self { driver, max_size: None, max_file: None };
        for (key, value) in &config.options {
            let invalid = || Error::invalid(format!("invalid value {value:?} for log opt '{key}'"));
            match key.as_str() {
                "max-size" => plan.max_size = Some(parse_size(value).ok_or_else(invalid)?),
                "max-file" => plan.max_file = Some(value.parse().ok().filter(|count| *count > 0).ok_or_else(invalid)?),
                _ => return Err(Error::invalid(format!("unknown log opt '{key}' for json-file log driver"))),
            }
        }
        Ok(plan)
    }

    pub fn keeps(&self) -> bool {
        self.driver == Driver::JsonFile
    }

    pub fn uri(&self, path: &Path, attach: PathBuf) -> LogUri {
        let mut uri = LogUri::json_file(path, Some(attach));
        uri.driver = self.driver;
        uri.max_size = self.max_size.unwrap_or(uri.max_size);
        uri.max_file = self.max_file.unwrap_or(uri.max_file);
        uri
    }
}

/// `10m`, `512k`, `1g`, bytes; `-1`: no limit.
fn parse_size(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(0);
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, shift) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(number) => (
            number,
            match lower.as_bytes().last() {
                Some(b'k') => 10,
                Some(b'm') => 20,
                _ => 30,
            },
        ),
        None => (lower, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
