//! The resolver's sockets inside containers' network namespaces.
//!
//! Port 53 may be wanted by the container itself, so the sockets have ports of the kernel's choice, and a rule inside the namespace
//! leads 127.0.0.11:53 there.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rcontainerd_types::{Error, Result};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::forward::{forward, read_message, write_message};
use super::message::{Code, Query};
use super::names::{Names, Outcome, View};
use crate::{firewall, netns};

/// Where containers find their resolver, as in Docker.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const TABLE: &str = "rcontainerd_dns";
/// Questions of one container that may be under way at once; further ones wait in the socket's buffer.
const AT_ONCE: usize = 128;
/// TCP connections of one container.
const CONNECTIONS: usize = 32;
/// How long a TCP connection may say nothing.
const IDLE: Duration = Duration::from_secs(10);
/// Without EDNS a UDP answer has at most 512 bytes (RFC 1035 section 4.2.1).
const UDP_LIMIT: usize = 512;

/// All containers that are served.
#[derive(Default)]
pub struct Resolver {
    names: Arc<Mutex<Names>>,
    served: HashMap<String, Served>,
}

struct Served {
    view: Arc<Mutex<View>>,
    tasks: [JoinHandle<()>; 2],
}

/// What one container's tasks share.
#[derive(Clone)]
struct Desk {
    container: String,
    names: Arc<Mutex<Names>>,
    view: Arc<Mutex<View>>,
}

impl Resolver {
    pub fn names(&self) -> MutexGuard<'_, Names> {
        locked(&self.names)
    }

    pub fn is_idle(&self) -> bool {
        self.served.is_empty()
    }

    pub fn containers(&self) -> Vec<String> {
        self.served.keys().cloned().collect()
    }

    /// Answers in this namespace from now on; a container that is served already gets a new view.
    ///
    /// # Errors
    /// When the namespace is gone, or has no netfilter.
    pub fn serve(&mut self, container: &str, path: &Path, view: View) -> Result<()> {
        if let Some(served) = self.served.get(container) {
            *locked(&served.view) = view;
            return Ok(());
        }
        let (udp, tcp) = netns::within(path, open_sockets)?;
        let adopt = |err| Error::io("serve DNS", err);
        let udp = Arc::new(tokio::net::UdpSocket::from_std(udp).map_err(adopt)?);
        let tcp = tokio::net::TcpListener::from_std(tcp).map_err(adopt)?;
        let view = Arc::new(Mutex::new(view));
        let desk = Desk { container: container.to_owned(), names: Arc::clone(&self.names), view: Arc::clone(&view) };
        let tasks = [tokio::spawn(serve_udp(udp, desk.clone())), tokio::spawn(serve_tcp(tcp, desk))];
        self.served.insert(container.to_owned(), Served { view, tasks });
        Ok(())
    }

    /// The namespace goes with its container, and the rule with it.
    pub fn stop(&mut self, container: &str) {
        if let Some(served) = self.served.remove(container) {
            served.tasks.iter().for_each(JoinHandle::abort);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs inside the namespace.
fn open_sockets() -> Result<(UdpSocket, TcpListener)> {
    let open = || -> std::io::Result<_> {
        let (udp, tcp) = (UdpSocket::bind((ADDRESS, 0))?, TcpListener::bind((ADDRESS, 0))?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let ports = (udp.local_addr()?.port(), tcp.local_addr()?.port());
        Ok((udp, tcp, ports))
    };
    let (udp, tcp, ports) = open().map_err(|err| Error::io(format!("serve DNS at {ADDRESS}"), err))?;
    firewall::apply(&redirect(ports))?;
    Ok((udp, tcp))
}

fn redirect((udp, tcp): (u16, u16)) -> String {
    format!(
        "add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n  chain output {{\n    type nat hook output priority -100; policy accept;\n    ip daddr {ADDRESS} udp dport 53 dnat to {ADDRESS}:{udp}\n    ip daddr {ADDRESS} tcp dport 53 dnat to {ADDRESS}:{tcp}\n  }}\n}}\n"
    )
}

async fn serve_udp(socket: Arc<tokio::net::UdpSocket>, desk: Desk) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; 4096];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(err) => return tracing::error!(container = desk.container, "receive DNS questions: {err}"),
        };
        while answers.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (message, desk, socket) = (buffer[..length].to_vec(), desk.clone(), Arc::clone(&socket));
        answers.spawn(async move {
            if let Some(answer) = desk.answer(&message, false).await
                && let Err(err) = socket.send_to(&answer, client).await
            {
                tracing::debug!(container = desk.container, "answer a DNS question: {err}");
            }
            drop(slot);
        });
    }
}

async fn serve_tcp(listener: tokio::net::TcpListener, desk: Desk) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(err) => return tracing::error!(container = desk.container, "accept DNS connections: {err}"),
        };
        while connections.try_join_next().is_some() {}
        let desk = desk.clone();
        connections.spawn(async move {
            while let Ok(Ok(message)) = timeout(IDLE, read_message(&mut stream)).await {
                let Some(answer) = desk.answer(&message, true).await else { break };
                if !matches!(timeout(IDLE, write_message(&mut stream, &answer)).await, Ok(Ok(()))) {
                    break;
                }
            }
            drop(slot);
        });
    }
}

impl Desk {
    /// `None` for what deserves no answer.
    async fn answer(&self, message: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(refusal) => return refusal,
        };
        let view = locked(&self.view).clone();
        let outcome = locked(&self.names).look_up(&view, &query);
        match outcome {
            Outcome::Known(records) => Some(query.answer(&records, if tcp { usize::from(u16::MAX) } else { UDP_LIMIT })),
            Outcome::Forward if view.upstream.is_empty() => Some(query.refuse(Code::Refused)),
            Outcome::Forward => {
                let answer = forward(&query, message, &view.upstream, tcp).await;
                Some(answer.unwrap_or_else(|| query.refuse(Code::ServerFailure)))
            }
        }
    }
}
