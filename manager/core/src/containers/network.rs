//! A run's network: the namespace, its interfaces, and the names that it is found by.
//!
//! ```text
//! Container ─plan→ [Member] ─join→ Connections (kept in STATE) ─release→ nothing
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rcontainerd_network::dns::{self, View};
use rcontainerd_network::files::{self, DnsOptions};
use rcontainerd_network::netd::Serve;
use rcontainerd_network::{AttachRequest, Attachment, BoundPort};
use rcontainerd_types::{Error, ErrorKind, Result, id};

use super::config::EndpointRequest;
use super::links;
use super::model::{Container, Endpoint, PublishedPort};
use super::outline::Outline;
use super::resolve;
use super::runstate::RunState;
use crate::engine::{Engine, blocking};
use crate::events::{EventKind, NewEvent};
use crate::networks::catalog::Found;

/// What a run holds of the network.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    pub netns: Option<PathBuf>,
    pub attachments: Vec<Attachment>,
}

/// One network that a container goes on.
pub(super) struct Member {
    pub found: Found,
    pub request: EndpointRequest,
}

/// The networks of a container, the one of its mode first; none for modes without a network of its own.
///
/// # Errors
/// `NotFound` for a network that is not there (any more).
pub(super) fn plan(engine: &Engine, container: &Container) -> Result<Vec<Member>> {
    let mode = container.host_config.network_mode.as_str();
    if resolve::other_container(mode).is_some() {
        return Ok(Vec::new());
    }
    let mut members = Vec::new();
    if !container.left_mode {
        members.push(Member { found: engine.networks.find(mode)?, request: EndpointRequest::default() });
    }
    for (name, request) in &container.endpoints {
        let found = engine.networks.find(name)?;
        match members.iter_mut().find(|member| member.found == found) {
            Some(member) => member.request = request.clone(),
            None => members.push(Member { found, request: request.clone() }),
        }
    }
    if let [first, second, ..] = members.as_slice()
        && let Some(lonely) = [first, second].into_iter().find(|member| member.found.bridge().is_none())
    {
        return Err(Error::invalid(format!("a container on the network {} cannot be on other networks", lonely.found.name())));
    }
    members.iter().try_for_each(check)?;
    members.retain(|member| member.found.bridge().is_some());
    Ok(members)
}

fn check(member: &Member) -> Result<()> {
    if member.request.aliases.is_empty() || matches!(member.found, Found::User(_)) {
        return Ok(());
    }
    Err(Error::invalid("network-scoped aliases are only supported for user-defined networks"))
}

/// Makes the namespace and connects it; what was made is in `state` also when something failed.
///
/// # Errors
/// Those of the network service.
pub(super) async fn join(engine: &Arc<Engine>, container: &Container, state: &mut RunState) -> Result<()> {
    let members = plan(engine, container)?;
    if members.is_empty() {
        return Ok(());
    }
    let (engine, container, mut made) = (Arc::clone(engine), container.clone(), state.clone());
    let (made, result) = blocking(move || {
        let result = join_all(&engine, &container, members, &mut made);
        Ok((made, result))
    })
    .await?;
    *state = made;
    result
}

fn join_all(engine: &Engine, container: &Container, members: Vec<Member>, state: &mut RunState) -> Result<()> {
    state.netns = Some(engine.network.create_netns(&container.id)?);
    for member in members {
        attach(engine, container, &member, state)?;
    }
    tell_names(engine, container, &state.connections())
}

/// Connects the namespace to one more network; ports are published by the first one that leads out.
pub(super) fn attach(engine: &Engine, container: &Container, member: &Member, state: &mut RunState) -> Result<()> {
    let leads_out = !is_internal(&member.found);
    let first_out = leads_out && first_out(engine, &state.attachments).is_none();
    let request = AttachRequest {
        network: member.found.bridge().unwrap_or_default().to_owned(),
        interface: free_interface(&state.attachments),
        default_route: first_out,
        container: container.id.clone(),
        netns: state.netns.clone().ok_or_else(|| Error::internal("a run without a network namespace"))?,
        mac: wanted_mac(container, member, state.attachments.is_empty())?,
        ip: wanted_ip(&member.request)?,
        link_local: link_local(&member.request)?,
        ports: if first_out { ports(container, &member.found)? } else { Vec::new() },
    };
    let attachment = engine.network.attach(&request)?;
    state.networks.insert(member.found.name().to_owned(), endpoint(container, member, &attachment));
    state.ports.extend(attachment.ports.iter().map(published));
    state.attachments.push(attachment);
    Ok(())
}

