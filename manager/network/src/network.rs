//! The service: bridge networks, namespaces, attachments.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use rcontainerd_types::{Error, ErrorKind, Finding, Result};

use crate::bridges::{Bridge, Up};
use crate::firewall::Firewall;
use crate::model::{AttachRequest, Attachment, BoundPort, BridgeInfo, BridgeNetwork, DEFAULT_NETWORK, NetworkConfig};
use crate::netlink::Netlink;
use crate::ports::Reservations;
use crate::veth::{self, log_undo};
use crate::{ipam, netns};

/// Networks of one manager. Methods block; call them from a blocking thread.
pub struct Network {
    netns_dir: PathBuf,
    firewall: Firewall,
    inner: Mutex<Inner>,
}

struct Inner {
    /// By network id; the default bridge is always there.
    bridges: BTreeMap<String, Bridge>,
    ports: Reservations,
    /// What is connected, by container and network: the rules are made anew from it.
    live: BTreeMap<(String, String), Attachment>,
    /// Whether the kernel took the rules of the bridges that stand: without them nobody is connected.
    ruled: bool,
}

impl Network {
    /// Prepares the service; the host is not touched before the first attachment.
    ///
    /// # Errors
    /// `InvalidArgument` for a bridge name or subnet that the kernel would refuse.
    pub fn open(config: NetworkConfig) -> Result<Self> {
        let default = Bridge::new(BridgeNetwork { subnet: config.subnet, ..BridgeNetwork::new(DEFAULT_NETWORK, config.bridge) })?;
        netns::ensure_dir(&config.netns_dir)?;
        let firewall = Firewall::new(&config.nft_table)?;
        let bridges = BTreeMap::from([(DEFAULT_NETWORK.to_owned(), default)]);
        let inner = Inner { bridges, ports: Reservations::default(), live: BTreeMap::new(), ruled: false };
        Ok(Self { netns_dir: config.netns_dir, firewall, inner: Mutex::new(inner) })
    }

    /// The default bridge, made now if it is not there yet.
    ///
    /// # Errors
    /// When the kernel refuses the bridge, or no subnet is free.
    pub fn bridge(&self) -> Result<BridgeInfo> {
        self.ensure(&mut self.lock(), DEFAULT_NETWORK)
    }

    /// A network's bridge if it was made already; never touches the host.
    pub fn existing_bridge(&self, network: &str) -> Option<BridgeInfo> {
        self.lock().bridges.get(network)?.up().map(|up| up.info.clone())
    }

