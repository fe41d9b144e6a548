//! Tells systemd how far we are (sd_notify(3)); outside systemd there is nobody to tell.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Tells that the configuration is being read again; `READY=1` tells that it was (systemd.service(5), `Type=notify-reload`).
pub fn reloading() {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
        Ok(now) => notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000)),
        Err(errno) => tracing::warn!("tell systemd of a reload: clock_gettime: {errno}"),
    }
}

/// A host on its way down is busy; systemd itself gives a unit 90 seconds to stop.
const SYSTEMCTL_PATIENCE: Duration = Duration::from_secs(30);

/// Whether systemd is on its way down (`systemctl is-system-running`, systemctl(1)); false without systemd.
pub async fn host_goes_down() -> bool {
    // As sd_booted(3) has it.
    if !std::path::Path::new("/run/systemd/system").is_dir() {
        return false;
    }
    let asked = tokio::process::Command::new("systemctl").arg("is-system-running").output();
    match tokio::time::timeout(SYSTEMCTL_PATIENCE, asked).await {
        Ok(Ok(answer)) => answer.stdout.trim_ascii() == b"stopping",
        Ok(Err(err)) => {
            tracing::warn!("ask systemctl whether the host goes down: {err}");
            false
        }
        Err(_) => {
            tracing::warn!("systemctl does not tell whether the host goes down");
            false
        }
    }
}

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
        tracing::warn!("tell systemd {state:?}: {err}");
    }
}
