//! Ports of the host: chosen, checked against other programs, and held so that no other program takes them.
//!
//! Traffic never reaches the sockets held here (the nat rules catch it before); they are bound, and nothing more, to make bind(2)
//! of another program fail as it would with any server.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rcontainerd_types::{Error, ErrorKind, Result};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use crate::model::{BoundPort, PortRequest, Protocol};

type Key = (Protocol, IpAddr, u16);

#[derive(Default)]
pub struct Reservations {
    held: HashMap<Key, Held>,
    /// What was given back a moment ago, and when.
    left: HashMap<Key, Instant>,
}

/// How long a port that was given back may still be taken: by a process that was just being forked when the socket was closed and has it,
/// too, until it executes something.
const LAST_GASP: Duration = Duration::from_secs(1);

struct Held {
    owner: String,
    /// `None` for a port adopted after a restart that another program holds by now.
    _socket: Option<OwnedFd>,
}

impl Reservations {
    /// Takes all of `wanted` or nothing.
    pub fn reserve(&mut self, owner: &str, wanted: &[PortRequest]) -> Result<Vec<BoundPort>> {
        let mut bound = Vec::with_capacity(wanted.len());
        for request in wanted {
            match self.reserve_one(owner, request) {
                Ok(port) => bound.push(port),
                Err(err) => {
                    self.release(&bound);
                    return Err(err);
                }
            }
        }
        Ok(bound)
    }

    /// Takes up ports that a running container has had since before this manager started.
    pub fn adopt(&mut self, owner: &str, ports: &[BoundPort]) {
        for port in ports {
            let socket = hold(port.protocol, port.host_ip, port.host_port).inspect_err(|err| {
                tracing::warn!("port {}/{} of container {owner} cannot be reserved again: {err}", port.host_port, port.protocol);
            });
            self.held.insert(key(port), Held { owner: owner.to_owned(), _socket: socket.ok() });
        }
    }

    pub fn release(&mut self, ports: &[BoundPort]) {
        let now = Instant::now();
        self.left.retain(|_, since| now < *since + LAST_GASP);
        for port in ports {
            if self.held.remove(&key(port)).is_some() {
                self.left.insert(key(port), now);
            }
        }
    }

    fn reserve_one(&mut self, owner: &str, request: &PortRequest) -> Result<BoundPort> {
        let ip = request.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        if ip.is_ipv6() {
            return Err(Error::unsupported(format!(
                "publishing on the IPv6 address {ip} is not supported yet; publish on an IPv4 address"
            )));
        }
        let (first, last) = request.host_port.unwrap_or((0, 0));
        let mut refusal = None;
        for port in first..=last {
            match self.take(owner, request.protocol, ip, port) {
                Ok(host_port) => {
                    return Ok(BoundPort { container_port: request.container_port, protocol: request.protocol, host_ip: ip, host_port });
                }
                Err(err) => refusal = Some(err),
            }
        }
        Err(refusal.unwrap_or_else(|| Error::invalid(format!("invalid host port range {first}-{last}"))))
    }

    /// Holds one port (0: any free one) and returns its number.
    fn take(&mut self, owner: &str, protocol: Protocol, ip: IpAddr, port: u16) -> Result<u16> {
        if let Some(other) = self.owner_of(protocol, ip, port) {
            return Err(Error::conflict(format!(
                "Bind for {ip}:{port} failed: port is already allocated (by container {})",
                rcontainerd_types::id::short(other)
            )));
        }
        let socket =
            self.hold_again(protocol, ip, port).map_err(|err| err.context(format!("failed to bind host port {ip}:{port}/{protocol}")))?;
        let port = if port == 0 { local_port(&socket)? } else { port };
        self.held.insert((protocol, ip, port), Held { owner: owner.to_owned(), _socket: Some(socket) });
        Ok(port)
    }