    /// Makes a new network with its bridge, and says which subnet it got; the owner keeps the definition with that subnet.
    ///
    /// # Errors
    /// `AlreadyExists` for an id or a bridge's name in use, `Conflict` for a subnet in use, `InvalidArgument` for a definition that
    /// contradicts itself.
    pub fn create(&self, definition: &BridgeNetwork) -> Result<BridgeInfo> {
        let mut inner = self.lock();
        let name = &definition.bridge;
        if Netlink::open()?.link_index(name)?.is_some() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("an interface with the name {name} exists already; name another bridge"),
            ));
        }
        // As in Docker the default bridge has the first pool, whoever comes first.
        self.ensure(&mut inner, DEFAULT_NETWORK)?;
        inner.define(definition)?;
        self.ensure(&mut inner, &definition.id).inspect_err(|_| {
            inner.bridges.remove(&definition.id);
        })
    }

    /// Takes up networks that an earlier manager made; the host is not touched before their first attachment.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn define(&self, definitions: &[BridgeNetwork]) -> Result<()> {
        let mut inner = self.lock();
        definitions.iter().try_for_each(|definition| inner.define(definition))
    }

    /// Removes a network, its bridge and its rules; one that is not known is no error.
    ///
    /// # Errors
    /// `Conflict` while containers are connected; what the kernel says.
    pub fn remove(&self, network: &str) -> Result<()> {
        let mut inner = self.lock();
        if let Some((container, _)) = inner.live.keys().find(|(_, on)| on == network) {
            let container = rcontainerd_types::id::short(container);
            return Err(Error::conflict(format!("network {network} has active endpoints: container {container} is connected")));
        }
        let Some(mut bridge) = inner.bridges.remove(network) else { return Ok(()) };
        let stood = bridge.up().is_some();
        let lowered = bridge.lower();
        let rules = if stood { self.install(&mut inner) } else { Ok(()) };
        lowered.and(rules)
    }

    /// A new network namespace with its loopback up, kept alive by a bind mount.
    ///
    /// # Errors
    /// `AlreadyExists` for an id in use; what unshare(2) and mount(2) say otherwise.
    pub fn create_netns(&self, id: &str) -> Result<PathBuf> {
        let path = netns::create(&self.netns_dir, id)?;
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

    /// Connects a namespace to a network and publishes its ports.
    ///
    /// # Errors
    /// `NotFound` for an unknown network, `ResourceExhausted` without a free address or port, `Conflict` for a port that is taken;
    /// nothing is left behind.
    pub fn attach(&self, request: &AttachRequest) -> Result<Attachment> {
        let mut guard = self.lock();
        self.ensure(&mut guard, &request.network)?;
        let inner = &mut *guard;
        let (bridge, up) = inner.standing(&request.network)?;
        let definition = bridge.clone();
        let (info, index) = (up.info.clone(), up.index);
        let address = up.ipam.allocate(request.ip)?;
        let ports = match inner.ports.reserve(&request.container, &request.ports) {
            Ok(ports) => ports,
            Err(err) => {
                inner.release(&request.network, address.addr(), &[]);
                return Err(err);
            }
        };
        let attachment = Attachment {
            container: request.container.clone(),
            network: request.network.clone(),
            netns: request.netns.clone(),
            bridge: info.name,
            host_link: veth::host_link_name(&request.container, &request.network),
            interface: request.interface.clone(),
            address,
            gateway: info.gateway,
            mac: request.mac.unwrap_or_else(|| ipam::mac_of(address.addr())),
            ports,
        };
        let port = veth::Port {
            bridge: index,
            isolated: !definition.inter_container,
            mtu: definition.mtu,
            default_route: request.default_route && !definition.internal,
        };
        veth::connect(&attachment, &port, &request.link_local)
            .and_then(|()| self.publish(inner, &attachment).inspect_err(|_| log_undo(veth::delete(&attachment.host_link))))
            .inspect_err(|_| inner.release(&attachment.network, attachment.address.addr(), &attachment.ports))?;
        inner.live.insert(key(&attachment), attachment.clone());
        Ok(attachment)
    }

    /// Takes back what [`Self::attach`] made; parts that are gone already are no error.
    ///
    /// # Errors
    /// The first failure, after every part was tried.
    pub fn detach(&self, attachment: &Attachment) -> Result<()> {
        let mut inner = self.lock();
        let unpublished = self.firewall.unpublish(attachment);
        let deleted = veth::delete(&attachment.host_link);
        inner.release(&attachment.network, attachment.address.addr(), &attachment.ports);
        inner.live.remove(&key(attachment));
        unpublished.and(deleted)
    }

    /// Leads a container's default route by this network, after the one that it had went away.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lead_out(&self, attachment: &Attachment) -> Result<()> {
        Netlink::open_in(&attachment.netns)?.add_default_route(attachment.gateway)
    }

    /// Takes up the attachments of containers that live on after a restart of the manager: addresses and ports are theirs, rules come back.
    ///
    /// # Errors
    /// When a bridge or the rules cannot be restored; a port that another program took meanwhile is only logged.
    pub fn restore(&self, live: &[Attachment]) -> Result<()> {
        if live.is_empty() {
            return Ok(());
        }
        let mut inner = self.lock();
        for attachment in live {
            inner.live.insert(key(attachment), attachment.clone());
            inner.ports.adopt(&attachment.container, &attachment.ports);
        }
        self.rebuild(&mut inner)
    }

    /// Makes bridges and rules right again after somebody changed them behind our back.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn repair(&self) -> Result<()> {
        self.rebuild(&mut self.lock())
    }

    /// Every network with live containers, then the rules; one network that cannot be restored does not keep the others from it.
    fn rebuild(&self, inner: &mut Inner) -> Result<()> {
        let netlink = Netlink::open()?;
        let networks: BTreeSet<String> = inner.live.values().map(|attachment| attachment.network.clone()).collect();
        let raised = networks.iter().map(|network| inner.raise(&netlink, network).map(drop)).fold(Ok(()), Result::and);
        let stand = inner.bridges.values().any(|bridge| bridge.up.is_some());
        raised.and(if stand { self.install(inner) } else { Ok(()) })
    }

    /// Whether the rules that should be there are there.
    ///
    /// # Errors
    /// When netfilter cannot be asked.
    pub(crate) fn rules_stand(&self) -> Result<bool> {
        let inner = self.lock();
        Ok(inner.bridges.values().all(|bridge| bridge.up.is_none()) || self.firewall.stands()?)
    }

    /// What is lacking for those that are connected: rules, bridges, links; empty when all is there.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn verify(&self) -> Result<Vec<String>> {
        let inner = self.lock();
        if inner.live.is_empty() {
            return Ok(Vec::new());
        }
        let netlink = Netlink::open()?;
        let mut lacks = Vec::new();
        if !self.firewall.stands()? {
            lacks.push("the firewall rules are gone or not ours any more".to_owned());
        }
        let links = inner.live.values().flat_map(|attachment| [&attachment.bridge, &attachment.host_link]).collect::<BTreeSet<_>>();
        for link in links {
            if netlink.link_index(link)?.is_none() {
                lacks.push(format!("the interface {link} is gone"));
            }
        }
        Ok(lacks)
    }

    /// What is connected by an interface that is gone: a manager was killed while it disconnected it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn lost(&self) -> Result<Vec<Attachment>> {
        let inner = self.lock();
        if inner.live.is_empty() {
            return Ok(Vec::new());
        }
        let netlink = Netlink::open()?;
        let mut lost = Vec::new();
        for attachment in inner.live.values() {
            if netlink.link_index(&attachment.host_link)?.is_none() {
                lost.push(attachment.clone());
            }
        }
        Ok(lost)
    }

    /// As [`Self::delete_netns`], for one that no manager knows.
    ///
    /// # Errors
    /// What umount2(2) and unlink(2) say.
    pub fn remove_netns(path: &Path) -> Result<()> {
        netns::remove(path)
    }

    /// Removes all bridges and our nftables table: for `./run uninstall` and tests. Containers must be gone.
    ///
    /// # Errors
    /// What the kernel says; a missing bridge or table is no error.
    pub fn teardown(&self) -> Result<()> {
        let mut inner = self.lock();
        let rules = self.firewall.remove();
        let lowered = inner.bridges.values_mut().map(Bridge::lower).fold(Ok(()), Result::and);
        rules.and(lowered)
    }

    pub fn check() -> Vec<Finding> {
        crate::check::check()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network's bridge with its rules; verified against the kernel each time.
    fn ensure(&self, inner: &mut Inner, network: &str) -> Result<BridgeInfo> {
        if inner.raise(&Netlink::open()?, network)? || !inner.ruled {
            self.install(inner)?;
        }
        inner.standing(network).map(|(_, up)| up.info.clone())
    }

    fn install(&self, inner: &mut Inner) -> Result<()> {
        let bridges: Vec<_> = inner.bridges.values().filter_map(Bridge::rules).collect();
        let installed = self.firewall.install(&bridges, &inner.live.values().collect::<Vec<_>>());
        inner.ruled = installed.is_ok();
        installed
    }

    /// Where somebody flushed the table, all of it is made anew.
    fn publish(&self, inner: &mut Inner, attachment: &Attachment) -> Result<()> {
        match self.firewall.publish(attachment) {
            Err(err) if err.kind() == ErrorKind::NotFound => {
                inner.live.insert(key(attachment), attachment.clone());
                self.install(inner).inspect_err(|_| {
                    inner.live.remove(&key(attachment));
                })
            }
            other => other,
        }
    }
}

