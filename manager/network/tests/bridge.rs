//! The service against the kernel, in a network namespace of the test's own. Needs root and nft.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sched::CloneFlags;
use rcontainerd_network::{AttachRequest, Attachment, Network, NetworkConfig, PortRequest, Protocol};
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
    AttachRequest { container: id.into(), netns: netns.into(), mac: None, ip: None, ports }
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

fn dispose(network: &Network, attachment: &Attachment) {
    network.detach(attachment).expect("detach");
    network.delete_netns(&attachment.netns).expect("delete netns");
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
