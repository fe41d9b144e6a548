//! Questions that no container answers go to the servers of the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::Query;

/// How long one server is waited for. resolv.conf(5) gives a client 5 s for us: two servers fit in.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest UDP payload that EDNS can ask for.
const UDP_MAX: usize = 65_535;

/// Asks one server after the other; `None` when none of them answers.
pub async fn forward(query: &Query, message: &[u8], servers: &[SocketAddr], tcp: bool) -> Option<Vec<u8>> {
    for server in servers {
        let asked = async { if tcp { ask_tcp(message, *server).await } else { ask_udp(query, message, *server).await } };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) if query.is_answered_by(&answer) => return Some(answer),
            Ok(Ok(_)) => tracing::debug!(%server, "answers another question"),
            Ok(Err(err)) => tracing::debug!(%server, "does not answer: {err}"),
            Err(_) => tracing::debug!(%server, "does not answer in time"),
        }
    }
    None
}

/// From a fresh port each time, and connected: only the server's own answers arrive.
async fn ask_udp(query: &Query, message: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut buffer = vec![0; UDP_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if query.is_answered_by(&buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(message: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, message).await?;
    read_message(&mut stream).await
}

/// RFC 1035 section 4.2.2: two bytes of length before each message.
pub async fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub async fn write_message(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| std::io::Error::other("a DNS message of more than 64 KiB"))?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(message);
    stream.write_all(&bytes).await
}
