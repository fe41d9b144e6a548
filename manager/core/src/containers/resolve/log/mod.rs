//! `--log-driver`, `--log-opt`.

mod fields;
mod services;

use std::path::{Path, PathBuf};

use rcontainerd_types::{Error, Result};
use regex::Regex;
use shim_logger::forward::ForwardTo;
use shim_logger::{Driver as Files, LogUri};

use super::super::config::LogConfig;
use super::super::model::Container;
use fields::Attributes;
use services::{Journald, SyslogPlan};

/// The drivers, as `docker info` lists them.
pub const DRIVERS: [&str; 5] = ["journald", "json-file", "local", "none", "syslog"];

/// What Docker's `local` driver keeps, and the copy that it keeps of what goes to a service.
const LOCAL: (u64, u32) = (20 << 20, 5);

/// Bytes that wait for a service in non-blocking mode, unless said otherwise.
const BUFFER: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Driver {
    JsonFile,
    /// The same, compressed and without attributes.
    Local,
    Journald,
    Syslog,
    None,
}

impl Driver {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "" | "json-file" => Self::JsonFile,
            "local" => Self::Local,
            "journald" => Self::Journald,
            "syslog" => Self::Syslog,
            "none" => Self::None,
            other => return Err(Error::invalid(format!("logger: no log driver named '{other}' is registered"))),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::Local => "local",
            Self::Journald => "journald",
            Self::Syslog => "syslog",
            Self::None => "none",
        }
    }

    fn is_service(&self) -> bool {
        matches!(self, Self::Journald | Self::Syslog)
    }
}

/// How a container's output is kept.
#[derive(Clone, Debug)]
pub struct LogPlan {
    driver: Driver,
    /// Whether there are files: a service's are a copy for `logs`.
    keeps: bool,
    max_size: u64,
    max_file: u32,
    compress: bool,
    /// Of `mode`: whether the container never waits for a service. It never does for files: what cannot be written is dropped, and told.
    never_waits: bool,
    buffer: Option<u64>,
    attributes: Attributes,
    syslog: SyslogPlan,
}

impl LogPlan {
    /// # Errors
    /// `InvalidArgument` in Docker's words for an unknown driver or option.
    pub fn parse(config: &LogConfig) -> Result<Self> {
        let driver = Driver::parse(&config.driver)?;
        let defaults = LogUri::json_file("/", None);
        let (max_size, max_file) = if driver == Driver::JsonFile { (defaults.max_size, defaults.max_file) } else { LOCAL };
        let mut plan = Self {
            keeps: driver != Driver::None,
            compress: driver != Driver::JsonFile,
            driver,
            max_size,
            max_file,
            never_waits: false,
            buffer: None,
            attributes: Attributes::default(),
            syslog: SyslogPlan::default(),
        };
        // Nothing is logged, so that nothing of it can be set: dockerd does not look at the options, either.
        if plan.driver != Driver::None {
            for (key, value) in &config.options {
                plan.set(key, value)?;
            }
            plan.judge(config)?;
        }
        Ok(plan)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let invalid = || Error::invalid(format!("invalid value {value:?} for log opt '{key}'"));
        let truth = || value.parse::<bool>().map_err(|_| invalid());
        let (files, service) = (matches!(self.driver, Driver::JsonFile | Driver::Local), self.driver.is_service());
        let (attributes, tagged) = (matches!(self.driver, Driver::JsonFile | Driver::Journald), self.driver == Driver::Syslog);
        match key {
            "max-size" if files => self.max_size = parse_size(value).ok_or_else(invalid)?,
            "max-file" if files => self.max_file = parse_count(value).ok_or_else(invalid)?,
            "compress" if files => self.compress = truth()?,
            // Of the copy, in Docker's names.
            "cache-disabled" if service => self.keeps = !truth()?,
            "cache-max-size" if service => self.max_size = parse_size(value).ok_or_else(invalid)?,
            "cache-max-file" if service => self.max_file = parse_count(value).ok_or_else(invalid)?,
            "cache-compress" if service => self.compress = truth()?,
            "labels" if attributes => self.attributes.labels.list(value),
            "labels-regex" if attributes => self.attributes.labels.pattern = Some(Regex::new(value).map_err(|_| invalid())?),
            "env" if attributes => self.attributes.variables.list(value),
            "env-regex" if attributes => self.attributes.variables.pattern = Some(Regex::new(value).map_err(|_| invalid())?),
            "tag" if attributes || tagged => self.attributes.set_tag(value)?,
            "syslog-address" if tagged => self.syslog.set_address(value)?,
            "syslog-facility" if tagged => self.syslog.set_facility(value)?,
            "syslog-format" if tagged => self.syslog.set_format(value)?,
            "mode" => {
                self.never_waits = match value {
                    "blocking" => false,
                    "non-blocking" => true,
                    _ => return Err(Error::invalid(format!("logger: logging mode not supported: {value}"))),
                }
            }
            "max-buffer-size" => self.buffer = Some(parse_size(value).filter(|size| *size > 0).ok_or_else(invalid)?),
            _ => return Err(Error::invalid(format!("unknown log opt '{key}' for {} log driver", self.driver.name()))),
        }
        Ok(())
    }

    /// What only the options together tell.
    fn judge(&self, config: &LogConfig) -> Result<()> {
        if self.buffer.is_some() && !self.never_waits {
            return Err(Error::invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'"));
        }
        let key = if self.driver.is_service() { "cache-compress" } else { "compress" };
        if config.options.contains_key(key) && self.compress && (self.max_file < 2 || self.max_size == 0) {
            return Err(Error::invalid(format!("{key} cannot be true when max-file is less than 2 or max-size is not set")));
        }
        Ok(())
    }

    /// Whether there are files to read.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// Whether other programs may read them: `inspect` tells where they are.
    pub fn shows_its_path(&self) -> bool {
        self.driver == Driver::JsonFile
    }

    /// Where the shim is to write. Asks for the addresses of a service that has a name.
    ///
    /// # Errors
    /// `InvalidArgument` for a tag that cannot be filled or a service whose name has no address.
    pub async fn uri(&self, container: &Container, path: &Path, attach: PathBuf) -> Result<LogUri> {
        let mut uri = LogUri::json_file(path, Some(attach));
        uri.driver = if self.keeps { Files::JsonFile } else { Files::None };
        (uri.max_size, uri.max_file, uri.compress) = (self.max_size, self.max_file, self.compress && self.keeps);
        let tag = self.attributes.tag(container)?;
        let service = match self.driver {
            Driver::Journald => Some(Journald::service(container, self.attributes.chosen(container), tag)),
            Driver::Syslog => Some(self.syslog.service(container, tag).await?),
            Driver::JsonFile => {
                let mut attributes = self.attributes.chosen(container);
                attributes.extend(tag.map(|tag| ("tag".to_owned(), tag)));
                if !attributes.is_empty() {
                    let text = serde_json::to_string(&attributes);
                    uri.attributes = text.map_err(|err| Error::internal(format!("write the log's attributes: {err}")))?;
                }
                None
            }
            Driver::Local | Driver::None => None,
        };
        let drop_beyond = self.never_waits.then(|| usize::try_from(self.buffer.unwrap_or(BUFFER)).unwrap_or(usize::MAX));
        uri.forward = service.map(|service| ForwardTo { service, drop_beyond });
        Ok(uri)
    }
}

fn parse_count(text: &str) -> Option<u32> {
    text.parse().ok().filter(|count| *count > 0)
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
