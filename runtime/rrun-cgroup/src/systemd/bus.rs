//! A connection to a message bus, or to systemd's own socket: authentication, calls, and the signal that ends a job.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::wire::{self, Call, HEADER, Message, Value};
use crate::error::{Error, Result};

/// For an answer or the end of a job. systemd itself lets a stop job take 90 s; a scope's processes are killed before.
const PATIENCE: Duration = Duration::from_secs(100);

/// Where a bus or systemd listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl Address {
    /// The unix sockets of a D-Bus address list (`unix:path=/run/dbus/system_bus_socket;unix:abstract=x,guid=…`).
    pub fn parse_list(list: &str) -> Vec<Address> {
        list.split(';').filter_map(|one| Address::parse(one.trim().strip_prefix("unix:")?)).collect()
    }

    fn parse(keys: &str) -> Option<Address> {
        keys.split(',').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let value = unescape(value)?;
            match key {
                "path" => Some(Address::Path(PathBuf::from(OsStr::from_bytes(&value)))),
                "abstract" => Some(Address::Abstract(value)),
                _ => None,
            }
        })
    }

    fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Address::Path(path) => UnixStream::connect(path),
            Address::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Path(path) => write!(f, "{}", path.display()),
            Address::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// `%20` and its like.
fn unescape(value: &str) -> Option<Vec<u8>> {
    let mut bytes = value.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

/// What the other side answered instead of doing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Such as `org.freedesktop.systemd1.NoSuchUnit`.
    pub name: String,
    pub message: String,
}

/// A connection. Closed when dropped; close-on-exec.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    address: Address,
    serial: u32,
    /// Jobs that ended while something else was awaited: (job's path, result).
    ended: Vec<(String, String)>,
}

impl Bus {
    /// Connects and authenticates. `is_bus`: a message bus, to which one says hello; else systemd itself.
    pub fn connect(address: &Address, is_bus: bool) -> Result<Bus> {
        let stream = address.connect().map_err(|e| Error::Systemd(format!("connect to {address}: {e}")))?;
        let mut bus = Bus { stream, address: address.clone(), serial: 0, ended: Vec::new() };
        bus.stream.set_write_timeout(Some(PATIENCE)).map_err(|e| bus.failed("set up", &e))?;
        bus.authenticate()?;
        if is_bus {
            bus.ask_the_bus("Hello", &[])?;
            let rule = "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            bus.ask_the_bus("AddMatch", &[Value::text(rule)])?;
        }
        Ok(bus)
    }

