//! Connections that never wait, but for the first.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, ipproto};

/// For the first connection, which a container's start waits for.
const FIRST: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Link {
    pub socket: OwnedFd,
    /// Takes parts of messages.
    pub is_stream: bool,
}

impl Link {
    /// Whether a stream's other end has been closed: the kernel would still take one message, for nobody.
    pub fn has_ended(&self) -> bool {
        self.is_stream
            && rustix::net::recv(&self.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok_and(|(_, read)| read == 0)
    }

    /// # Errors
    /// What came of the connection, also when that takes longer than 5 s.
    pub fn wait_until_connected(&self) -> io::Result<()> {
        let timeout = Timespec::try_from(FIRST).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))?;
        if ready == 0 && self.is_stream {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {} s", FIRST.as_secs())));
        }
        Ok(rustix::net::sockopt::socket_error(&self.socket)??)
    }
}

fn socket(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    let protocol = match (family, kind) {
        (AddressFamily::UNIX, _) => None,
        (_, SocketType::STREAM) => Some(ipproto::TCP),
        _ => Some(ipproto::UDP),
    };
    Ok(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, protocol)?)
}

/// # Errors
/// When nobody listens there.
pub fn datagram(path: &Path) -> io::Result<Link> {
    unix(path, SocketType::DGRAM)
}

/// # Errors
/// When nobody listens there.
pub fn stream(path: &Path) -> io::Result<Link> {
    unix(path, SocketType::STREAM)
}

fn unix(path: &Path, kind: SocketType) -> io::Result<Link> {
    let named = |err: Errno| {
        let err = io::Error::from(err);
        io::Error::new(err.kind(), format!("connect to {}: {err}", path.display()))
    };
    let socket = socket(AddressFamily::UNIX, kind)?;
    let address = SocketAddrUnix::new(path).map_err(named)?;
    rustix::net::connect(&socket, &address).map_err(named)?;
    Ok(Link { socket, is_stream: kind == SocketType::STREAM })
}

/// # Errors
/// When the host cannot even try.
pub fn internet(address: SocketAddr, is_stream: bool) -> io::Result<Link> {
    let named = |err: Errno| {
        let err = io::Error::from(err);
        io::Error::new(err.kind(), format!("connect to {address}: {err}"))
    };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, if is_stream { SocketType::STREAM } else { SocketType::DGRAM })?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(Link { socket, is_stream }),
        Err(err) => Err(named(err)),
    }
}
