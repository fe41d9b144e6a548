//! The service: one default bridge, namespaces, attachments.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rcontainerd_types::{Error, ErrorKind, Finding, Result};

use crate::firewall::Firewall;
use crate::ipam::Ipam;
use crate::model::{AttachRequest, Attachment, BridgeInfo, NetworkConfig};
use crate::netlink::{LinkKind, Netlink};
use crate::ports::Reservations;
use crate::{ipam, netns, sysctl};

/// Networks of one manager. Methods block; call them from a blocking thread.
pub struct Network {
    config: NetworkConfig,
    firewall: Firewall,
    inner: Mutex<Inner>,
}

struct Inner {
    bridge: Option<Bridge>,
    ports: Reservations,
}

/// The bridge once it exists, with the addresses given out on it.
struct Bridge {
    info: BridgeInfo,
    index: u32,
    ipam: Ipam,
}

impl Network {
    /// Prepares the service; the host is not touched before the first attachment.
    ///
    /// # Errors
    /// `InvalidArgument` for a bridge name or subnet that the kernel would refuse.
    pub fn open(config: NetworkConfig) -> Result<Self> {
        if config.bridge.is_empty() || config.bridge.len() > 15 || config.bridge.contains(['/', ' ', ':']) {
            return Err(Error::invalid(format!(
                "bridge name {:?} is invalid: expected 1 to 15 bytes without '/', ':' and blanks",
                config.bridge
            )));
        }
        if let Some(subnet) = config.subnet
            && subnet.prefix_len() > 29
        {
            return Err(Error::invalid(format!("bridge subnet {subnet} is too small: expected a prefix of /29 or shorter")));
        }
        netns::ensure_dir(&config.netns_dir)?;
        let firewall = Firewall::new(&config.nft_table)?;
        Ok(Self { config, firewall, inner: Mutex::new(Inner { bridge: None, ports: Reservations::default() }) })
    }

    /// The default bridge, made now if it is not there yet.
    ///
    /// # Errors
    /// When the kernel refuses the bridge, or no subnet is free.
    pub fn bridge(&self) -> Result<BridgeInfo> {
        let mut inner = self.lock();
        Ok(self.ensure_bridge(&mut inner)?.info.clone())
    }

    /// The default bridge if it was made already; never touches the host.
    pub fn existing_bridge(&self) -> Option<BridgeInfo> {
        self.lock().bridge.as_ref().map(|bridge| bridge.info.clone())
    }

    /// A new network namespace with its loopback up, kept alive by a bind mount.
    ///
    /// # Errors
    /// `AlreadyExists` for an id in use; what unshare(2) and mount(2) say otherwise.
    pub fn create_netns(&self, id: &str) -> Result<PathBuf> {
        let path = netns::create(&self.config.netns_dir, id)?;
        let up = Netlink::open_in(&path).and_then(|netlink| netlink.set_up(1));
        up.map(|()| path.clone()).inspect_err(|_| log_undo(netns::remove(&path)))
    }

    /// Unmounts and removes a namespace made by [`Self::create_netns`]; one that is gone is no error.
    ///
    /// # Errors
    /// What umount2(2) and unlink(2) say.
    pub fn delete_netns(&self, path: &Path) -> Result<()> {
        netns::remove(path)
    }

