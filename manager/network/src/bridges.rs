//! One bridge network: its definition, and its bridge in the kernel once somebody needed it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rcontainerd_types::{Error, Result};

use crate::firewall::BridgeRules;
use crate::ipam::{self, Ipam};
use crate::model::{BridgeInfo, BridgeNetwork};
use crate::netlink::{LinkKind, Netlink};
use crate::{sysctl, veth};

pub struct Bridge {
    pub definition: BridgeNetwork,
    pub up: Option<Up>,
}

/// The bridge in the kernel, with the addresses given out on it.
pub struct Up {
    pub info: BridgeInfo,
    pub index: u32,
    pub ipam: Ipam,
}

impl Bridge {
    /// Judges the definition; touches nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for what the kernel or plain arithmetic would refuse.
    pub fn new(definition: BridgeNetwork) -> Result<Self> {
        let name = &definition.bridge;
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ', ':', '"']) {
            return Err(Error::invalid(format!(
                "bridge name {name:?} is invalid: expected 1 to 15 bytes without '/', ':', quotes and blanks"
            )));
        }
        let Some(subnet) = definition.subnet else {
            let orphan = definition.gateway.is_some() || definition.ip_range.is_some();
            return if orphan { Err(Error::invalid("a gateway or an IP range needs a subnet")) } else { Ok(Self { definition, up: None }) };
        };
        if subnet.prefix_len() > 30 {
            return Err(Error::invalid(format!("bridge subnet {subnet} is too small: expected a prefix of /30 or shorter")));
        }
        let outside = definition.gateway.iter().chain(&definition.reserved).find(|address| !subnet.contains(*address));
        if let Some(address) = outside {
            return Err(Error::invalid(format!("address {address} is not of the subnet {subnet}")));
        }
        match definition.ip_range {
            Some(range) if !subnet.contains(&range) => {
                Err(Error::invalid(format!("IP range {range} is not a part of the subnet {subnet}")))
            }
            _ => Ok(Self { definition, up: None }),
        }
    }

    pub fn up(&self) -> Option<&Up> {
        self.up.as_ref()
    }

    pub fn up_mut(&mut self) -> Option<&mut Up> {
        self.up.as_mut()
    }

    /// The subnet as asked for, or as chosen.
    pub fn subnet(&self) -> Option<Ipv4Net> {
        self.up.as_ref().map(|up| up.info.subnet).or(self.definition.subnet)
    }

    /// Whether the kernel still has the bridge that we know: an administrator may have removed it.
    pub fn stands(&self, netlink: &Netlink) -> Result<bool> {
        let Some(up) = &self.up else { return Ok(false) };
        Ok(netlink.link_index(&self.definition.bridge)? == Some(up.index))
    }

    /// Makes the bridge, or takes up the one that is there. `others` are subnets of other networks, `used` addresses of containers
    /// that live on it.
    pub fn raise(&mut self, netlink: &Netlink, others: &[Ipv4Net], used: impl IntoIterator<Item = Ipv4Addr>) -> Result<()> {
        let definition = &self.definition;
        let present = netlink.link_index(&definition.bridge)?;
        let address = self.address(netlink, present, others)?;
        let index = match present {
            Some(index) => index,
            None => netlink.create_link(&definition.bridge, &LinkKind::Bridge { mtu: definition.mtu })?,
        };
        let made = configure(netlink, index, &definition.bridge, address);
        if present.is_none() && made.is_err() {
            veth::log_undo(veth::delete(&definition.bridge));
        }
        made?;
        let info = BridgeInfo { name: definition.bridge.clone(), subnet: address.trunc(), gateway: address.addr() };
        let mut ipam = Ipam::new(info.subnet, definition.ip_range, definition.reserved.iter().copied().chain([info.gateway]));
        used.into_iter().for_each(|address| ipam.take(address));
        self.up = Some(Up { info, index, ipam });
        Ok(())
    }

    /// The bridge's own address: the one that it has, or the one that the definition and the host's routes allow.
    fn address(&self, netlink: &Netlink, present: Option<u32>, others: &[Ipv4Net]) -> Result<Ipv4Net> {
        let definition = &self.definition;
        let addresses = netlink.ipv4_addresses()?;
        let held = addresses.iter().filter(|(link, _)| Some(*link) == present).map(|(_, net)| *net);
        let fits = |net: &Ipv4Net| self.subnet().is_none_or(|subnet| subnet.trunc() == net.trunc());
        if let Some(held) = held.into_iter().find(fits) {
            return Ok(held);
        }
        let taken: Vec<Ipv4Net> = netlink.ipv4_networks()?.into_iter().chain(others.iter().copied()).collect();
        let subnet = ipam::choose_subnet(self.subnet(), &taken)?;
        let gateway = definition.gateway.or_else(|| self.up.as_ref().map(|up| up.info.gateway));
        Ok(gateway.map_or_else(|| ipam::gateway_of(subnet), |gateway| Ipv4Net::new_assert(gateway, subnet.prefix_len())))
    }

    pub fn lower(&mut self) -> Result<()> {
        self.up = None;
        veth::delete(&self.definition.bridge)
    }

    /// What the firewall must know of it; nothing before it stands.
    pub fn rules(&self) -> Option<BridgeRules<'_>> {
        let definition = &self.definition;
        self.up.as_ref().map(|up| BridgeRules {
            bridge: &definition.bridge,
            subnet: up.info.subnet,
            internal: definition.internal,
            inter_container: definition.inter_container,
            masquerade: definition.masquerade,
        })
    }
}

fn configure(netlink: &Netlink, index: u32, name: &str, address: Ipv4Net) -> Result<()> {
    if !netlink.ipv4_addresses()?.contains(&(index, address)) {
        netlink.add_address(index, address)?;
    }
    netlink.set_up(index)?;
    sysctl::enable("net/ipv4/ip_forward")?;
    // A published port is reached from 127.0.0.1 by DNAT; the rules drop such addresses that arrive from the bridge.
    sysctl::enable(&format!("net/ipv4/conf/{name}/route_localnet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_that_contradict_themselves_are_refused() {
        let net = |text: &str| text.parse().expect(text);
        let refused = |change: fn(&mut BridgeNetwork)| {
            let mut definition = BridgeNetwork { subnet: Some(net("10.1.0.0/24")), ..BridgeNetwork::new("n", "br-n") };
            change(&mut definition);
            Bridge::new(definition).map(|_| ()).expect_err("refused").message().to_owned()
        };
        assert!(refused(|d| d.gateway = Some(Ipv4Addr::new(10, 2, 0, 1))).contains("10.2.0.1"));
        assert!(refused(|d| d.ip_range = Some("10.1.0.0/16".parse().expect("net"))).contains("10.1.0.0/16"));
        assert!(refused(|d| d.reserved = vec![Ipv4Addr::new(10, 2, 0, 9)]).contains("10.2.0.9"));
        assert!(refused(|d| d.subnet = Some("10.1.0.0/31".parse().expect("net"))).contains("too small"));
        assert!(refused(|d| d.bridge = "a b".into()).contains("bridge name"));
        assert!(refused(|d| d.bridge = "sixteen-bytes-ab".into()).contains("15 bytes"));
        assert!(
            refused(|d| {
                d.subnet = None;
                d.gateway = Some(Ipv4Addr::new(10, 1, 0, 1));
            })
            .contains("needs a subnet")
        );
    }
}