fn is_internal(found: &Found) -> bool {
    matches!(found, Found::User(record) if record.bridge.internal)
}

fn free_interface(attachments: &[Attachment]) -> String {
    let taken = |name: &String| attachments.iter().any(|attachment| attachment.interface == *name);
    (0..).map(|number| format!("eth{number}")).find(|name| !taken(name)).unwrap_or_default()
}

fn wanted_ip(request: &EndpointRequest) -> Result<Option<Ipv4Addr>> {
    match request.ipv4_address.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Error::invalid(format!("invalid IPv4 address: {text}"))),
    }
}

/// # Errors
/// `InvalidArgument` for what is no IPv4 address of 169.254.0.0/16.
pub(super) fn link_local(request: &EndpointRequest) -> Result<Vec<Ipv4Addr>> {
    let parse = |text: &String| match text.parse::<Ipv4Addr>() {
        Ok(ip) if ip.is_link_local() => Ok(ip),
        _ => Err(Error::invalid(format!("invalid link-local address {text}: expected one of 169.254.0.0/16"))),
    };
    request.link_local_ips.iter().map(parse).collect()
}

/// The container's own address is that of its first interface.
fn wanted_mac(container: &Container, member: &Member, first: bool) -> Result<Option<[u8; 6]>> {
    let own = container.config.mac_address.as_str();
    let wanted = [member.request.mac_address.as_str(), if first { own } else { "" }].into_iter().find(|text| !text.is_empty());
    wanted.map(parse_mac).transpose()
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let parsed = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    parsed.ok_or_else(|| Error::invalid(format!("{text:?} is not a valid mac address")))
}

fn ports(container: &Container, found: &Found) -> Result<Vec<rcontainerd_network::PortRequest>> {
    let mut ports = resolve::port_requests(&container.config, &container.host_config)?;
    if let Found::User(record) = found {
        for port in &mut ports {
            port.host_ip = port.host_ip.or(record.host_binding);
        }
    }
    Ok(ports)
}

fn endpoint(container: &Container, member: &Member, attachment: &Attachment) -> Endpoint {
    let names = match &member.found {
        Found::User(_) => names(container, &member.request),
        _ => Vec::new(),
    };
    let id = format!("{}/{}", attachment.network, attachment.container);
    Endpoint {
        network_id: member.found.id(),
        endpoint_id: rcontainerd_types::Digest::sha256(id.as_bytes()).hex().to_owned(),
        ipv4_address: attachment.address.addr().to_string(),
        ipv4_prefix_len: attachment.address.prefix_len(),
        ipv4_gateway: if is_internal(&member.found) { String::new() } else { attachment.gateway.to_string() },
        mac_address: attachment.mac_string(),
        aliases: member.request.aliases.clone(),
        dns_names: names,
        ..Endpoint::default()
    }
}

/// What a container is called on a user-defined network: its name, aliases, short id, host name; each once.
fn names(container: &Container, request: &EndpointRequest) -> Vec<String> {
    let short = id::short(&container.id).to_owned();
    let all = [container.name.clone()].into_iter().chain(request.aliases.iter().cloned()).chain([short, container.hostname.clone()]);
    let mut names: Vec<String> = Vec::new();
    all.filter(|name| !name.is_empty()).for_each(|name| {
        if !names.contains(&name) {
            names.push(name);
        }
    });
    names
}

fn published(port: &BoundPort) -> PublishedPort {
    PublishedPort {
        container_port: port.container_port,
        protocol: port.protocol.as_str().to_owned(),
        host_ip: port.host_ip.to_string(),
        host_port: port.host_port,
    }
}

/// Tells netd who is called what, and serves the container's own questions.
pub(super) fn tell_names(engine: &Engine, container: &Container, connections: &Connections) -> Result<()> {
    for endpoint in dns_endpoints(engine, container, &connections.attachments) {
        engine.netd.join(endpoint)?;
    }
    match dns_view(engine, container, connections)? {
        Some(serve) => engine.netd.serve(serve),
        None => Ok(()),
    }
}

/// The container under its names on the user-defined networks it is on.
pub(super) fn dns_endpoints(engine: &Engine, container: &Container, attachments: &[Attachment]) -> Vec<dns::Endpoint> {
    let endpoint = |attachment: &Attachment| {
        let Ok(Found::User(record)) = engine.networks.find(&attachment.network) else { return None };
        let request = request_of(engine, container, &record.id);
        Some(dns::Endpoint {
            container: container.id.clone(),
            network: record.id.clone(),
            domain: record.name.clone(),
            names: names(container, &request),
            address: attachment.address.addr(),
        })
    };
    attachments.iter().filter_map(endpoint).collect()
}

