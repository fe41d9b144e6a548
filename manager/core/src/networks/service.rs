//! The network service.

use std::collections::BTreeMap;
use std::sync::Arc;

use rcontainerd_types::{Error, Result};

use super::{IpamPool, Network, NetworkMember, id_of};
use crate::engine::Engine;
use crate::filters::Filters;

const FILTERS: &[&str] = &["name", "id", "driver", "type", "scope", "label", "label!", "dangling"];
const KINDS: &[(&str, &str)] = &[("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// Cheap to clone.
#[derive(Clone)]
pub struct Networks {
    engine: Arc<Engine>,
}

impl Networks {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// By name; filters `name`, `id`, `driver`, `type`, `scope`, `label`, `dangling`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn list(&self, filters: Filters) -> Result<Vec<Network>> {
        filters.accept(FILTERS)?;
        let dangling = filters.flag("dangling")?;
        let wanted = |network: &Network| {
            filters.any("name", |part| network.name.contains(part))
                && filters.any("id", |id| network.id.starts_with(id))
                && filters.any("driver", |driver| network.driver == driver)
                && filters.any("scope", |scope| scope == "local")
                && filters.any("type", |kind| kind == "builtin")
                && filters.labels(&network.labels)
                && dangling != Some(true)
        };
        Ok(self.all().into_iter().filter(wanted).collect())
    }

    /// By name, id or id prefix.
    ///
    /// # Errors
    /// `NotFound` (`network x not found`).
    pub async fn inspect(&self, name: &str) -> Result<Network> {
        let all = self.all();
        let by_name = all.iter().find(|network| network.name == name);
        let found = by_name.or_else(|| all.iter().find(|network| !name.is_empty() && network.id.starts_with(name)));
        found.cloned().ok_or_else(|| Error::not_found(format!("network {name} not found")))
    }

    fn all(&self) -> Vec<Network> {
        KINDS.iter().map(|(name, driver)| self.network(name, driver)).collect()
    }

    fn network(&self, name: &str, driver: &str) -> Network {
        let bridge = self.engine.network.existing_bridge().filter(|_| name == "bridge");
        let ipam =
            bridge.iter().map(|bridge| IpamPool { subnet: bridge.subnet.to_string(), gateway: bridge.gateway.to_string() }).collect();
        let options = bridge.iter().map(|bridge| ("com.docker.network.bridge.name".to_owned(), bridge.name.clone())).collect();
        Network {
            name: name.to_owned(),
            id: id_of(name),
            created: self.engine.opened,
            driver: driver.to_owned(),
            enable_ipv4: true,
            enable_ipv6: false,
            internal: false,
            ipam,
            options,
            labels: BTreeMap::new(),
            containers: self.members(name),
        }
    }

    fn members(&self, name: &str) -> BTreeMap<String, NetworkMember> {
        let running =
            self.engine.registry.all().into_iter().map(|entry| entry.record()).filter(|container| container.state.status.is_running());
        let on_it = running.filter(|container| container.host_config.network_mode == name);
        let member = |container: crate::containers::Container| {
            let endpoint = container.state.networks.get(name).cloned().unwrap_or_default();
            let address = |ip: &str, length: u8| if ip.is_empty() { String::new() } else { format!("{ip}/{length}") };
            let member = NetworkMember {
                ipv4_address: address(&endpoint.ipv4_address, endpoint.ipv4_prefix_len),
                ipv6_address: address(&endpoint.ipv6_address, endpoint.ipv6_prefix_len),
                endpoint_id: endpoint.endpoint_id,
                mac_address: endpoint.mac_address,
                name: container.name,
            };
            (container.id, member)
        };
        on_it.map(member).collect()
    }
}
