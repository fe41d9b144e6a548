//! What callers say and get: requests, attachments, ports. All of it is serde, since the caller keeps it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::Ipv4Net;
use rcontainerd_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// The id of the default bridge's network.
pub const DEFAULT_NETWORK: &str = "bridge";

/// How the default bridge is to be made.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Directory for bind-mounted network namespaces (`STATE/netns`).
    pub netns_dir: PathBuf,
    /// Name of the default bridge's interface, at most 15 bytes.
    pub bridge: String,
    /// The bridge's subnet; `None` takes the first of Docker's address pools that overlaps no route of the host.
    pub subnet: Option<Ipv4Net>,
    /// Name of our nftables table (`ip NAME`).
    pub nft_table: String,
}

impl NetworkConfig {
    pub fn new(netns_dir: impl Into<PathBuf>) -> Self {
        Self { netns_dir: netns_dir.into(), bridge: "rcontainerd0".into(), subnet: None, nft_table: "rcontainerd".into() }
    }
}

/// A bridge network as its owner defines and keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeNetwork {
    /// The owner's id of the network, told in errors and in [`Attachment::network`].
    pub id: String,
    /// Name of the bridge's interface, at most 15 bytes.
    pub bridge: String,
    /// `None` takes the first of Docker's address pools that overlaps no route of the host and no other network.
    pub subnet: Option<Ipv4Net>,
    /// The bridge's own address; `None` takes the subnet's first.
    pub gateway: Option<Ipv4Addr>,
    /// Containers get addresses of this part of the subnet only.
    pub ip_range: Option<Ipv4Net>,
    /// Addresses of the subnet that no container may have (Docker's auxiliary addresses).
    pub reserved: Vec<Ipv4Addr>,
    /// No route to the outside, and none from there.
    pub internal: bool,
    /// Whether containers may reach each other (Docker's `enable_icc`).
    pub inter_container: bool,
    /// Whether packets to the outside carry the host's address.
    pub masquerade: bool,
    /// `None` leaves the kernel's default of 1500 bytes.
    pub mtu: Option<u32>,
}

impl BridgeNetwork {
    /// A network with Docker's defaults.
    pub fn new(id: impl Into<String>, bridge: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            bridge: bridge.into(),
            subnet: None,
            gateway: None,
            ip_range: None,
            reserved: Vec::new(),
            internal: false,
            inter_container: true,
            masquerade: true,
            mtu: None,
        }
    }
}

/// A bridge as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeInfo {
    pub name: String,
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Error::invalid(format!("invalid proto: {text}: expected tcp, udp or sctp"))),
        }
    }
}

/// One port to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    pub container_port: u16,
    pub protocol: Protocol,
    /// `None` or the unspecified address publishes on every address of the host.
    pub host_ip: Option<IpAddr>,
    /// First and last acceptable port of the host; `None` takes a free one from the ephemeral range.
    pub host_port: Option<(u16, u16)>,
}

/// One port as published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPort {
    pub container_port: u16,
    pub protocol: Protocol,
    /// Unspecified (`0.0.0.0`): every address of the host.
    pub host_ip: IpAddr,
    pub host_port: u16,
}

/// Connect a network namespace to a bridge network.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    /// [`BridgeNetwork::id`], or [`DEFAULT_NETWORK`].
    pub network: String,
    /// The interface's name inside, such as `eth0`.
    pub interface: String,
    /// Whether the container's default route goes by this network (never by an internal one).
    pub default_route: bool,
    /// The container's id; names the veth on the host side and is told in errors.
    pub container: String,
    /// The namespace, as returned by [`crate::Network::create_netns`].
    pub netns: PathBuf,
    /// A wanted MAC address; `None` derives one from the IP address.
    pub mac: Option<[u8; 6]>,
    /// A wanted address; `None` takes the next free one.
    pub ip: Option<Ipv4Addr>,
    /// Further addresses of the interface (169.254.0.0/16); who wants them sees to it that they are free.
    pub link_local: Vec<Ipv4Addr>,
    pub ports: Vec<PortRequest>,
}

/// A namespace that is connected, and all that is needed to disconnect or restore it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub container: String,
    /// The network's id.
    #[serde(default = "default_network")]
    pub network: String,
    pub netns: PathBuf,
    pub bridge: String,
    /// The veth's name on the host side.
    pub host_link: String,
    /// The interface's name inside the container.
    #[serde(default = "first_interface")]
    pub interface: String,
    /// Address with prefix length, such as `172.17.0.2/16`.
    pub address: Ipv4Net,
    pub gateway: Ipv4Addr,
    pub mac: [u8; 6],
    pub ports: Vec<BoundPort>,
}

/// What the records of release 0.1.0 leave out: there was one network.
fn default_network() -> String {
    DEFAULT_NETWORK.to_owned()
}

fn first_interface() -> String {
    "eth0".to_owned()
}

impl Attachment {
    /// `02:42:ac:11:00:02`
    pub fn mac_string(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}