impl Inner {
    fn define(&mut self, definition: &BridgeNetwork) -> Result<()> {
        let known = self.bridges.values().map(|bridge| &bridge.definition);
        if let Some(other) = known.into_iter().find(|known| known.id == definition.id || known.bridge == definition.bridge) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("network {} uses the bridge {} already; name another bridge", other.id, other.bridge),
            ));
        }
        self.bridges.insert(definition.id.clone(), Bridge::new(definition.clone())?);
        Ok(())
    }

    /// Makes the bridge unless it stands, with the containers that live on it; says whether there was something to do.
    fn raise(&mut self, netlink: &Netlink, network: &str) -> Result<bool> {
        let others: Vec<Ipv4Net> = self.bridges.iter().filter(|(id, _)| *id != network).filter_map(|(_, bridge)| bridge.subnet()).collect();
        let bridge = self.bridges.get_mut(network).ok_or_else(|| unknown(network))?;
        if bridge.stands(netlink)? {
            return Ok(false);
        }
        let live: Vec<&Attachment> = self.live.values().filter(|attachment| attachment.network == network).collect();
        bridge.raise(netlink, &others, live.iter().map(|attachment| attachment.address.addr()))?;
        let index = bridge.up().map_or(0, |up| up.index);
        for attachment in live {
            // Ports of a bridge that was deleted by hand have lost it; one that is gone with its container is no error.
            if let Some(link) = netlink.link_index(&attachment.host_link)? {
                netlink.enslave(link, index)?;
            }
        }
        Ok(true)
    }

    fn standing(&mut self, network: &str) -> Result<(&BridgeNetwork, &mut Up)> {
        let Bridge { definition, up } = self.bridges.get_mut(network).ok_or_else(|| unknown(network))?;
        let up = up.as_mut().ok_or_else(|| Error::internal(format!("the bridge of network {network} vanished")))?;
        Ok((definition, up))
    }

    fn release(&mut self, network: &str, address: Ipv4Addr, ports: &[BoundPort]) {
        if let Some(up) = self.bridges.get_mut(network).and_then(Bridge::up_mut) {
            up.ipam.release(address);
        }
        self.ports.release(ports);
    }
}

fn key(attachment: &Attachment) -> (String, String) {
    (attachment.container.clone(), attachment.network.clone())
}

fn unknown(network: &str) -> Error {
    Error::not_found(format!("network {network} not found"))
}
