//! Network devices of the host that a container is given (runtime-spec 1.3, linux.netDevices), by rtnetlink(7).
//!
//! A device is set down, moved and renamed in one request, given its addresses back (the kernel drops them on the way) and set up.
//! What ends with the container's end is the namespace's affair: the device goes where the kernel sends it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rrun_sys::fs::{self, OFlags};
use rrun_sys::{process, socket};

use crate::{Context, Error, Result};

/// A device to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name on the host.
    pub host: String,
    /// Its name in the container.
    pub name: String,
}

/// Whether the kernel takes it for a device's name (dev_valid_name(): 15 bytes, no slash, colon or space).
pub fn is_valid_name(name: &str) -> bool {
    let odd = |b: u8| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace() || b == 0x0b;
    !name.is_empty() && name.len() < 16 && name != "." && name != ".." && !name.bytes().any(odd)
}

/// A device that was moved, as it was on the host.
#[derive(Debug)]
struct Moved {
    device: NetDevice,
    was_up: bool,
    addresses: Vec<Address>,
}

/// The devices that a container was given, to be returned if it does not come to be.
#[derive(Debug)]
pub struct Given {
    namespaces: Namespaces,
    moved: Vec<Moved>,
}

impl Given {
    /// Moves all, or none.
    pub fn new(devices: &[NetDevice], container_namespace: OwnedFd) -> Result<Given> {
        let mut given = Given { namespaces: Namespaces::open(container_namespace)?, moved: Vec::new() };
        for device in devices {
            match given.namespaces.give(device) {
                Ok(moved) => given.moved.push(moved),
                Err(e) => {
                    let also = given.take_back().err().map(|also| also.to_string());
                    return Err(match also {
                        Some(also) => Error::Unclean { cause: Box::new(e), cleanup: vec![also] },
                        None => e,
                    });
                }
            }
        }
        Ok(given)
    }

    /// Returns every device to the host, the last first; what fails with one does not keep the others.
    pub fn take_back(mut self) -> Result<()> {
        let mut failures = Vec::new();
        for moved in self.moved.drain(..).rev() {
            failures.extend(self.namespaces.take_back(&moved).err().map(|e| e.to_string()));
        }
        if failures.is_empty() { Ok(()) } else { Err(Error::state(failures.join("; "))) }
    }
}

/// Both ends of a move.
#[derive(Debug)]
struct Namespaces {
    host: Netlink,
    host_namespace: OwnedFd,
    container: Netlink,
    container_namespace: OwnedFd,
}

impl Namespaces {
    /// This process's network namespace and another, in which it only opens a socket.
    fn open(container_namespace: OwnedFd) -> Result<Namespaces> {
        let host_namespace = fs::openat(fs::CWD, Path::new("/proc/self/ns/net"), OFlags::RDONLY, 0)?;
        let host = Netlink::open()?;
        process::join_namespace(&container_namespace, libc::CLONE_NEWNET)
            .doing(|| "enter the container's network namespace".to_string())?;
        let container = Netlink::open();
        process::join_namespace(&host_namespace, libc::CLONE_NEWNET)?;
        Ok(Namespaces { host, host_namespace, container: container?, container_namespace })
    }

    /// Moves a device to the container.
    fn give(&mut self, device: &NetDevice) -> Result<Moved> {
        let told = || format!("move network device {:?} into the container as {:?}", device.host, device.name);
        let link = self.host.link(&device.host).doing(told)?;
        // Asked before: the kernel moves a device under its old name and only then refuses a new one that is taken.
        if self.container.link(&device.name).is_ok() {
            return Err(Error::state("the container's network namespace has a device of that name")).doing(told);
        }
        let addresses = self.host.addresses(link.index).doing(told)?;
        self.host.set_up(link.index, false).doing(told)?;
        let moved = Moved { device: device.clone(), was_up: link.up, addresses };
        let done = self.host.move_to(link.index, &device.name, &self.container_namespace);
        let done = done.and_then(|()| arrive(&mut self.container, &device.name, &moved.addresses, true));
        match done.doing(told) {
            Ok(()) => Ok(moved),
            Err(e) => Err(match self.take_back(&moved) {
                Ok(()) => e,
                Err(also) => Error::Unclean { cause: Box::new(e), cleanup: vec![also.to_string()] },
            }),
        }
    }

    /// Returns a device to the host as it was, wherever it is now and under which of its names.
    fn take_back(&mut self, moved: &Moved) -> Result<()> {
        let device = &moved.device;
        let told = || format!("move network device {:?} back to the host as {:?}", device.name, device.host);
        if self.host.link(&device.host).is_err() {
            let link = self.container.link(&device.name).or_else(|_| self.container.link(&device.host)).doing(told)?;
            self.container.set_up(link.index, false).doing(told)?;
            self.container.move_to(link.index, &device.host, &self.host_namespace).doing(told)?;
        }
        arrive(&mut self.host, &device.host, &moved.addresses, moved.was_up).doing(told)
    }
}

fn arrive(there: &mut Netlink, name: &str, addresses: &[Address], up: bool) -> Result<()> {
    let index = there.link(name)?.index;
    addresses.iter().try_for_each(|address| there.add_address(index, address))?;
    if up { there.set_up(index, true) } else { Ok(()) }
}

/// A permanent address of global scope: those of other kinds mean nothing elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    /// (IFA_*, value) of address, local, broadcast.
    parts: Vec<(u16, Vec<u8>)>,
}

