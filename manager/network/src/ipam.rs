//! Addresses of the default bridge: which subnet, and which address next.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rcontainerd_types::{Error, ErrorKind, Result};

/// Docker's default address pools (`daemon/libnetwork/ipamutils`): 172.17–31.0.0/16, then 192.168.0.0/16 in /20.
fn pools() -> impl Iterator<Item = Ipv4Net> {
    let sixteens = (17..=31).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 0), 16));
    let twenties = (0..16).map(|third| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third * 16, 0), 20));
    sixteens.chain(twenties)
}

/// The configured subnet, or the first pool that overlaps nothing of `taken`: what the host routes, and other networks.
pub fn choose_subnet(configured: Option<Ipv4Net>, taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    let overlaps = |net: &Ipv4Net| taken.iter().find(|other| other.prefix_len() > 0 && (net.contains(*other) || other.contains(net)));
    if let Some(net) = configured {
        return match overlaps(&net) {
            Some(other) => Err(Error::conflict(format!(
                "subnet {net} overlaps {other}, which this host routes or another network has already; choose another subnet"
            ))),
            None => Ok(net.trunc()),
        };
    }
    pools().find(|net| overlaps(net).is_none()).ok_or_else(|| {
        Error::new(
            ErrorKind::ResourceExhausted,
            "every default address pool overlaps a route of this host or another network; name a subnet (--subnet)",
        )
    })
}

/// The first host address, with the subnet's prefix length.
pub fn gateway_of(subnet: Ipv4Net) -> Ipv4Net {
    let first = u32::from(subnet.network()) + 1;
    Ipv4Net::new_assert(first.into(), subnet.prefix_len())
}

/// Docker's derived MAC: the locally administered 02:42 and the address.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Addresses given out on one subnet: the lowest free one, as Docker users are used to find the first container at `.2`.
#[derive(Debug)]
pub struct Ipam {
    subnet: Ipv4Net,
    /// Where addresses are taken from; the subnet or a part of it.
    range: Ipv4Net,
    used: BTreeSet<Ipv4Addr>,
}

impl Ipam {
    /// `reserved` are never given out: the gateway and what the user set aside.
    pub fn new(subnet: Ipv4Net, range: Option<Ipv4Net>, reserved: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        Self { subnet, range: range.unwrap_or(subnet), used: reserved.into_iter().collect() }
    }

    pub fn allocate(&mut self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Net> {
        let address = match wanted {
            Some(address) => self.check_wanted(address)?,
            None => self.next_free()?,
        };
        self.used.insert(address);
        Ok(Ipv4Net::new_assert(address, self.subnet.prefix_len()))
    }

    /// Marks an address as used without asking; for containers that run already.
    pub fn take(&mut self, address: Ipv4Addr) {
        self.used.insert(address);
    }

    pub fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }

    fn check_wanted(&self, address: Ipv4Addr) -> Result<Ipv4Addr> {
        let reserved = address == self.subnet.network() || address == self.subnet.broadcast();
        if !self.subnet.contains(&address) || reserved {
            return Err(Error::invalid(format!("address {address} is not a host address of the network's subnet {}", self.subnet)));
        }
        if self.used.contains(&address) {
            return Err(Error::conflict(format!("address {address} is already in use on the network {}", self.subnet)));
        }
        Ok(address)
    }

    fn next_free(&self) -> Result<Ipv4Addr> {
        let edges = [self.subnet.network(), self.subnet.broadcast()];
        let (first, last) = (u32::from(self.range.network()), u32::from(self.range.broadcast()));
        let free = |address: &Ipv4Addr| !edges.contains(address) && !self.used.contains(address);
        (first..=last).map(Ipv4Addr::from).find(free).ok_or_else(|| {
            Error::new(ErrorKind::ResourceExhausted, format!("no free address is left in the network's range {}", self.range))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().expect(text)
    }

    #[test]
    fn subnets_of_the_host_are_avoided() {
        assert_eq!(choose_subnet(None, &[]).expect("free"), net("172.17.0.0/16"));
        let routed = [net("0.0.0.0/0"), net("172.17.0.0/16"), net("172.16.0.0/15"), net("172.18.5.0/24")];
        assert_eq!(choose_subnet(None, &routed).expect("free"), net("172.19.0.0/16"));
        assert_eq!(choose_subnet(None, &[net("172.16.0.0/12")]).expect("free"), net("192.168.0.0/20"));
        assert!(choose_subnet(None, &[net("172.0.0.0/8"), net("192.168.0.0/16")]).is_err());
        assert!(choose_subnet(Some(net("10.1.0.0/16")), &[net("10.1.2.0/24")]).is_err());
    }

    #[test]
    fn the_lowest_free_address_is_next_and_the_end_is_told() {
        let subnet = net("10.0.0.0/29");
        let mut ipam = Ipam::new(subnet, None, [gateway_of(subnet).addr()]);
        let first = ipam.allocate(None).expect("free").addr();
        assert_eq!(first, Ipv4Addr::new(10, 0, 0, 2));
        ipam.release(first);
        for last in [2, 3, 4, 5, 6] {
            assert_eq!(ipam.allocate(None).expect("free").addr().octets()[3], last);
        }
        assert_eq!(ipam.allocate(None).expect_err("exhausted").kind(), ErrorKind::ResourceExhausted);
    }

    #[test]
    fn a_range_and_reserved_addresses_bound_what_is_given() {
        let reserved = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 4)];
        let mut ipam = Ipam::new(net("10.0.0.0/24"), Some(net("10.0.0.4/30")), reserved);
        for last in [5, 6, 7] {
            assert_eq!(ipam.allocate(None).expect("free"), Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, last), 24));
        }
        assert!(ipam.allocate(None).is_err(), "the range is used up");
        assert!(ipam.allocate(Some(Ipv4Addr::new(10, 0, 0, 4))).is_err(), "reserved");
    }

    #[test]
    fn wanted_addresses_are_checked() {
        let subnet = net("10.0.0.0/24");
        let mut ipam = Ipam::new(subnet, None, [gateway_of(subnet).addr()]);
        for bad in ["10.0.0.0", "10.0.0.255", "10.0.1.1", "10.0.0.1"] {
            assert!(ipam.allocate(Some(bad.parse().expect(bad))).is_err(), "{bad} should be refused");
        }
        assert!(ipam.allocate(Some(Ipv4Addr::new(10, 0, 0, 9))).is_ok());
    }
}