fn request_of(engine: &Engine, container: &Container, network: &str) -> EndpointRequest {
    let mut requests = container.endpoints.iter();
    let asked = requests.find(|(name, _)| engine.networks.find(name).is_ok_and(|found| found.id() == network));
    asked.map(|(_, request)| request.clone()).unwrap_or_default()
}

/// What the container may ask at 127.0.0.11; `None` on the default network alone, where Docker has no resolver.
///
/// # Errors
/// `InvalidArgument` for a bad `--dns`.
pub(super) fn dns_view(engine: &Engine, container: &Container, connections: &Connections) -> Result<Option<Serve>> {
    let networks: Vec<String> = user_networks(engine, &connections.attachments);
    let (Some(netns), false) = (&connections.netns, networks.is_empty()) else { return Ok(None) };
    let leads_out = connections.attachments.iter().any(|attachment| engine.networks.leads_out(&attachment.network));
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = files::servers(&host, &dns_options(container)?);
    let upstream = if leads_out { servers.into_iter().map(|ip| SocketAddr::new(ip, 53)).collect() } else { Vec::new() };
    Ok(Some(Serve {
        container: container.id.clone(),
        netns: netns.clone(),
        view: View { networks, upstream, links: links::by_network(engine, container) },
    }))
}

fn user_networks(engine: &Engine, attachments: &[Attachment]) -> Vec<String> {
    let user = |attachment: &&Attachment| matches!(engine.networks.find(&attachment.network), Ok(Found::User(_)));
    attachments.iter().filter(user).map(|attachment| attachment.network.clone()).collect()
}

/// # Errors
/// `InvalidArgument` for a bad `--dns`.
fn dns_options(container: &Container) -> Result<DnsOptions> {
    let host_config = &container.host_config;
    let parse = |text: &String| text.parse().map_err(|_| Error::invalid(format!("invalid IP address for --dns: {text}")));
    let servers = host_config.dns.iter().map(parse).collect::<Result<Vec<IpAddr>>>()?;
    Ok(DnsOptions { servers, search: host_config.dns_search.clone(), options: host_config.dns_options.clone() })
}

/// The container's /etc/resolv.conf: our resolver on user-defined networks, else the host's servers.
///
/// # Errors
/// `InvalidArgument` for a bad `--dns`.
pub(super) fn resolv_conf(engine: &Engine, container: &Container, attachments: &[Attachment], host: &str) -> Result<String> {
    let wanted = dns_options(container)?;
    if user_networks(engine, attachments).is_empty() {
        return Ok(files::resolv_conf(host, &wanted, container.host_config.network_mode == "host"));
    }
    Ok(files::embedded_resolv_conf(host, &wanted, dns::serve::ADDRESS))
}

/// The container's /etc/hosts.
///
/// # Errors
/// `InvalidArgument` for a bad `--add-host`.
pub(super) fn hosts(engine: &Engine, container: &Container, attachments: &[Attachment]) -> Result<String> {
    let mut extra = container.host_config.extra_hosts.iter().map(|entry| extra_host(engine, entry)).collect::<Result<Vec<_>>>()?;
    extra.extend(links::reachable(engine, container).hosts);
    let full = match container.config.domainname.as_str() {
        "" => container.hostname.clone(),
        domain => format!("{0}.{domain} {0}", container.hostname),
    };
    let own: Vec<(IpAddr, &str)> = attachments.iter().map(|attachment| (IpAddr::V4(attachment.address.addr()), full.as_str())).collect();
    Ok(files::hosts(&own, &extra))
}

/// `name:address` or `name:host-gateway`, for which there is no address yet.
///
/// # Errors
/// `InvalidArgument` in Docker's words.
pub(super) fn parse_extra_host(entry: &str) -> Result<(&str, Option<IpAddr>)> {
    let bad = || Error::invalid(format!("bad format for add-host: \"{entry}\""));
    let (name, address) = entry.split_once([':', '=']).filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
    if address == "host-gateway" {
        return Ok((name, None));
    }
    let parsed = address.trim_matches(['[', ']']).parse();
    parsed.map(|address| (name, Some(address))).map_err(|_| Error::invalid(format!("invalid IP address in add-host: \"{address}\"")))
}

fn extra_host(engine: &Engine, entry: &str) -> Result<(IpAddr, String)> {
    let (name, address) = parse_extra_host(entry)?;
    let address = match address {
        Some(address) => address,
        None => IpAddr::V4(engine.network.bridge()?.gateway),
    };
    Ok((address, name.to_owned()))
}

