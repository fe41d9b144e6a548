//! Tells systemd how far we are (sd_notify(3)); outside systemd there is nobody to tell.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state`, such as `READY=1`. A failure is logged: it must not stop the manager.
pub fn notify(state: &str) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = address.to_string_lossy();
    let target = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&*address),
    };
    let sent = target.and_then(|target| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &target));
    if let Err(err) = sent {
        tracing::warn!("tell systemd {state}: {err}");
    }
}
