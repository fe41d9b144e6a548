//! The pair of interfaces between a bridge and a container.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rcontainerd_types::{Digest, Error, ErrorKind, Result};

use crate::model::{Attachment, DEFAULT_NETWORK};
use crate::netlink::{LinkKind, Netlink};
use crate::netns;

/// 169.254.0.0/16 (RFC 3927).
const LINK_LOCAL_PREFIX: u8 = 16;

/// Where the host's end goes.
pub struct Port {
    /// Index of the bridge.
    pub bridge: u32,
    /// Cut off from the bridge's other ports (`IFLA_BRPORT_ISOLATED`, Linux 4.18).
    pub isolated: bool,
    pub mtu: Option<u32>,
    pub default_route: bool,
}

/// Makes the pair with one end in the namespace, and gives that end its address and routes; undone when a step fails.
pub fn connect(attachment: &Attachment, port: &Port, link_local: &[Ipv4Addr]) -> Result<()> {
    let host = Netlink::open()?;
    let namespace = netns::open(&attachment.netns)?;
    let inside = Netlink::open_in(&attachment.netns)?;
    let pair = LinkKind::Veth {
        peer: &attachment.interface,
        peer_netns: &namespace,
        peer_mac: attachment.mac,
        bridge: port.bridge,
        mtu: port.mtu,
    };
    let index =
        host.create_link(&attachment.host_link, &pair).map_err(|err| err.context(format!("connect container {}", attachment.container)))?;
    let configure = || {
        if port.isolated {
            host.isolate(index)?;
        }
        host.set_up(index)?;
        let name = &attachment.interface;
        let link =
            inside.link_index(name)?.ok_or_else(|| Error::internal(format!("{name} vanished from the container's network namespace")))?;
        inside.add_address(link, attachment.address)?;
        link_local.iter().try_for_each(|ip| inside.add_address(link, Ipv4Net::new_assert(*ip, LINK_LOCAL_PREFIX)))?;
        inside.set_up(link)?;
        if port.default_route { inside.add_default_route(attachment.gateway) } else { Ok(()) }
    };
    configure().inspect_err(|_| log_undo(delete(&attachment.host_link)))
}

/// Deletes a link of this namespace; one that is gone is no error.
pub fn delete(name: &str) -> Result<()> {
    match Netlink::open()?.delete_link(name) {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Interface names have at most 15 bytes; eleven hex digits make a clash improbable, and a clash is an error, not a mix-up.
pub fn host_link_name(container: &str, network: &str) -> String {
    let digits: String = if network == DEFAULT_NETWORK {
        container.chars().filter(char::is_ascii_alphanumeric).take(11).collect()
    } else {
        Digest::sha256(format!("{container} {network}").as_bytes()).hex()[..11].to_owned()
    };
    format!("veth{digits}")
}

/// An undo step that fails must not hide the error it undoes, but must be told.
pub fn log_undo(result: Result<()>) {
    if let Err(err) = result {
        tracing::warn!("undoing a failed network operation: {err}");
    }
}