/// Takes back the network of a run.
///
/// # Errors
/// The first failure, after every part was tried.
pub(super) async fn release(engine: &Arc<Engine>, container: &str, connections: Connections) -> Result<()> {
    if connections.netns.is_none() && connections.attachments.is_empty() {
        return Ok(());
    }
    let (engine, container) = (Arc::clone(engine), container.to_owned());
    blocking(move || {
        let unnamed = engine.netd.stop(&container);
        let detached = connections.attachments.iter().map(|attachment| detach(&engine, attachment)).fold(Ok(()), Result::and);
        let deleted = connections.netns.map_or(Ok(()), |netns| engine.network.delete_netns(&netns));
        unnamed.and(detached).and(deleted)
    })
    .await
}

/// Disconnects one network of a running container; another one that leads out takes over the default route.
///
/// # Errors
/// The first failure, after every part was tried.
pub(super) fn leave(engine: &Engine, network: &str, name: &str, state: &mut RunState) -> Result<()> {
    let Some(at) = state.attachments.iter().position(|attachment| attachment.network == network) else { return Ok(()) };
    let led = first_out(engine, &state.attachments).is_some_and(|first| first.network == network);
    let attachment = state.attachments.remove(at);
    state.networks.remove(name);
    if !attachment.ports.is_empty() {
        state.ports.clear();
    }
    let detached = detach(engine, &attachment);
    let routed = match first_out(engine, &state.attachments) {
        Some(next) if led => engine.network.lead_out(next),
        _ => Ok(()),
    };
    detached.and(routed)
}

fn first_out<'a>(engine: &Engine, attachments: &'a [Attachment]) -> Option<&'a Attachment> {
    attachments.iter().find(|attachment| engine.networks.leads_out(&attachment.network))
}

pub(super) fn detach(engine: &Engine, attachment: &Attachment) -> Result<()> {
    let left = engine.netd.leave(&attachment.network, &attachment.container);
    engine.network.detach(attachment).and(left)
}

/// After a restart of the manager: what lives is connected and named as before.
pub(super) async fn restore(engine: &Arc<Engine>, alive: Vec<(Container, Connections)>) {
    let engine = Arc::clone(engine);
    let restored = blocking(move || {
        let attachments: Vec<Attachment> = alive.iter().flat_map(|(_, connections)| connections.attachments.clone()).collect();
        let network = engine.network.restore(&attachments);
        let mut serve = Vec::new();
        for (container, connections) in &alive {
            serve.extend(dns_view(&engine, container, connections)?);
        }
        let named = alive.iter().flat_map(|(container, connections)| dns_endpoints(&engine, container, &connections.attachments)).collect();
        network.and(engine.netd.restore(serve, named))
    });
    if let Err(err) = restored.await {
        tracing::error!("restore the networks of running containers: {err}");
    }
}

pub(super) fn not_connected(container: &Container, network: &str) -> Error {
    let message = format!("container {} is not connected to network {network}", container.id);
    Error::new(ErrorKind::PermissionDenied, message)
}

/// The container's endpoint requests by the network's id.
pub(super) fn requests_by_id(engine: &Engine, container: &Container) -> BTreeMap<String, String> {
    let names = container.endpoints.keys();
    names.filter_map(|name| Some((engine.networks.find(name).ok()?.id(), name.clone()))).collect()
}

/// What a run tells of the networks that it goes on or leaves.
pub(super) fn events(action: &str, container: &str, networks: &BTreeMap<String, Endpoint>) -> Vec<NewEvent> {
    let event = |(name, endpoint): (&String, &Endpoint)| {
        let attributes = [("container", container), ("name", name), ("type", "bridge")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        NewEvent { kind: EventKind::Network, action: action.to_owned(), actor: endpoint.network_id.clone(), attributes }
    };
    networks.iter().map(event).collect()
}

/// Names and ids of the networks that a container is on, or will be on once it runs; a network that is gone has no id.
pub(crate) fn networks_of(engine: &Engine, container: &Outline) -> BTreeMap<String, String> {
    let known = |name: &str| engine.networks.find(name).ok();
    let asked = container.endpoints.keys().map(|name| (name.clone(), known(name).map(|found| found.id()).unwrap_or_default()));
    let mut networks: BTreeMap<String, String> = asked.collect();
    let mode = container.host_config.network_mode.as_str();
    if container.left_mode || resolve::other_container(mode).is_some() {
        return networks;
    }
    let (name, id) = known(mode).map_or_else(|| (mode.to_owned(), String::new()), |found| (found.name().to_owned(), found.id()));
    if id.is_empty() || !networks.values().any(|taken| *taken == id) {
        networks.entry(name).or_insert(id);
    }
    networks
}
