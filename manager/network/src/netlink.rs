//! A small synchronous rtnetlink client (rtnetlink(7)): one request, its acknowledgement, errors with what was asked.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rcontainerd_types::{Error, ErrorKind, Result};

use crate::netns;

/// A link to be made.
pub enum LinkKind<'a> {
    Bridge {
        mtu: Option<u32>,
    },
    /// A pair: this end enslaved to `bridge` here, the other named `peer` in another namespace.
    Veth {
        peer: &'a str,
        peer_netns: &'a File,
        peer_mac: [u8; 6],
        bridge: u32,
        /// Of both ends.
        mtu: Option<u32>,
    },
}

/// A socket bound to the network namespace in which it was opened.
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Speaks to the manager's own namespace.
    pub fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(|err| Error::io("open a netlink socket", err))? })
    }

    /// Speaks to the namespace at `path`: a socket stays in the namespace of the thread that opened it.
    pub fn open_in(path: &Path) -> Result<Self> {
        netns::within(path, Self::open)
    }

    pub fn link_index(&self, name: &str) -> Result<Option<u32>> {
        let mut query = LinkMessage::default();
        query.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answer = self.request(RouteNetlinkMessage::GetLink(query), 0, &format!("look up link {name}"));
        match answer {
            Ok(messages) => Ok(messages.into_iter().find_map(|message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
                _ => None,
            })),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Makes a link and returns its index.
    pub fn create_link(&self, name: &str, kind: &LinkKind<'_>) -> Result<u32> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match kind {
            LinkKind::Bridge { mtu } => {
                link.attributes.extend(mtu.map(LinkAttribute::Mtu));
                link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
            }
            LinkKind::Veth { peer, peer_netns, peer_mac, bridge, mtu } => {
                let mut other = LinkMessage::default();
                other.attributes.push(LinkAttribute::IfName((*peer).to_owned()));
                other.attributes.push(LinkAttribute::Address(peer_mac.to_vec()));
                other.attributes.push(LinkAttribute::NetNsFd(peer_netns.as_raw_fd()));
                other.attributes.extend(mtu.map(LinkAttribute::Mtu));
                link.attributes.extend(mtu.map(LinkAttribute::Mtu));
                link.attributes.push(LinkAttribute::Controller(*bridge));
                link.attributes.push(LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Veth),
                    LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
                ]));
            }
        }
        self.request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, &format!("create link {name}"))?;
        self.link_index(name)?.ok_or_else(|| Error::internal(format!("link {name} vanished right after it was made")))
    }

    pub fn delete_link(&self, name: &str) -> Result<()> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.request(RouteNetlinkMessage::DelLink(link), 0, &format!("delete link {name}")).map(drop)
    }

    pub fn set_up(&self, index: u32) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(link), 0, &format!("set link {index} up")).map(drop)
    }

    /// Makes a link a port of the bridge with this index.
    pub fn enslave(&self, index: u32, bridge: u32) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Controller(bridge));
        self.request(RouteNetlinkMessage::SetLink(link), 0, &format!("connect link {index} to bridge {bridge}")).map(drop)
    }

    /// Cuts a bridge's port off from its other isolated ports.
    pub fn isolate(&self, index: u32) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)])),
        ]));
        self.request(RouteNetlinkMessage::NewLink(link), 0, &format!("isolate link {index}")).map(drop)
    }

    pub fn add_address(&self, index: u32, address: Ipv4Net) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = address.prefix_len();
        message.header.scope = AddressScope::Universe;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(IpAddr::V4(address.addr())));
        message.attributes.push(AddressAttribute::Address(IpAddr::V4(address.addr())));
        message.attributes.push(AddressAttribute::Broadcast(address.broadcast()));
        self.request(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &format!("give link {index} the address {address}"),
        )
        .map(drop)
    }

    pub fn add_default_route(&self, gateway: Ipv4Addr) -> Result<()> {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.protocol = RouteProtocol::Boot;
        route.header.scope = RouteScope::Universe;
        route.header.kind = RouteType::Unicast;
        route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        self.request(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL, &format!("add a default route by {gateway}"))
            .map(drop)
    }

    /// Every IPv4 address of this namespace with the index of its link.
    pub fn ipv4_addresses(&self) -> Result<Vec<(u32, Ipv4Net)>> {
        let mut query = AddressMessage::default();
        query.header.family = AddressFamily::Inet;
        let messages = self.request(RouteNetlinkMessage::GetAddress(query), NLM_F_DUMP, "list addresses")?;
        Ok(messages.into_iter().filter_map(ipv4_address).collect())
    }

    /// Every IPv4 network that this namespace has an address in or a route to.
    pub fn ipv4_networks(&self) -> Result<Vec<Ipv4Net>> {
        let mut query = RouteMessage::default();
        query.header.address_family = AddressFamily::Inet;
        let messages = self.request(RouteNetlinkMessage::GetRoute(query), NLM_F_DUMP, "list routes")?;
        let routes = messages.into_iter().filter_map(ipv4_destination);
        Ok(routes.chain(self.ipv4_addresses()?.into_iter().map(|(_, net)| net.trunc())).collect())
    }

    fn request(&self, message: RouteNetlinkMessage, flags: u16, what: &str) -> Result<Vec<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = 1;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(|err| Error::io(what, err))?;
        self.collect(flags & NLM_F_DUMP == NLM_F_DUMP, what)
    }

    /// Reads until the acknowledgement, or until the end of a dump.
    fn collect(&self, dump: bool, what: &str) -> Result<Vec<RouteNetlinkMessage>> {
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(|err| Error::io(what, err))?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let packet = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|err| Error::internal(format!("{what}: the kernel's answer cannot be read: {err}")))?;
                let length = (packet.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[length.max(1)..];
                match packet.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Error(err) if err.code.is_some() => return Err(kernel_error(what, err.to_io())),
                    NetlinkPayload::Error(_) if !dump => return Ok(answers),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

fn kernel_error(what: &str, err: std::io::Error) -> Error {
    match err.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => Error::io(what, err).with_kind(ErrorKind::NotFound),
        Some(libc::EOPNOTSUPP) => {
            Error::io(what, err).with_kind(ErrorKind::Unsupported).context("this kernel lacks the network device type")
        }
        _ => Error::io(what, err),
    }
}

fn ipv4_address(message: RouteNetlinkMessage) -> Option<(u32, Ipv4Net)> {
    let RouteNetlinkMessage::NewAddress(address) = message else { return None };
    let local = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
        _ => None,
    })?;
    Some((address.header.index, Ipv4Net::new(local, address.header.prefix_len).ok()?))
}

fn ipv4_destination(message: RouteNetlinkMessage) -> Option<Ipv4Net> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(to)) => Ipv4Net::new(*to, route.header.destination_prefix_length).ok(),
        _ => None,
    })
}