    /// Connects a namespace to the bridge and publishes its ports.
    ///
    /// # Errors
    /// `ResourceExhausted` without a free address or port, `Conflict` for a port that is taken; nothing is left behind.
    pub fn attach(&self, request: &AttachRequest) -> Result<Attachment> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let bridge = self.ensure_bridge(inner)?;
        let (info, bridge_index) = (bridge.info.clone(), bridge.index);
        let address = bridge.ipam.allocate(request.ip)?;
        let ports = match inner.ports.reserve(&request.container, &request.ports) {
            Ok(ports) => ports,
            Err(err) => {
                inner.release(address.addr(), &[]);
                return Err(err);
            }
        };
        let attachment = Attachment {
            container: request.container.clone(),
            netns: request.netns.clone(),
            bridge: info.name,
            host_link: host_link_name(&request.container),
            address,
            gateway: info.gateway,
            mac: request.mac.unwrap_or_else(|| ipam::mac_of(address.addr())),
            ports,
        };
        connect(&attachment, bridge_index)
            .and_then(|()| self.firewall.publish(&attachment).inspect_err(|_| log_undo(delete_link(&attachment.host_link))))
            .inspect_err(|_| inner.release(attachment.address.addr(), &attachment.ports))?;
        Ok(attachment)
    }

    /// Takes back what [`Self::attach`] made; parts that are gone already are no error.
    ///
    /// # Errors
    /// The first failure, after every part was tried.
    pub fn detach(&self, attachment: &Attachment) -> Result<()> {
        let mut inner = self.lock();
        let unpublished = self.firewall.unpublish(attachment);
        let deleted = delete_link(&attachment.host_link);
        inner.release(attachment.address.addr(), &attachment.ports);
        unpublished.and(deleted)
    }

    /// Takes up the attachments of containers that live on after a restart of the manager: addresses and ports are theirs, rules come back.
    ///
    /// # Errors
    /// When the bridge or the rules cannot be restored; a port that another program took meanwhile is only logged.
    pub fn restore(&self, live: &[Attachment]) -> Result<()> {
        if live.is_empty() {
            return Ok(());
        }
        let mut guard = self.lock();
        let inner = &mut *guard;
        let bridge = self.ensure_bridge(inner)?;
        for attachment in live {
            bridge.ipam.take(attachment.address.addr());
        }
        for attachment in live {
            inner.ports.adopt(&attachment.container, &attachment.ports);
        }
        self.firewall.restore(live)
    }

    /// Removes the bridge and our nftables table: for `./run uninstall` and tests. Containers must be gone.
    ///
    /// # Errors
    /// What the kernel says; a missing bridge or table is no error.
    pub fn teardown(&self) -> Result<()> {
        let mut inner = self.lock();
        inner.bridge = None;
        let rules = self.firewall.remove();
        rules.and(delete_link(&self.config.bridge))
    }

    pub fn check() -> Vec<Finding> {
        crate::check::check()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The bridge, its rules and forwarding; verified against the kernel each time, since an administrator may have removed it.
    fn ensure_bridge<'a>(&self, inner: &'a mut Inner) -> Result<&'a mut Bridge> {
        let netlink = Netlink::open()?;
        let present = netlink.link_index(&self.config.bridge)?;
        let known = inner.bridge.take().filter(|bridge| present == Some(bridge.index));
        let bridge = match known {
            Some(bridge) => bridge,
            None => self.make_bridge(&netlink, present)?,
        };
        Ok(inner.bridge.insert(bridge))
    }

    fn make_bridge(&self, netlink: &Netlink, present: Option<u32>) -> Result<Bridge> {
        let name = &self.config.bridge;
        let adopted = match present {
            Some(index) => netlink.ipv4_addresses()?.into_iter().find(|(link, _)| *link == index).map(|(_, net)| net),
            None => None,
        };
        let address = match adopted {
            Some(address) => address,
            None => ipam::gateway_of(ipam::choose_subnet(self.config.subnet, &netlink.ipv4_networks()?)?),
        };
        let index = match present {
            Some(index) => index,
            None => netlink.create_link(name, &LinkKind::Bridge)?,
        };
        let result = self.configure_bridge(netlink, index, address, adopted.is_none());
        if present.is_none() && result.is_err() {
            log_undo(delete_link(name));
        }
        result?;
        let info = BridgeInfo { name: name.clone(), subnet: address.trunc(), gateway: address.addr() };
        Ok(Bridge { ipam: Ipam::new(info.subnet, info.gateway), info, index })
    }

    fn configure_bridge(&self, netlink: &Netlink, index: u32, address: ipnet::Ipv4Net, assign: bool) -> Result<()> {
        let name = &self.config.bridge;
        if assign {
            netlink.add_address(index, address)?;
        }
        netlink.set_up(index)?;
        sysctl::enable("net/ipv4/ip_forward")?;
        // A published port is reached from 127.0.0.1 by DNAT; the rules drop such addresses that arrive from the bridge.
        sysctl::enable(&format!("net/ipv4/conf/{name}/route_localnet"))?;
        self.firewall.install(name, address.trunc())
    }
}

impl Inner {
    fn release(&mut self, address: std::net::Ipv4Addr, ports: &[crate::BoundPort]) {
        if let Some(bridge) = &mut self.bridge {
            bridge.ipam.release(address);
        }
        self.ports.release(ports);
    }
}

/// Makes the veth pair with one end in the namespace, and gives that end its address and default route.
fn connect(attachment: &Attachment, bridge_index: u32) -> Result<()> {
    let host = Netlink::open()?;
    let namespace = netns::open(&attachment.netns)?;
    let inside = Netlink::open_in(&attachment.netns)?;
    let pair = LinkKind::Veth { peer: "eth0", peer_netns: &namespace, peer_mac: attachment.mac, bridge: bridge_index };
    let index =
        host.create_link(&attachment.host_link, &pair).map_err(|err| err.context(format!("connect container {}", attachment.container)))?;
    let configure = || {
        host.set_up(index)?;
        let eth0 = inside.link_index("eth0")?.ok_or_else(|| Error::internal("eth0 vanished from the container's network namespace"))?;
        inside.add_address(eth0, attachment.address)?;
        inside.set_up(eth0)?;
        inside.add_default_route(attachment.gateway)
    };
    configure().inspect_err(|_| log_undo(delete_link(&attachment.host_link)))
}

fn delete_link(name: &str) -> Result<()> {
    match Netlink::open()?.delete_link(name) {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An undo step that fails must not hide the error it undoes, but must be told.
fn log_undo(result: Result<()>) {
    if let Err(err) = result {
        tracing::warn!("undoing a failed network operation: {err}");
    }
}

/// Interface names have at most 15 bytes; eleven hex digits of the id make a clash improbable, and a clash is an error, not a mix-up.
fn host_link_name(container: &str) -> String {
    let digits: String = container.chars().filter(char::is_ascii_alphanumeric).take(11).collect();
    format!("veth{digits}")
}
