//! Names of containers, asked from inside network namespaces of the test's own. Needs root and nft.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use rcontainerd_network::dns::{Endpoint, View};
use rcontainerd_network::netd::{Netd, Serve};
use rcontainerd_network::{Network, NetworkConfig};

struct World {
    dir: tempfile::TempDir,
    network: Network,
    netd: Netd,
    server: Option<std::thread::JoinHandle<()>>,
}

impl World {
    /// netd in a thread of this process: what it does is the same, but it does not outlive the test.
    fn new() -> Self {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("unshare needs root");
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip").success());
        let dir = tempfile::tempdir().expect("temp dir");
        let network = Network::open(NetworkConfig::new(dir.path().join("netns"))).expect("open");
        let socket = dir.path().join("netd.sock");
        let server = Self::serve(&socket);
        Self { netd: Netd::new(Vec::new(), socket), dir, network, server: Some(server) }
    }

    fn serve(socket: &Path) -> std::thread::JoinHandle<()> {
        let path = socket.to_owned();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(rcontainerd_network::netd::run(&path)).expect("netd");
        });
        while !socket.exists() {
            std::thread::yield_now();
        }
        server
    }

    fn namespace(&self, container: &str, networks: &[&str], upstream: &[SocketAddr]) -> PathBuf {
        let netns = self.network.create_netns(container).expect("netns");
        let view = View { networks: networks.iter().map(ToString::to_string).collect(), upstream: upstream.to_vec(), ..View::default() };
        self.netd.serve(Serve { container: container.into(), netns: netns.clone(), view }).expect("serve");
        netns
    }

    /// The manager goes; netd ends once nothing is served.
    fn end(mut self, namespaces: &[(&str, PathBuf)]) {
        for (container, netns) in namespaces {
            self.netd.stop(container).expect("stop");
            self.network.delete_netns(netns).expect("delete");
        }
        drop(self.netd);
        ended(self.server.take());
    }
}

fn ended(server: Option<std::thread::JoinHandle<()>>) {
    let server = server.expect("runs");
    let end = Instant::now() + Duration::from_secs(60);
    while !server.is_finished() {
        assert!(Instant::now() < end, "netd does not end by itself");
        std::thread::yield_now();
    }
    server.join().expect("netd ends in peace");
}

fn endpoint(network: &str, container: &str, name: &str, last: u8) -> Endpoint {
    Endpoint {
        container: container.into(),
        network: network.into(),
        domain: network.into(),
        names: vec![name.into()],
        address: Ipv4Addr::new(10, 9, 0, last),
    }
}

fn question(name: &str) -> Vec<u8> {
    let mut message = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("short"));
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Asks at 127.0.0.11:53 inside the namespace; the last four bytes of the answer and its code.
fn ask(netns: &Path, name: &str, tcp: bool) -> (u8, [u8; 4]) {
    let (from, question) = (std::fs::File::open(netns).expect("netns"), question(name));
    let client = std::thread::spawn(move || {
        nix::sched::setns(from, CloneFlags::CLONE_NEWNET).expect("setns");
        let resolver: SocketAddr = "127.0.0.11:53".parse().expect("address");
        let mut answer = vec![0; 4096];
        if tcp {
            let mut stream = TcpStream::connect(resolver).expect("connect");
            let length = u16::try_from(question.len()).expect("short").to_be_bytes();
            stream.write_all(&[&length[..], &question].concat()).expect("ask");
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("length");
            answer.truncate(usize::from(u16::from_be_bytes(length)));
            stream.read_exact(&mut answer).expect("answer");
        } else {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
            socket.connect(resolver).expect("connect");
            socket.send(&question).expect("ask");
            let length = socket.recv(&mut answer).expect("an answer");
            answer.truncate(length);
        }
        answer
    });
    let answer = client.join().expect("client");
    let tail = answer[answer.len() - 4..].try_into().expect("four bytes");
    (answer[3] & 15, tail)
}

#[test]
fn names_are_answered_by_udp_and_tcp_and_follow_the_containers() {
    let world = World::new();
    let netns = world.namespace("asker", &["mine"], &[]);
    world.netd.join(endpoint("mine", "c1", "web", 2)).expect("join");
    world.netd.join(endpoint("other", "c2", "secret", 3)).expect("join");
    assert_eq!(ask(&netns, "web", false), (0, [10, 9, 0, 2]));
    assert_eq!(ask(&netns, "web", true), (0, [10, 9, 0, 2]));
    assert_eq!(ask(&netns, "secret", false).0, 5, "another network's name, and nobody else may be asked");
    world.netd.leave("mine", "c1").expect("leave");
    assert_eq!(ask(&netns, "web", false).0, 5);
    world.end(&[("asker", netns)]);
}

