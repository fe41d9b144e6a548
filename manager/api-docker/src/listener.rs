//! Connections as the Docker API needs them: see [`HijackIo`].

use std::io;

use axum::serve::Listener;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

pub use crate::wire::hijack::HijackIo;

/// For `axum::serve`: clients that take a connection over without asking for an upgrade are served too.
pub struct DockerListener(UnixListener);

impl DockerListener {
    pub fn new(listener: UnixListener) -> Self {
        Self(listener)
    }
}

impl Listener for DockerListener {
    type Io = HijackIo<UnixStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        (HijackIo::new(stream), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}
