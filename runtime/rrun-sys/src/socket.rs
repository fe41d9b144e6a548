//! Unix sockets: channels between our own processes, descriptors over them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};

use crate::error::Described;
use crate::{Error, Result};

/// A connected pair that keeps message borders (SOCK_SEQPACKET, close-on-exec).
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).describe("socketpair", String::new)
}

fn unix(kind: SocketType) -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).describe("socket", String::new)
}

fn address(path: &Path) -> Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).describe("sockaddr_un", || path.display().to_string())
}

/// A listening SEQPACKET socket at `path` (at most 107 bytes; go through `/proc/self/fd` for longer ones).
pub fn listen(path: &Path) -> Result<OwnedFd> {
    let socket = unix(SocketType::SEQPACKET)?;
    rustix::net::bind(&socket, &address(path)?).describe("bind", || path.display().to_string())?;
    rustix::net::listen(&socket, 1).describe("listen", || path.display().to_string())?;
    Ok(socket)
}

/// Connects to a SEQPACKET socket.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    connect_kind(path, SocketType::SEQPACKET)
}

/// A datagram socket at `path`, for whoever sends to it.
pub fn bind_datagram(path: &Path) -> Result<OwnedFd> {
    let socket = unix(SocketType::DGRAM)?;
    rustix::net::bind(&socket, &address(path)?).describe("bind", || path.display().to_string())?;
    Ok(socket)
}

/// Connects to a datagram socket by a name such as `NOTIFY_SOCKET` has it: a path, or an abstract one after `@`.
pub fn connect_datagram(name: &std::ffi::OsStr) -> Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let told = || Path::new(name).display().to_string();
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddrUnix::new_abstract_name(rest).describe("sockaddr_un", told)?,
        _ => address(Path::new(name))?,
    };
    let socket = unix(SocketType::DGRAM)?;
    rustix::net::connect(&socket, &address).describe("connect", told)?;
    Ok(socket)
}

/// Connects to a stream socket (a console socket).
pub fn connect_stream(path: &Path) -> Result<OwnedFd> {
    connect_kind(path, SocketType::STREAM)
}

fn connect_kind(path: &Path, kind: SocketType) -> Result<OwnedFd> {
    let socket = unix(kind)?;
    rustix::net::connect(&socket, &address(path)?).describe("connect", || path.display().to_string())?;
    Ok(socket)
}

/// A rtnetlink(7) socket of this network namespace.
pub fn netlink_route() -> Result<OwnedFd> {
    // Protocol 0 is NETLINK_ROUTE.
    rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .describe("socket", || "netlink".to_string())
}

/// Sends one datagram to the unix socket at `path`.
pub fn send_datagram(path: &Path, bytes: &[u8]) -> Result<()> {
    let socket = unix(SocketType::DGRAM)?;
    rustix::net::sendto(&socket, bytes, SendFlags::NOSIGNAL, &address(path)?).describe("sendto", || path.display().to_string()).map(drop)
}

/// accept4(2).
pub fn accept(socket: impl AsFd) -> Result<OwnedFd> {
    rustix::io::retry_on_intr(|| rustix::net::accept_with(socket.as_fd(), SocketFlags::CLOEXEC)).describe("accept", String::new)
}

/// Sends one message; a peer that is gone is EPIPE, never a signal.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::net::send(socket.as_fd(), bytes, SendFlags::NOSIGNAL)).describe("send", String::new).map(drop)
}

/// What a message may hold; the rest of a longer one is lost.
pub const LARGEST_MESSAGE: usize = 16 << 10;

/// Receives one message; empty: the peer closed.
pub fn receive(socket: impl AsFd) -> Result<Vec<u8>> {
    let mut buf = [0u8; LARGEST_MESSAGE];
    let (n, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(socket.as_fd(), &mut buf[..], RecvFlags::empty())).describe("recv", String::new)?;
    Ok(buf[..n].to_vec())
}

/// Sends bytes with one descriptor (SCM_RIGHTS).
pub fn send_fd(socket: impl AsFd, bytes: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Error::new("sendmsg", "no room for the descriptor", libc::ENOBUFS));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).describe("sendmsg", String::new).map(drop)
}

/// Receives bytes with a descriptor, if one came.
pub fn receive_fd(socket: impl AsFd) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut buf = [0u8; LARGEST_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut buf)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            done => break done.describe("recvmsg", String::new)?,
        }
    };
    let mut found = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            found = fds.last();
        }
    }
    Ok((buf[..received.bytes].to_vec(), found))
}

/// SIOCSIFFLAGS: brings a network interface of this network namespace up.
pub fn interface_up(name: &str) -> Result<()> {
    use std::os::fd::AsRawFd;
    let told = || name.to_string();
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).describe("socket", told)?;
    // SAFETY: an all-zero ifreq is valid: a name that ends at its first byte, flags 0.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Error::new("ioctl", name, libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SIOCSIFFLAGS sets all flags; of those that a fresh loopback device has, none but IFF_UP can be changed from here.
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives through the call.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request) };
    crate::check(ret.into(), "ioctl", || format!("SIOCSIFFLAGS {name}")).map(drop)
}

/// One write(2) on a channel, for a process whose system calls a supervisor may hold up: write is the one that none may name.
pub fn write(socket: impl AsFd, bytes: &[u8]) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::write(socket.as_fd(), bytes)).describe("write", String::new).map(drop)
}
