//! The service against the kernel, in a network namespace of the test's own. Needs root and nft.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sched::CloneFlags;
use rcontainerd_network::{AttachRequest, Attachment, BridgeNetwork, DEFAULT_NETWORK, Network, NetworkConfig, PortRequest, Protocol};
use rcontainerd_types::ErrorKind;

/// Moves this test's thread into a fresh network namespace; all that it starts is born there.
fn isolated() -> (tempfile::TempDir, Network) {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("unshare needs root");
    run("ip", &["link", "set", "lo", "up"]);
    let dir = tempfile::tempdir().expect("temp dir");
    let network = Network::open(NetworkConfig::new(dir.path().join("netns"))).expect("open");
    (dir, network)
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|err| panic!("{program}: {err}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn request(id: &str, netns: &Path, ports: Vec<PortRequest>) -> AttachRequest {
    AttachRequest {
        network: DEFAULT_NETWORK.into(),
        interface: "eth0".into(),
        default_route: true,
        container: id.into(),
        netns: netns.into(),
        mac: None,
        ip: None,
        link_local: Vec::new(),
        ports,
    }
}

fn publish(host_ip: Option<Ipv4Addr>, host_port: Option<(u16, u16)>) -> PortRequest {
    PortRequest { container_port: 80, protocol: Protocol::Tcp, host_ip: host_ip.map(Into::into), host_port }
}

/// A server of one connection inside the namespace; it answers with its peer's address.
fn serve_inside(netns: &Path) -> std::thread::JoinHandle<()> {
    let namespace = std::fs::File::open(netns).expect("netns");
    let (ready, listening) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns");
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).expect("bind");
        ready.send(()).expect("ready");
        let (mut stream, peer) = listener.accept().expect("accept");
        stream.write_all(peer.ip().to_string().as_bytes()).expect("write");
    });
    listening.recv().expect("server");
    server
}

fn ask(ip: Ipv4Addr, port: u16) -> String {
    let address = (ip, port).into();
    let mut stream =
        TcpStream::connect_timeout(&address, std::time::Duration::from_secs(5)).unwrap_or_else(|err| panic!("{address}: {err}"));
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    text
}

fn attach(network: &Network, id: &str, ports: Vec<PortRequest>) -> Attachment {
    let netns = network.create_netns(id).expect("netns");
    network.attach(&request(id, &netns, ports)).expect("attach")
}

fn attach_to(network: &Network, to: &str, id: &str, ports: Vec<PortRequest>) -> Attachment {
    let netns = network.create_netns(id).expect("netns");
    network.attach(&AttachRequest { network: to.into(), ..request(id, &netns, ports) }).expect("attach")
}

/// Whether a program in the namespace reaches the address; a refusal of the other side is an answer as well.
fn reaches(netns: &Path, ip: Ipv4Addr, port: u16) -> bool {
    let from = std::fs::File::open(netns).expect("netns");
    let client = std::thread::spawn(move || {
        nix::sched::setns(from, CloneFlags::CLONE_NEWNET).expect("setns");
        TcpStream::connect_timeout(&(ip, port).into(), std::time::Duration::from_secs(2)).map_err(|err| err.kind())
    });
    !matches!(
        client.join().expect("client"),
        Err(std::io::ErrorKind::TimedOut | std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable)
    )
}

fn dispose(network: &Network, attachment: &Attachment) {
    network.detach(attachment).expect("detach");
    network.delete_netns(&attachment.netns).expect("delete netns");
}

/// The table belongs to another process: the kernel lets nobody else change it (nft(8), flag `owner`).
struct Owner(std::process::Child);

