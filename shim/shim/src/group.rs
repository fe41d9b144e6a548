//! One shim for several containers: those whose configurations name the same group share the shim of the first of them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::io::sink::listen;

/// What containerd's own shim looks for, in its order: a group that a client names, and the pod of a kubelet's container.
const ANNOTATIONS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// The group that the bundle's configuration names.
///
/// # Errors
/// When there is a configuration, and it cannot be read.
pub fn of_bundle(bundle: &Path) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: Option<BTreeMap<String, String>>,
    }
    let path = bundle.join("config.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        // A sandbox may have none.
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err).with_context(|| format!("read {}", path.display())),
    };
    let config: Config = serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
    let annotations = config.annotations.unwrap_or_default();
    Ok(ANNOTATIONS.iter().find_map(|name| annotations.get(*name)).filter(|group| !group.is_empty()).cloned())
}

/// The socket's name, the same for all of a group of one manager's namespace.
pub fn socket_name(address: &str, namespace: &str, group: &str) -> String {
    // FNV-1a with 128 bits: names must differ, not withstand those who choose them (who could as well name another's group).
    let words = [address, namespace, group].map(str::as_bytes).join(&0);
    let hash = words.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, &byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("{hash:032x}")
}

/// The listener of a group that has no shim yet; `None` when there is one, which the caller is sent to.
///
/// # Errors
/// The system's, when the socket cannot be made.
pub fn claim(socket: &Path) -> io::Result<Option<OwnedFd>> {
    // Held until the listener is there: of two that start at once the second finds the first.
    let _one_at_a_time = lock(socket.parent().unwrap_or(Path::new("/")))?;
    if answers(socket) { Ok(None) } else { listen(socket).map(Some) }
}

/// Whether a shim listens there.
pub fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

fn lock(directory: &Path) -> io::Result<OwnedFd> {
    let directory = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_by_the_first_annotation_that_is_there() {
        let bundle = std::env::temp_dir().join(format!("shim-group-{}", std::process::id()));
        std::fs::create_dir_all(&bundle).expect("bundle");
        assert_eq!(of_bundle(&bundle).expect("no configuration"), None);
        for (config, group) in [
            ("{}", None),
            (r#"{"annotations":null}"#, None),
            (r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#, Some("pod")),
            (r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"own"}}"#, Some("own")),
        ] {
            std::fs::write(bundle.join("config.json"), config).expect("config");
            assert_eq!(of_bundle(&bundle).expect(config).as_deref(), group, "{config}");
        }
        std::fs::write(bundle.join("config.json"), "[").expect("config");
        assert!(of_bundle(&bundle).is_err());
        std::fs::remove_dir_all(bundle).expect("clean");
    }

    #[test]
    fn groups_of_two_managers_or_namespaces_are_two() {
        let name = socket_name("/run/c.sock", "k8s.io", "pod");
        assert_eq!(name.len(), 32);
        assert_eq!(name, socket_name("/run/c.sock", "k8s.io", "pod"));
        for other in [("/run/d.sock", "k8s.io", "pod"), ("/run/c.sock", "k8s.iop", "od"), ("/run/c.sock", "k8s.io", "pod2")] {
            assert_ne!(name, socket_name(other.0, other.1, other.2));
        }
    }

    #[test]
    fn the_second_of_a_group_is_sent_to_the_first() {
        let dir = std::env::temp_dir().join(format!("shim-claim-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("dir");
        let socket = dir.join("s");
        let first = claim(&socket).expect("claim").expect("nobody is there");
        assert!(claim(&socket).expect("claim").is_none());
        drop(first);
        // Left by a shim that was killed.
        assert!(socket.exists() && claim(&socket).expect("claim").is_some());
        std::fs::remove_dir_all(dir).expect("clean");
    }
}
