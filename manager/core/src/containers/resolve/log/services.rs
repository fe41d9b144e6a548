//! Services of the host that take a container's output: journald and syslog.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use rcontainerd_types::{Error, Result, id};
use shim_logger::forward::{Address, Format, Service, Syslog};

use super::super::super::model::Container;

/// Where journald takes entries (systemd's `docs/JOURNAL_NATIVE_PROTOCOL.md`).
const JOURNAL: &str = "/run/systemd/journal/socket";

pub struct Journald;

impl Journald {
    /// With docker's fields, by which `journalctl CONTAINER_NAME=…` finds them.
    pub fn service(container: &Container, attributes: BTreeMap<String, String>, tag: Option<String>) -> Service {
        let short = id::short(&container.id).to_owned();
        let tag = tag.unwrap_or_else(|| short.clone());
        let named = attributes.into_iter().map(|(name, value)| (field_name(&name), value)).filter(|(name, _)| !name.is_empty());
        let own = [
            ("CONTAINER_ID", short),
            ("CONTAINER_ID_FULL", container.id.clone()),
            ("CONTAINER_NAME", container.name.clone()),
            ("CONTAINER_TAG", tag.clone()),
            ("IMAGE_NAME", container.config.image.clone()),
            ("SYSLOG_IDENTIFIER", tag),
        ];
        // The own ones last: a label does not stand for the container's id.
        let fields = named.chain(own.map(|(name, value)| (name.to_owned(), value))).collect();
        Service::Journald { socket: JOURNAL.into(), fields }
    }
}

/// Letters and digits, the letters large, and no underscore in front, which journald keeps for itself.
fn field_name(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    name.trim_start_matches('_').to_owned()
}

/// In the order of syslog.h; 12 to 15 have no name.
const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// syslog's own port (RFC 5426).
const PORT: u16 = 514;

/// The options of `--log-driver syslog`.
#[derive(Clone, Debug)]
pub struct SyslogPlan {
    to: To,
    facility: u8,
    format: Format,
}

#[derive(Clone, Debug)]
enum To {
    Local,
    Unix(PathBuf),
    Unixgram(PathBuf),
    Net { is_stream: bool, host: String, port: u16 },
}

impl Default for SyslogPlan {
    fn default() -> Self {
        Self { to: To::Local, facility: 3, format: Format::Local }
    }
}

impl SyslogPlan {
    pub fn set_address(&mut self, value: &str) -> Result<()> {
        let invalid = |why: &str| Error::invalid(format!("invalid value {value:?} for log opt 'syslog-address': {why}"));
        if value.is_empty() {
            self.to = To::Local;
            return Ok(());
        }
        let (scheme, rest) = value.split_once("://").ok_or_else(|| invalid("expected udp://, tcp://, unix:// or unixgram://"))?;
        self.to = match scheme {
            "unix" | "unixgram" if !rest.starts_with('/') => return Err(invalid("expected an absolute path")),
            "unix" => To::Unix(rest.into()),
            "unixgram" => To::Unixgram(rest.into()),
            "udp" | "tcp" => {
                let (host, port) = host_and_port(rest).ok_or_else(|| invalid("expected HOST[:PORT]"))?;
                To::Net { is_stream: scheme == "tcp", host, port }
            }
            "tcp+tls" => return Err(invalid("TLS is not supported: use tcp:// to a relay on this host")),
            _ => return Err(invalid(&format!("unsupported scheme: '{scheme}'"))),
        };
        Ok(())
    }

    pub fn set_facility(&mut self, value: &str) -> Result<()> {
        let number = value.parse().ok().filter(|number| *number <= 23);
        let named = FACILITIES.iter().find(|(name, _)| *name == value).map(|(_, number)| *number);
        self.facility = number.or(named).ok_or_else(|| Error::invalid(format!("invalid syslog facility: {value:?}")))?;
        Ok(())
    }

    pub fn set_format(&mut self, value: &str) -> Result<()> {
        self.format = match value {
            "" => Format::Local,
            "rfc3164" => Format::Rfc3164,
            "rfc5424" => Format::Rfc5424,
            "rfc5424micro" => Format::Rfc5424Micro,
            _ => return Err(Error::invalid(format!("invalid syslog format: {value:?}: expected rfc3164, rfc5424 or rfc5424micro"))),
        };
        Ok(())
    }

    /// # Errors
    /// `InvalidArgument` when the server's name has no address.
    pub async fn service(&self, container: &Container, tag: Option<String>) -> Result<Service> {
        let address = match &self.to {
            To::Local => Address::Local,
            To::Unix(path) => Address::Unix(path.clone()),
            To::Unixgram(path) => Address::Unixgram(path.clone()),
            To::Net { is_stream, host, port } => {
                let addresses = resolve(host, *port).await?;
                if *is_stream { Address::Tcp(addresses) } else { Address::Udp(addresses) }
            }
        };
        Ok(Service::Syslog(Syslog {
            address,
            format: self.format,
            facility: self.facility,
            tag: tag.unwrap_or_else(|| id::short(&container.id).to_owned()),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        }))
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let told = |why: &str| Error::invalid(format!("failed to initialize logging driver: syslog server {host:?}: {why}"));
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(|err| told(&err.to_string()))?.collect();
    if found.is_empty() { Err(told("it has no address")) } else { Ok(found) }
}

/// `HOST`, `HOST:PORT`, `[::1]:PORT`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some(""))?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let port = if port.is_empty() { Some(PORT) } else { port.parse().ok() }?;
    (!host.is_empty() && !host.contains('/')).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_as_urls_name_them() {
        for (text, host, port) in
            [("a", "a", 514), ("a:9", "a", 9), ("[::1]", "::1", 514), ("[::1]:9", "::1", 9), ("1.2.3.4:1", "1.2.3.4", 1)]
        {
            assert_eq!(host_and_port(text), Some((host.to_owned(), port)), "{text}");
        }
        for text in ["", ":1", "a:b", "a:70000", "::1", "[::1", "[::1]9", "a/b"] {
            assert_eq!(host_and_port(text), None, "{text}");
        }
    }

    #[test]
    fn labels_become_fields_that_journald_takes() {
        assert_eq!(field_name("com.example/a-b"), "COM_EXAMPLE_A_B");
        assert_eq!(field_name("__x"), "X");
        assert_eq!(field_name("_"), "");
    }
}
