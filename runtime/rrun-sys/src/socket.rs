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

/// Connects to a stream socket (a console socket).
pub fn connect_stream(path: &Path) -> Result<OwnedFd> {
    connect_kind(path, SocketType::STREAM)
}

fn connect_kind(path: &Path, kind: SocketType) -> Result<OwnedFd> {
    let socket = unix(kind)?;
    rustix::net::connect(&socket, &address(path)?).describe("connect", || path.display().to_string())?;
    Ok(socket)
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

/// Receives one message (at most 64 KiB); empty: the peer closed.
pub fn receive(socket: impl AsFd) -> Result<Vec<u8>> {
    let mut buf = vec![0u8; 64 * 1024];
    let (n, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(socket.as_fd(), &mut buf[..], RecvFlags::empty())).describe("recv", String::new)?;
    buf.truncate(n);
    Ok(buf)
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
    let mut buf = vec![0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buf)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .describe("recvmsg", String::new)?;
    let mut found = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            found = fds.last();
        }
    }
    buf.truncate(received.bytes);
    Ok((buf, found))
}