#[test]
fn other_names_are_asked_of_the_host_s_servers_one_after_the_other() {
    let world = World::new();
    let dead = UdpSocket::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let upstream = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = upstream.local_addr().expect("address");
    let server = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let (length, client) = upstream.recv_from(&mut buffer).expect("a question");
        // First an answer to another question, which must be passed over.
        buffer[2] |= 0x80;
        let mut wrong = buffer[..length].to_vec();
        wrong[0] ^= 1;
        upstream.send_to(&wrong, client).expect("send");
        let mut answer = buffer[..length].to_vec();
        answer.extend([1, 2, 3, 4]);
        upstream.send_to(&answer, client).expect("send");
    });
    let netns = world.namespace("asker", &["mine"], &[dead, address]);
    assert_eq!(ask(&netns, "example.org", false), (0, [1, 2, 3, 4]));
    server.join().expect("server");
    world.end(&[("asker", netns)]);
}

#[test]
fn netd_serves_on_without_its_manager_and_the_next_one_takes_it_up() {
    let mut world = World::new();
    let netns = world.namespace("asker", &["mine"], &[]);
    world.netd.join(endpoint("mine", "c1", "web", 2)).expect("join");
    let socket = world.dir.path().join("netd.sock");
    world.netd = Netd::new(Vec::new(), socket);
    assert_eq!(ask(&netns, "web", false), (0, [10, 9, 0, 2]), "nobody tells netd anything now");
    let view = View { networks: vec!["mine".into()], ..View::default() };
    let serve = Serve { container: "asker".into(), netns: netns.clone(), view };
    world.netd.restore(vec![serve], vec![endpoint("mine", "c1", "web", 9)]).expect("restore");
    assert_eq!(ask(&netns, "web", false), (0, [10, 9, 0, 9]), "what the new manager says");
    world.end(&[("asker", netns)]);
}

/// The manager was killed between starting netd and telling it anything; the next one has nothing to serve.
#[test]
fn a_netd_without_work_ends_while_a_manager_lives() {
    let mut world = World::new();
    world.netd.restore(Vec::new(), vec![endpoint("mine", "c1", "web", 2)]).expect("restore");
    ended(world.server.take());
    world.netd.restore(Vec::new(), Vec::new()).expect("its socket that is still there is no error");
}

#[test]
fn a_netd_whose_manager_never_comes_ends() {
    ended(World::new().server.take());
}

#[test]
fn a_netd_that_was_just_ending_is_followed_by_another() {
    let dir = tempfile::tempdir().expect("temp dir");
    let socket = dir.path().join("netd.sock");
    // Takes the connection, and is gone.
    let ending = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
    let ending = std::thread::spawn(move || drop(ending.accept().expect("accept")));
    let next = "import os, socket, sys\nos.unlink(sys.argv[1])\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\nprint('ready', flush=True)\nc = s.accept()[0].makefile('rw')\nwhile c.readline(): c.write('{}\\n'); c.flush()";
    let command = ["python3", "-c", next, socket.to_str().expect("a path")].map(str::to_owned).to_vec();
    let netd = Netd::new(command, socket);
    let serve = Serve { container: "asker".into(), netns: "/proc/self/ns/net".into(), view: View::default() };
    netd.serve(serve).expect("the next one serves it");
    ending.join().expect("joined");
}

#[test]
fn a_container_may_have_port_53_for_itself() {
    let world = World::new();
    let netns = world.namespace("server", &["mine"], &[]);
    world.netd.join(endpoint("mine", "c1", "web", 2)).expect("join");
    let inside = std::fs::File::open(&netns).expect("netns");
    let bound = std::thread::spawn(move || {
        nix::sched::setns(inside, CloneFlags::CLONE_NEWNET).expect("setns");
        UdpSocket::bind("0.0.0.0:53").expect("port 53 is free")
    });
    let own = bound.join().expect("bind");
    assert_eq!(ask(&netns, "web", false), (0, [10, 9, 0, 2]));
    drop(own);
    world.end(&[("server", netns)]);
}