struct Link {
    index: i32,
    up: bool,
}

/// A rtnetlink socket of one network namespace.
#[derive(Debug)]
struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_PERMANENT: u8 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;
const HEADER: usize = 16;
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;

impl Netlink {
    fn open() -> Result<Netlink> {
        Ok(Netlink { socket: socket::netlink_route()?, sequence: 0 })
    }

    fn link(&mut self, name: &str) -> Result<Link> {
        let mut body = ifinfomsg(0, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &with_nul(name));
        let mut found = None;
        self.request(RTM_GETLINK, 0, &body, "RTM_GETLINK", |_, message| {
            found = Some(Link { index: i32_at(message, 4), up: i32_at(message, 8) & libc::IFF_UP != 0 });
        })?;
        found.ok_or_else(|| Error::state(format!("there is no network device {name:?}")))
    }

    /// Those that another namespace can use as they are.
    fn addresses(&mut self, index: i32) -> Result<Vec<Address>> {
        let mut found = Vec::new();
        self.request(RTM_GETADDR, NLM_F_DUMP, &[0; IFADDRMSG], "RTM_GETADDR", |_, message| {
            let usable = message[2] & IFA_F_PERMANENT != 0 && message[3] == RT_SCOPE_UNIVERSE;
            if usable && i32_at(message, 4) == index {
                let kept = |kind: u16| [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST].contains(&kind);
                let parts = attributes(&message[IFADDRMSG..]).filter(|(kind, _)| kept(*kind)).map(|(kind, value)| (kind, value.to_vec()));
                found.push(Address { family: message[0], prefix: message[1], parts: parts.collect() });
            }
        })?;
        Ok(found)
    }

    fn add_address(&mut self, index: i32, address: &Address) -> Result<()> {
        let mut body = vec![address.family, address.prefix, 0, RT_SCOPE_UNIVERSE];
        body.extend(index.to_ne_bytes());
        address.parts.iter().for_each(|(kind, value)| attribute(&mut body, *kind, value));
        match self.request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body, "RTM_NEWADDR", |_, _| {}) {
            // It has never left.
            Err(e) if e.errno() == Some(libc::EEXIST) => Ok(()),
            done => done,
        }
    }

    fn set_up(&mut self, index: i32, up: bool) -> Result<()> {
        let body = ifinfomsg(index, if up { libc::IFF_UP } else { 0 }, libc::IFF_UP);
        self.request(RTM_NEWLINK, NLM_F_ACK, &body, "RTM_NEWLINK", |_, _| {})
    }

    /// Both in one request: the name need be free in the other namespace alone.
    fn move_to(&mut self, index: i32, name: &str, namespace: &OwnedFd) -> Result<()> {
        let mut body = ifinfomsg(index, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &with_nul(name));
        attribute(&mut body, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        self.request(RTM_NEWLINK, NLM_F_ACK, &body, "RTM_NEWLINK", |_, _| {})
    }

    /// One request and its answers, each given without its header.
    fn request(&mut self, kind: u16, flags: u16, body: &[u8], call: &'static str, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        self.sequence += 1;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(body);
        socket::send(&self.socket, &message)?;
        let many = flags & NLM_F_DUMP == NLM_F_DUMP;
        loop {
            let received = socket::receive(&self.socket)?;
            for (kind, body) in messages(&received) {
                match kind {
                    NLMSG_ERROR => {
                        let errno = -i32_at(body, 0);
                        return if errno == 0 { Ok(()) } else { Err(rrun_sys::Error::new("rtnetlink", call, errno).into()) };
                    }
                    NLMSG_DONE => return Ok(()),
                    kind => each(kind, body),
                }
            }
            if flags & NLM_F_ACK == 0 && !many {
                return Ok(());
            }
        }
    }
}

/// The messages of one datagram: (type, what follows the header).
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = bytes.get(..4).map(|b| i32_at(b, 0) as usize)?;
        let message = bytes.get(..length).filter(|m| m.len() >= HEADER + IFADDRMSG.min(4))?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), &message[HEADER..]))
    })
}

/// The attributes of a message: (type without flags, value).
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = bytes.get(4..length)?;
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The number at an offset; 0 where the kernel has sent less.
fn i32_at(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes)
}

fn ifinfomsg(index: i32, flags: i32, change: i32) -> Vec<u8> {
    let mut body = Vec::with_capacity(IFINFOMSG);
    body.extend([0; 4]);
    [index, flags, change].iter().for_each(|n| body.extend(n.to_ne_bytes()));
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((4 + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

fn with_nul(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for good in ["eth0", "a", "fifteen-bytes-x", "ü"] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "a:b", "sixteen-bytes-xx", "a\tb", "a\0"] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn attributes_survive_the_way_and_what_is_cut_off_ends_the_list() {
        let mut body = Vec::new();
        attribute(&mut body, IFLA_IFNAME, b"lo\0");
        attribute(&mut body, IFLA_NET_NS_FD, &7i32.to_ne_bytes());
        let found: Vec<_> = attributes(&body).collect();
        assert_eq!(found, [(IFLA_IFNAME, &b"lo\0"[..]), (IFLA_NET_NS_FD, &7i32.to_ne_bytes()[..])]);
        for cut in 0..body.len() {
            assert!(attributes(&body[..cut]).count() < 2, "{cut}");
        }
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 8]).count(), 0);
    }
}