impl Owner {
    fn of(table: &str) -> Self {
        let mut nft =
            Command::new("nft").arg("-i").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().expect("nft");
        let script = format!("add table ip {table} {{ flags owner; }}\n");
        nft.stdin.as_mut().expect("piped").write_all(script.as_bytes()).expect("write");
        while !Command::new("nft").args(["list", "table", "ip", table]).output().expect("nft").status.success() {
            std::thread::yield_now();
        }
        Self(nft)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

#[test]
fn nobody_is_connected_without_rules() {
    let (_dir, network) = isolated();
    let netns = network.create_netns("aaaaaaaaaaaa").expect("netns");
    let owner = Owner::of("rcontainerd");
    for attempt in 0..2 {
        // The bridge stands from the first one on.
        let refused = network.attach(&request("aaaaaaaaaaaa", &netns, Vec::new()));
        assert!(refused.is_err_and(|err| err.message().contains("nft")), "attempt {attempt}");
    }
    drop(owner);
    let attachment = network.attach(&request("aaaaaaaaaaaa", &netns, Vec::new())).expect("attach");
    assert!(run("nft", &["list", "table", "ip", "rcontainerd"]).contains("masquerade"));
    dispose(&network, &attachment);
}

#[test]
fn a_published_port_answers_on_loopback_and_is_gone_after_detach() {
    let (_dir, network) = isolated();
    let attachment = attach(&network, "aaaaaaaaaaaa", vec![publish(None, None)]);
    let port = attachment.ports[0].host_port;
    let server = serve_inside(&attachment.netns);
    assert_eq!(ask(Ipv4Addr::LOCALHOST, port), attachment.gateway.to_string());
    server.join().expect("server");
    let server = serve_inside(&attachment.netns);
    assert_eq!(ask(attachment.gateway, port), attachment.gateway.to_string());
    server.join().expect("server");
    dispose(&network, &attachment);
    assert!(!run("nft", &["list", "table", "ip", "rcontainerd"]).contains(&format!(". {port} :")));
    assert!(!run("ip", &["link"]).contains("veth"));
}

#[test]
fn containers_reach_each_other_and_the_gateway() {
    let (_dir, network) = isolated();
    let (a, b) = (attach(&network, "aaaaaaaaaaaa", vec![]), attach(&network, "bbbbbbbbbbbb", vec![]));
    assert_ne!(a.address, b.address);
    let server = serve_inside(&b.netns);
    let (from, to) = (std::fs::File::open(&a.netns).expect("netns"), b.address.addr());
    let client = std::thread::spawn(move || {
        nix::sched::setns(from, CloneFlags::CLONE_NEWNET).expect("setns");
        ask(to, 80)
    });
    assert_eq!(client.join().expect("client"), a.address.addr().to_string());
    server.join().expect("server");
    dispose(&network, &a);
    dispose(&network, &b);
}

#[test]
fn a_taken_port_leaves_nothing_behind() {
    let (_dir, network) = isolated();
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
    let port = taken.local_addr().expect("address").port();
    let netns = network.create_netns("cccccccccccc").expect("netns");
    let err = network.attach(&request("cccccccccccc", &netns, vec![publish(None, Some((port, port)))])).expect_err("the port is taken");
    assert_eq!(err.kind(), ErrorKind::Conflict);
    assert!(err.message().contains(&format!("0.0.0.0:{port}")), "{err}");
    assert!(!run("ip", &["link"]).contains("veth"));
    let retry = network.attach(&request("cccccccccccc", &netns, vec![])).expect("the address was given back");
    dispose(&network, &retry);
}

#[test]
fn a_new_manager_takes_up_what_lives() {
    let (dir, network) = isolated();
    let attachment = attach(&network, "dddddddddddd", vec![publish(Some(Ipv4Addr::LOCALHOST), None)]);
    drop(network);
    run("nft", &["flush", "ruleset"]);
    let network = Network::open(NetworkConfig::new(dir.path().join("netns"))).expect("open");
    network.restore(std::slice::from_ref(&attachment)).expect("restore");
    let server = serve_inside(&attachment.netns);
    ask(Ipv4Addr::LOCALHOST, attachment.ports[0].host_port);
    server.join().expect("server");
    let other = attach(&network, "eeeeeeeeeeee", vec![]);
    assert_ne!(other.address, attachment.address, "the address of a living container must not be given out");
    dispose(&network, &other);
    dispose(&network, &attachment);
}

#[test]
fn a_bridge_deleted_by_hand_comes_back() {
    let (_dir, network) = isolated();
    let first = attach(&network, "ffffffffffff", vec![]);
    dispose(&network, &first);
    run("ip", &["link", "delete", "rcontainerd0"]);
    let second = attach(&network, "ffffffffffff", vec![]);
    assert_eq!(second.gateway, first.gateway);
    dispose(&network, &second);
    network.teardown().expect("teardown");
    assert!(!run("ip", &["link"]).contains("rcontainerd0"));
}

#[test]
fn networks_are_apart_and_a_published_port_is_the_way_across() {
    let (_dir, network) = isolated();
    for name in ["one", "two"] {
        let info = network.create(&BridgeNetwork::new(name, format!("br-{name}"))).expect("create");
        assert_eq!(network.existing_bridge(name), Some(info));
    }
    let (a, b) =
        (attach_to(&network, "one", "aaaaaaaaaaaa", vec![]), attach_to(&network, "two", "bbbbbbbbbbbb", vec![publish(None, None)]));
    let c = attach_to(&network, "two", "cccccccccccc", vec![]);
    assert_ne!(a.address.trunc(), b.address.trunc(), "each has a subnet of its own");
    assert!(reaches(&c.netns, b.address.addr(), 80), "neighbours");
    assert!(!reaches(&a.netns, b.address.addr(), 80), "strangers");
    assert!(reaches(&a.netns, a.gateway, b.ports[0].host_port), "by the published port");
    assert_eq!(network.remove("two").expect_err("in use").kind(), ErrorKind::Conflict);
    for attachment in [&a, &b, &c] {
        dispose(&network, attachment);
    }
    network.remove("one").expect("remove");
    network.remove("two").expect("remove");
    assert!(!run("ip", &["link"]).contains("br-"));
    assert!(!run("nft", &["list", "table", "ip", "rcontainerd"]).contains("br-"));
}

#[test]
fn an_internal_network_has_no_way_out_and_none_in() {
    let (_dir, network) = isolated();
    let definition = BridgeNetwork { internal: true, ..BridgeNetwork::new("inner", "br-inner") };
    network.create(&definition).expect("create");
    let (inside, other) =
        (attach_to(&network, "inner", "aaaaaaaaaaaa", vec![]), attach(&network, "bbbbbbbbbbbb", vec![publish(None, None)]));
    assert!(!reaches(&inside.netns, other.address.addr(), 80));
    assert!(!reaches(&other.netns, inside.address.addr(), 80));
    assert!(!run("nsenter", &[&format!("--net={}", inside.netns.display()), "ip", "route"]).contains("default"));
    dispose(&network, &inside);
    dispose(&network, &other);
}

#[test]
fn containers_that_may_not_talk_do_not() {
    let (_dir, network) = isolated();
    network.create(&BridgeNetwork { inter_container: false, ..BridgeNetwork::new("shy", "br-shy") }).expect("create");
    let (a, b) = (attach_to(&network, "shy", "aaaaaaaaaaaa", vec![]), attach_to(&network, "shy", "bbbbbbbbbbbb", vec![]));
    assert!(!reaches(&a.netns, b.address.addr(), 80));
    assert!(reaches(&a.netns, a.gateway, 80), "the host is no other container");
    dispose(&network, &a);
    dispose(&network, &b);
}

#[test]
fn what_is_asked_of_a_network_is_what_it_gets() {
    let (_dir, network) = isolated();
    let definition = BridgeNetwork {
        subnet: Some("10.77.0.0/16".parse().expect("net")),
        gateway: Some(Ipv4Addr::new(10, 77, 0, 254)),
        ip_range: Some("10.77.5.0/24".parse().expect("net")),
        reserved: vec![Ipv4Addr::new(10, 77, 5, 0)],
        mtu: Some(1400),
        ..BridgeNetwork::new("mine", "br-mine")
    };
    network.create(&definition).expect("create");
    let a = attach_to(&network, "mine", "aaaaaaaaaaaa", vec![]);
    assert_eq!(a.address.to_string(), "10.77.5.1/16");
    assert_eq!(a.gateway, Ipv4Addr::new(10, 77, 0, 254));
    assert!(run("ip", &["link", "show", "br-mine"]).contains("mtu 1400"));
    assert!(run("nsenter", &[&format!("--net={}", a.netns.display()), "ip", "link", "show", "eth0"]).contains("mtu 1400"));
    let overlapping = BridgeNetwork { subnet: Some("10.77.9.0/24".parse().expect("net")), ..BridgeNetwork::new("other", "br-other") };
    assert_eq!(network.create(&overlapping).expect_err("overlaps").kind(), ErrorKind::Conflict);
    assert!(network.existing_bridge("other").is_none() && !run("ip", &["link"]).contains("br-other"), "nothing is left");
    dispose(&network, &a);
}

#[test]
fn a_second_network_is_a_second_interface() {
    let (_dir, network) = isolated();
    network.create(&BridgeNetwork::new("more", "br-more")).expect("create");
    let first = attach(&network, "aaaaaaaaaaaa", vec![]);
    let request = AttachRequest {
        network: "more".into(),
        interface: "eth1".into(),
        default_route: false,
        link_local: vec![Ipv4Addr::new(169, 254, 8, 8)],
        ..request("aaaaaaaaaaaa", &first.netns, vec![])
    };
    let second = network.attach(&request).expect("attach");
    assert_ne!(first.host_link, second.host_link);
    let routes = run("nsenter", &[&format!("--net={}", first.netns.display()), "ip", "route"]);
    assert!(routes.contains(&format!("default via {}", first.gateway)) && routes.contains("dev eth1"), "{routes}");
    assert!(routes.contains("169.254.0.0/16 dev eth1"), "a link-local address is on the interface: {routes}");
    network.detach(&second).expect("detach");
    dispose(&network, &first);
}

#[test]
fn rules_that_another_program_flushed_come_back_by_themselves() {
    let (_dir, network) = isolated();
    let network = std::sync::Arc::new(network);
    let attachment = attach(&network, "aaaaaaaaaaaa", vec![publish(None, None)]);
    let watch = network.watch().expect("watch");
    run("nft", &["flush", "ruleset"]);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !run("nft", &["list", "tables"]).contains("table ip rcontainerd") {
        assert!(std::time::Instant::now() < end, "the rules did not come back");
    }
    let server = serve_inside(&attachment.netns);
    ask(Ipv4Addr::LOCALHOST, attachment.ports[0].host_port);
    server.join().expect("server");
    drop(watch);
    dispose(&network, &attachment);
}

#[test]
fn a_bridge_deleted_by_hand_takes_its_containers_back() {
    let (_dir, network) = isolated();
    let (a, b) = (attach(&network, "aaaaaaaaaaaa", vec![publish(None, None)]), attach(&network, "bbbbbbbbbbbb", vec![]));
    run("ip", &["link", "delete", "rcontainerd0"]);
    network.repair().expect("repair");
    assert!(reaches(&b.netns, a.address.addr(), 80));
    let server = serve_inside(&a.netns);
    ask(Ipv4Addr::LOCALHOST, a.ports[0].host_port);
    server.join().expect("server");
    let c = attach(&network, "cccccccccccc", vec![]);
    assert!(c.address != a.address && c.address != b.address);
    for attachment in [&a, &b, &c] {
        dispose(&network, attachment);
    }
}
