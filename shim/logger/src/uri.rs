//! `rrun-log://<absolute path>?driver=…&max-size=…&max-file=…&compress=…&attributes=…&forward=…&attach=…`: where a container's output goes.
//!
//! The manager formats it into the task's stdout and stderr; the shim parses it. Values are percent-encoded.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::forward::ForwardTo;

pub const SCHEME: &str = "rrun-log";

/// Size in bytes at which a log file is rotated, where nothing else is asked.
pub const DEFAULT_MAX_SIZE: u64 = 10 * 1024 * 1024;
/// Number of files kept (the live one included), where nothing else is asked.
pub const DEFAULT_MAX_FILE: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Docker's JSON-file format.
    JsonFile,
    /// Writes no file; attached clients still get the output.
    None,
}

impl Driver {
    fn name(self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::None => "none",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogUri {
    /// Absolute path of the live log file (`…-json.log`); rotated ones are `<path>.1`, `<path>.2`, ….
    pub path: PathBuf,
    pub driver: Driver,
    /// Bytes; 0 never rotates.
    pub max_size: u64,
    /// At least 1.
    pub max_file: u32,
    /// Whether rotated files are compressed, to `<path>.1.gz`, ….
    pub compress: bool,
    /// A service of the host that gets the output, too.
    pub forward: Option<ForwardTo>,
    /// What each record carries besides (Docker's `attrs`): a JSON object on one line, or nothing.
    pub attributes: String,
    /// Absolute path of the socket on which the shim serves attached clients; `None` serves none.
    pub attach: Option<PathBuf>,
}

/// Why a URI was refused: one line naming the URI.
#[derive(Debug, thiserror::Error)]
#[error("log URI {uri:?} is invalid: {why}")]
pub struct UriError {
    uri: String,
    why: String,
}

impl LogUri {
    /// The default driver with default rotation.
    pub fn json_file(path: impl Into<PathBuf>, attach: Option<PathBuf>) -> Self {
        let (max_size, max_file) = (DEFAULT_MAX_SIZE, DEFAULT_MAX_FILE);
        let (driver, path, attributes) = (Driver::JsonFile, path.into(), String::new());
        Self { path, driver, max_size, max_file, compress: false, forward: None, attributes, attach }
    }

    /// Reads the form that [`fmt::Display`] writes.
    ///
    /// # Errors
    /// When the scheme, a key or a value is not one of ours: a key that is not understood is never ignored.
    pub fn parse(uri: &str) -> Result<Self, UriError> {
        Self::parse_inner(uri).map_err(|why| UriError { uri: uri.to_owned(), why })
    }

    fn parse_inner(uri: &str) -> Result<Self, String> {
        let rest = uri.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix("://")).ok_or("expected rrun-log://")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parsed = Self::json_file(absolute(path)?, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} has no value"))?;
            parsed.set(key, value)?;
        }
        Ok(parsed)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|err| format!("{key}={value}: {err}"));
        match key {
            "driver" => {
                self.driver = match value {
                    "json-file" => Driver::JsonFile,
                    "none" => Driver::None,
                    _ => return Err(format!("unknown driver {value:?}, expected json-file or none")),
                }
            }
            "max-size" => self.max_size = number()?,
            "max-file" => {
                self.max_file = u32::try_from(number()?).ok().filter(|&n| n >= 1).ok_or("max-file must be at least 1")?;
            }
            "compress" => self.compress = value.parse().map_err(|err| format!("compress={value}: {err}"))?,
            "forward" => {
                self.forward = Some(serde_json::from_slice(&decode(value)?).map_err(|err| format!("forward is not understood: {err}"))?);
            }
            "attributes" => self.attributes = object(value)?,
            "attach" => self.attach = Some(absolute(value)?),
            _ => return Err(format!("unknown key {key:?}")),
        }
        Ok(())
    }
}

impl fmt::Display for LogUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (driver, path) = (self.driver.name(), encode(self.path.as_os_str().as_bytes()));
        write!(f, "{SCHEME}://{path}?driver={driver}&max-size={}&max-file={}", self.max_size, self.max_file)?;
        if self.compress {
            write!(f, "&compress=true")?;
        }
        if let Some(forward) = &self.forward {
            let text = serde_json::to_string(forward).map_err(|_| fmt::Error)?;
            write!(f, "&forward={}", encode(text.as_bytes()))?;
        }
        if !self.attributes.is_empty() {
            write!(f, "&attributes={}", encode(self.attributes.as_bytes()))?;
        }
        match &self.attach {
            Some(attach) => write!(f, "&attach={}", encode(attach.as_os_str().as_bytes())),
            None => Ok(()),
        }
    }
}

fn absolute(encoded: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(OsStr::from_bytes(&decode(encoded)?));
    if path.is_absolute() { Ok(path) } else { Err(format!("path {} is not absolute", path.display())) }
}

/// Names and texts, written as they were given.
fn object(encoded: &str) -> Result<String, String> {
    let wrong = |why: String| format!("attributes are no object of texts: {why}");
    let object: std::collections::BTreeMap<String, String> =
        serde_json::from_slice(&decode(encoded)?).map_err(|err| wrong(err.to_string()))?;
    serde_json::to_string(&object).map_err(|err| wrong(err.to_string()))
}

fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' | b':' | b'@' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let hex = text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            out.push(hex.ok_or_else(|| format!("bad percent escape in {text:?}"))?);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    if out.contains(&0) { Err("a path has a NUL byte".to_owned()) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::{Address, Format, Service, Syslog};

    #[test]
    fn what_is_written_is_read_back() {
        let mut uri = LogUri::json_file("/var/lib/a b/%41&x=ü?-json.log", Some("/run/s/a&b.sock".into()));
        uri.max_size = 77;
        uri.max_file = 1;
        uri.attributes = r#"{"a&b":"\n=ü","c":""}"#.to_owned();
        assert_eq!(LogUri::parse(&uri.to_string()).expect("own form"), uri);
        uri.attach = None;
        uri.driver = Driver::None;
        uri.compress = true;
        uri.forward = Some(ForwardTo {
            service: Service::Syslog(Syslog {
                address: Address::Tcp(vec!["127.0.0.1:514".parse().expect("an address")]),
                format: Format::Rfc5424,
                facility: 3,
                tag: "a&b=c".to_owned(),
                hostname: "here".to_owned(),
            }),
            drop_beyond: Some(9),
        });
        assert_eq!(LogUri::parse(&uri.to_string()).expect("own form"), uri);
    }

    #[test]
    fn unknown_or_malformed_is_refused() {
        for bad in [
            "file:///x",
            "rrun-log://relative",
            "rrun-log:///x?colour=red",
            "rrun-log:///x?max-file=0",
            "rrun-log:///x?max-size=-1",
            "rrun-log:///x?driver=journald",
            "rrun-log:///x?attach=rel",
            "rrun-log:///x?compress=yes",
            "rrun-log:///x?forward=%7B%7D",
            "rrun-log:///x?attributes=1",
            "rrun-log:///x?attributes=%7B%22a%22:1%7D",
            "rrun-log:///x%zz",
            "rrun-log:///x%00",
        ] {
            assert!(LogUri::parse(bad).is_err(), "{bad}");
        }
    }
}