    /// As [`hold`]; waits for a port that is just being given back.
    fn hold_again(&self, protocol: Protocol, ip: IpAddr, port: u16) -> Result<OwnedFd> {
        let since = self.left.iter().filter(|((p, _, left), _)| (*p, *left) == (protocol, port)).map(|(_, since)| *since).max();
        loop {
            match hold(protocol, ip, port) {
                Err(err) if err.kind() == ErrorKind::Conflict && since.is_some_and(|since| since.elapsed() < LAST_GASP) => {}
                outcome => return outcome,
            }
            // Nothing tells of another process's execve(2).
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Who holds the port on this address, or on all addresses.
    fn owner_of(&self, protocol: Protocol, ip: IpAddr, port: u16) -> Option<&str> {
        let clash = |(p, held_ip, held): &Key| {
            *p == protocol && *held == port && (*held_ip == ip || held_ip.is_unspecified() || ip.is_unspecified())
        };
        self.held.iter().find(|(key, _)| clash(key)).map(|(_, held)| held.owner.as_str())
    }
}

fn key(port: &BoundPort) -> Key {
    (port.protocol, port.host_ip, port.host_port)
}

/// A bound socket. TCP needs no listen(2) for the port to be taken: bind without `SO_REUSEADDR` excludes every other bind.
fn hold(protocol: Protocol, ip: IpAddr, port: u16) -> Result<OwnedFd> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
        Protocol::Sctp => return Err(Error::unsupported("publishing SCTP ports is not supported yet")),
    };
    let socket = net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).map_err(refusal)?;
    net::bind(&socket, &SocketAddr::new(ip, port)).map_err(refusal)?;
    Ok(socket)
}

/// bind(2)'s refusals in Go's words, which are Docker's.
fn refusal(errno: Errno) -> Error {
    let (kind, what) = match errno {
        Errno::ADDRINUSE => (ErrorKind::Conflict, "address already in use".to_owned()),
        Errno::ADDRNOTAVAIL => (ErrorKind::InvalidArgument, "cannot assign requested address".to_owned()),
        Errno::ACCESS => (ErrorKind::PermissionDenied, "permission denied".to_owned()),
        other => (ErrorKind::Internal, other.to_string()),
    };
    Error::new(kind, what).with_source(errno)
}

fn local_port(socket: &OwnedFd) -> Result<u16> {
    let fail = |what: &str| Error::internal(format!("read the port that the kernel chose: {what}"));
    let address = net::getsockname(socket).map_err(|errno| fail(&errno.to_string()))?;
    SocketAddr::try_from(address).map(|address| address.port()).map_err(|err| fail(&err.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host_port: Option<(u16, u16)>) -> PortRequest {
        PortRequest { container_port: 80, protocol: Protocol::Tcp, host_ip: Some(Ipv4Addr::LOCALHOST.into()), host_port }
    }

    #[test]
    fn a_reserved_port_is_refused_to_others_and_free_after_release() {
        let mut ports = Reservations::default();
        let bound = ports.reserve("a", &[request(None)]).expect("a free port");
        let port = bound[0].host_port;
        let address = (Ipv4Addr::LOCALHOST, port);
        assert!(std::net::TcpListener::bind(address).is_err(), "another program must not get port {port}");
        let again = ports.reserve("b", &[request(Some((port, port)))]).expect_err("taken");
        assert!(again.message().contains("port is already allocated"), "{again}");
        ports.release(&bound);
        // Taken as a container takes it: what another test is just forking has the socket, too, for a moment.
        ports.reserve("b", &[request(Some((port, port)))]).expect("free again");
    }

    #[test]
    fn a_port_that_a_fork_still_has_is_waited_for() {
        let mut ports = Reservations::default();
        let bound = ports.reserve("a", &[request(None)]).expect("a free port");
        let port = bound[0].host_port;
        let Some(Held { _socket: Some(socket), .. }) = ports.held.values().next() else { panic!("nothing is held") };
        let inherited = socket.try_clone().expect("clone");
        ports.release(&bound);
        let executes = std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(100));
            drop(inherited);
        });
        ports.reserve("a", &[request(Some((port, port)))]).expect("free in a moment");
        executes.join().expect("joined");
    }

    #[test]
    fn a_range_takes_the_first_free_port_and_failure_keeps_nothing() {
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = taken.local_addr().expect("address").port();
        let mut ports = Reservations::default();
        let err = ports.reserve("a", &[request(None), request(Some((port, port)))]).expect_err("the second is taken");
        assert_eq!(err.kind(), ErrorKind::Conflict);
        assert!(ports.held.is_empty(), "the first must be given back");
        if port < u16::MAX {
            let bound = ports.reserve("a", &[request(Some((port, port + 1)))]);
            assert!(bound.is_err() || bound.is_ok_and(|b| b[0].host_port == port + 1));
        }
    }
}
