//! syslog: its formats as docker writes them, and where its servers listen.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Zoned;
use serde::{Deserialize, Serialize};

use super::link::{self, Link};
use crate::record::Stream;

/// Where the C library's syslog(3) and its kin look for the host's own server.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    pub address: Address,
    pub format: Format,
    /// As in syslog.h, not shifted: 0 to 23.
    pub facility: u8,
    pub tag: String,
    pub hostname: String,
}

/// Of a name with several addresses, the first that answers is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Address {
    Local,
    Unix(PathBuf),
    Unixgram(PathBuf),
    Udp(Vec<SocketAddr>),
    Tcp(Vec<SocketAddr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Format {
    /// What syslog(3) writes: RFC 3164 without the host's name.
    Local,
    Rfc3164,
    Rfc5424,
    /// With microseconds.
    Rfc5424Micro,
}

impl Syslog {
    /// A message that ends with a newline, which parts those of a stream.
    pub fn message(&self, stream: Stream, piece: &[u8], time: SystemTime) -> Vec<u8> {
        // Severities of syslog.h: error and informational.
        let priority = u32::from(self.facility) * 8 + if stream == Stream::Stderr { 3 } else { 6 };
        let (tag, host, pid) = (&self.tag, &self.hostname, std::process::id());
        // A clock beyond the calendar's end tells nothing anyway.
        let zoned = Zoned::try_from(time).unwrap_or_default();
        let head = match self.format {
            Format::Local => format!("<{priority}>{} {tag}[{pid}]: ", zoned.strftime("%b %e %H:%M:%S")),
            Format::Rfc3164 => format!("<{priority}>{} {host} {tag}[{pid}]: ", zoned.strftime("%b %e %H:%M:%S")),
            Format::Rfc5424 => format!("<{priority}>1 {} {host} {tag} {pid} {tag} - ", zoned.strftime("%Y-%m-%dT%H:%M:%S%:z")),
            Format::Rfc5424Micro => format!("<{priority}>1 {} {host} {tag} {pid} {tag} - ", zoned.strftime("%Y-%m-%dT%H:%M:%S.%6f%:z")),
        };
        let mut out = head.into_bytes();
        out.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
        out.push(b'\n');
        out
    }

    pub(super) fn connect(&self) -> io::Result<Link> {
        match &self.address {
            Address::Local => first(LOCAL.iter().flat_map(|path| [(path, false), (path, true)]), |(path, is_stream)| {
                if is_stream { link::stream(Path::new(path)) } else { link::datagram(Path::new(path)) }
            }),
            Address::Unix(path) => link::stream(path),
            Address::Unixgram(path) => link::datagram(path),
            Address::Udp(addresses) => first(addresses.iter(), |address| link::internet(*address, false)),
            Address::Tcp(addresses) => first(addresses.iter(), |address| link::internet(*address, true)),
        }
    }
}

/// The first that works, or why the first does not.
fn first<T>(places: impl Iterator<Item = T>, connect: impl Fn(T) -> io::Result<Link>) -> io::Result<Link> {
    let mut why = None;
    for place in places {
        match connect(place) {
            Ok(link) => return Ok(link),
            Err(err) => why = why.or(Some(err)),
        }
    }
    Err(why.unwrap_or_else(|| io::Error::other("there is no address")))
}
