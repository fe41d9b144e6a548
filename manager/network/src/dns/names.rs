//! Who is called what, where.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::message::{Kind, Query, Record, fits};

/// A container on a network, under all the names that it has there: its own, its aliases, its short id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub container: String,
    pub network: String,
    /// The network's name, the domain under which reverse look-ups show the container.
    pub domain: String,
    /// The first one is what reverse look-ups show.
    pub names: Vec<String>,
    pub address: Ipv4Addr,
}

/// What one container may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Ids of its networks, in the order in which names are looked up.
    pub networks: Vec<String>,
    /// What this container alone calls others (Docker's links): by network id, alias → name there.
    #[serde(default)]
    pub links: BTreeMap<String, BTreeMap<String, String>>,
    /// Servers for every other name; none: such names are refused.
    pub upstream: Vec<SocketAddr>,
}

/// All endpoints, by network.
#[derive(Debug, Default)]
pub struct Names {
    networks: HashMap<String, BTreeMap<String, Endpoint>>,
    /// Counts look-ups: answers with several addresses start with another one each time.
    turn: usize,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Known(Vec<Record>),
    Forward,
}

impl Names {
    pub fn join(&mut self, endpoint: Endpoint) {
        self.networks.entry(endpoint.network.clone()).or_default().insert(endpoint.container.clone(), endpoint);
    }

    pub fn leave(&mut self, network: &str, container: &str) {
        if let Some(endpoints) = self.networks.get_mut(network) {
            endpoints.remove(container);
            if endpoints.is_empty() {
                self.networks.remove(network);
            }
        }
    }

    /// A name that is known has no record of other kinds, rather than being asked of others: they would know another one by it.
    pub fn look_up(&mut self, view: &View, query: &Query) -> Outcome {
        if let Some(address) = query.reverse() {
            return self.pointer(view, address).map_or(Outcome::Forward, |name| Outcome::Known(vec![Record::Pointer(name)]));
        }
        let addresses = self.addresses(view, &query.name);
        if addresses.is_empty() {
            return Outcome::Forward;
        }
        if !matches!(query.kind, Kind::A | Kind::Aaaa) {
            return Outcome::Known(Vec::new());
        }
        let mut records: Vec<Record> =
            addresses.into_iter().map(IpAddr::V4).filter(|ip| fits(query.kind, *ip)).map(Record::Address).collect();
        if !records.is_empty() {
            self.turn = self.turn.wrapping_add(1);
            let first = self.turn % records.len();
            records.rotate_left(first);
        }
        Outcome::Known(records)
    }

    /// Those of the first network that knows the name, also under `name.network`.
    fn addresses(&self, view: &View, name: &str) -> Vec<Ipv4Addr> {
        let on = |network: &String| -> Vec<Ipv4Addr> {
            let links = view.links.get(network).into_iter().flatten();
            let name = links.into_iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map_or(name, |(_, linked)| linked);
            let endpoints = self.networks.get(network).into_iter().flat_map(BTreeMap::values);
            endpoints.filter(|endpoint| endpoint.is_called(name)).map(|endpoint| endpoint.address).collect()
        };
        view.networks.iter().map(on).find(|found| !found.is_empty()).unwrap_or_default()
    }

    fn pointer(&self, view: &View, address: Ipv4Addr) -> Option<String> {
        let endpoints = view.networks.iter().filter_map(|network| self.networks.get(network)).flat_map(BTreeMap::values);
        let found = endpoints.into_iter().find(|endpoint| endpoint.address == address)?;
        Some(format!("{}.{}", found.names.first()?, found.domain))
    }
}

impl Endpoint {
    fn is_called(&self, name: &str) -> bool {
        let short = name.strip_suffix(&self.domain.to_ascii_lowercase()).and_then(|rest| rest.strip_suffix('.'));
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name) || short.is_some_and(|short| own.eq_ignore_ascii_case(short)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(network: &str, container: &str, names: &[&str], last: u8) -> Endpoint {
        Endpoint {
            container: container.into(),
            network: network.into(),
            domain: format!("{network}-net"),
            names: names.iter().map(ToString::to_string).collect(),
            address: Ipv4Addr::new(10, 0, 0, last),
        }
    }

    fn ask(names: &mut Names, networks: &[&str], name: &str, kind: u8) -> Outcome {
        let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).expect("short"));
            message.extend(label.bytes());
        }
        message.extend([0, 0, kind, 0, 1]);
        let view = View { networks: networks.iter().map(ToString::to_string).collect(), ..View::default() };
        names.look_up(&view, &Query::parse(&message).expect("a question"))
    }

    fn address(last: u8) -> Record {
        Record::Address(Ipv4Addr::new(10, 0, 0, last).into())
    }

    #[test]
    fn a_container_knows_its_networks_names_and_no_others() {
        let mut names = Names::default();
        names.join(endpoint("a", "c1", &["Web", "alias", "c1"], 2));
        names.join(endpoint("b", "c2", &["db"], 3));
        for called in ["web", "ALIAS", "c1", "web.a-net"] {
            assert_eq!(ask(&mut names, &["a"], called, 1), Outcome::Known(vec![address(2)]), "{called}");
        }
        assert_eq!(ask(&mut names, &["a"], "db", 1), Outcome::Forward);
        assert_eq!(ask(&mut names, &["a", "b"], "db", 1), Outcome::Known(vec![address(3)]));
        assert_eq!(ask(&mut names, &["a"], "web", 28), Outcome::Known(vec![]), "no IPv6 address, and nobody else is asked for one");
        assert_eq!(ask(&mut names, &["a"], "web", 15), Outcome::Known(vec![]));
        assert_eq!(ask(&mut names, &["a"], "2.0.0.10.in-addr.arpa", 12), Outcome::Known(vec![Record::Pointer("Web.a-net".into())]));
        assert_eq!(ask(&mut names, &["a"], "3.0.0.10.in-addr.arpa", 12), Outcome::Forward);
        names.leave("a", "c1");
        assert_eq!(ask(&mut names, &["a"], "web", 1), Outcome::Forward);
    }

    #[test]
    fn a_link_is_known_to_its_container_alone() {
        let mut names = Names::default();
        names.join(endpoint("a", "c1", &["db"], 2));
        let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 5];
        message.extend(b"store\0\0\x01\0\x01");
        let query = Query::parse(&message).expect("a question");
        let plain = View { networks: vec!["a".into()], ..View::default() };
        let linked = View { links: [("a".into(), [("Store".into(), "db".into())].into())].into(), ..plain.clone() };
        assert_eq!(names.look_up(&linked, &query), Outcome::Known(vec![address(2)]));
        assert_eq!(names.look_up(&plain, &query), Outcome::Forward);
    }

    #[test]
    fn a_shared_name_leads_to_all_in_turn() {
        let mut names = Names::default();
        names.join(endpoint("a", "c1", &["app"], 2));
        names.join(endpoint("a", "c2", &["app"], 3));
        let first = |names: &mut Names| match ask(names, &["a"], "app", 1) {
            Outcome::Known(records) => records[0].clone(),
            Outcome::Forward => panic!("known"),
        };
        assert_ne!(first(&mut names), first(&mut names));
    }
}