    fn failed(&self, doing: &str, e: &io::Error) -> Error {
        let why = match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("no answer within {} s", PATIENCE.as_secs()),
            io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
            _ => e.to_string(),
        };
        Error::Systemd(format!("{doing} {}: {why}", self.address))
    }

    /// SASL's EXTERNAL: who we are is what the kernel says of the socket. Without a name of our own this also holds across user
    /// namespaces, where our number for ourselves is not the other side's. All of it in one write, as systemd's own clients do: its
    /// private socket may let a call wait for ever that comes in one read with the word BEGIN.
    fn authenticate(&mut self) -> Result<()> {
        self.say(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let answers = self.two_lines()?;
        // `DATA` and `OK …`; before systemd 246 `OK …` at once, and an error for the superfluous word.
        if answers.split("\r\n").any(|line| line.starts_with("OK")) {
            Ok(())
        } else {
            Err(Error::Systemd(format!("{} does not accept this user: {}", self.address, answers.trim())))
        }
    }

    fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(|e| self.failed("write to", &e))
    }

    /// As far as the other side speaks before it is asked something. A rejection is one line.
    fn two_lines(&mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        while lines.iter().filter(|b| **b == b'\n').count() < 2 && !(lines.starts_with(b"REJECTED") && lines.ends_with(b"\n")) {
            let mut bytes = [0; 256];
            let read = self.wait(deadline).and_then(|()| match self.stream.read(&mut bytes)? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                count => Ok(count),
            });
            let count = read.map_err(|e| self.failed("read from", &e))?;
            lines.extend(&bytes[..count]);
            if lines.len() > 16 << 10 {
                return Err(Error::Systemd(format!("{} does not speak D-Bus", self.address)));
            }
        }
        Ok(String::from_utf8_lossy(&lines).into_owned())
    }

    fn wait(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))
    }

    fn read(&mut self, bytes: &mut [u8], deadline: Instant) -> Result<()> {
        self.wait(deadline).and_then(|()| self.stream.read_exact(bytes)).map_err(|e| self.failed("read from", &e))
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        let mut header = [0; HEADER];
        self.read(&mut header, deadline)?;
        let mut bytes = vec![0; wire::message_length(&header)?];
        bytes[..HEADER].copy_from_slice(&header);
        self.read(&mut bytes[HEADER..], deadline)?;
        wire::decode(&bytes)
    }

    fn note(&mut self, message: &Message) {
        let text = |n: usize| message.body.get(n).and_then(Value::as_text).unwrap_or_default().to_owned();
        if message.kind == wire::SIGNAL && message.member == "JobRemoved" {
            // (id, job, unit, result)
            self.ended.push((text(1), text(3)));
        }
    }

    /// Calls a method. The outer error is the connection's, the inner one the answer's.
    pub fn call(&mut self, call: &Call<'_>) -> Result<std::result::Result<Vec<Value>, Refusal>> {
        self.serial += 1;
        let deadline = Instant::now() + PATIENCE;
        self.say(&wire::encode(call, self.serial))?;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                wire::METHOD_RETURN if message.reply_serial == self.serial => return Ok(Ok(message.body)),
                wire::ERROR if message.reply_serial == self.serial => {
                    let said = message.body.first().and_then(Value::as_text).unwrap_or_default().to_owned();
                    return Ok(Err(Refusal { name: message.error_name, message: said }));
                }
                _ => self.note(&message),
            }
        }
    }

    fn ask_the_bus(&mut self, member: &str, body: &[Value]) -> Result<()> {
        let name = "org.freedesktop.DBus";
        let call = Call { destination: name, path: "/org/freedesktop/DBus", interface: name, member, body };
        let answer = self.call(&call)?;
        answer.map(drop).map_err(|r| Error::Systemd(format!("{}: {member}: {}", self.address, r.message)))
    }

    /// Waits until a job has ended; its result (`done`, `failed`, `canceled`, …).
    pub fn job_result(&mut self, job: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.ended.iter().position(|(path, _)| path == job) {
                return Ok(self.ended.swap_remove(at).1);
            }
            let message = self.receive(deadline)?;
            self.note(&message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_lists_of_escaped_keys() {
        let found = Address::parse_list("tcp:host=x;unix:path=/run/a%20b,guid=1; unix:abstract=/tmp/x;unix:path=/%zz;unix:tmpdir=/tmp");
        assert_eq!(found, [Address::Path("/run/a b".into()), Address::Abstract(b"/tmp/x".to_vec())]);
    }

    #[test]
    fn nobody_there_is_told_with_the_socket() {
        let e = Bus::connect(&Address::Path("/nonexistent/bus".into()), true).unwrap_err().to_string();
        assert!(e.contains("/nonexistent/bus") && e.contains("No such file"), "{e}");
    }

    /// What a server that answers the greeting so makes of it.
    fn greeted(name: &str, answer: &'static [u8]) -> (Result<Bus>, Vec<u8>) {
        let path = std::env::temp_dir().join(format!("rrun-greeting-{}-{name}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut said = [0; 256];
            let count = stream.read(&mut said).unwrap();
            stream.write_all(answer).unwrap();
            said[..count].to_vec()
        });
        let bus = Bus::connect(&Address::Path(path.clone()), false);
        std::fs::remove_file(path).unwrap();
        (bus, server.join().unwrap())
    }

    /// systemd's private socket let the first call wait for ever when it came together with the end of the greeting.
    #[test]
    fn the_greeting_is_one_write_that_ends_with_begin() {
        let (bus, said) = greeted("now", b"DATA\r\nOK 0123\r\n");
        assert!(bus.is_ok());
        assert_eq!(said, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        assert!(greeted("old", b"OK 0123\r\nERROR\r\n").0.is_ok());
    }

    #[test]
    fn who_is_not_accepted_is_told() {
        let e = greeted("rejected", b"REJECTED EXTERNAL\r\n").0.unwrap_err().to_string();
        assert!(e.contains("does not accept this user"), "{e}");
        let e = greeted("closed", b"").0.unwrap_err().to_string();
        assert!(e.contains("closed the connection"), "{e}");
    }
}
