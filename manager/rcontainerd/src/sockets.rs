//! The listening sockets: handed over by systemd (sd_listen_fds(3)) or made here, mode 0660 from the first moment.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Group};

/// First descriptor that systemd passes (sd_listen_fds(3)).
const LISTEN_FDS_START: i32 = 3;

/// Makes `dir` (and its parents) with mode 0711, or checks that nobody else may write into it.
pub fn safe_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).with_context(|| format!("create {}", dir.display()))?;
    let mode = fs::metadata(dir).with_context(|| format!("look at {}", dir.display()))?.permissions().mode();
    if mode & 0o022 != 0 {
        bail!("{} is writable by others (mode {:04o}): chmod 0711 it, or choose another directory", dir.display(), mode & 0o7777);
    }
    Ok(())
}

/// Listens at `path`, unless systemd passed a socket of that address.
pub fn listen(path: &Path, group: Option<Gid>, passed: &mut HashMap<String, OwnedFd>) -> Result<UnixListener> {
    let listener = match passed.remove(&path.display().to_string()) {
        Some(fd) => UnixListener::from(fd),
        None => bind(path, group)?,
    };
    listener.set_nonblocking(true).with_context(|| format!("prepare {}", path.display()))?;
    Ok(listener)
}

fn bind(path: &Path, group: Option<Gid>) -> Result<UnixListener> {
    remove_stale(path)?;
    // The umask makes the socket's mode right from the start: there is no moment in which others could connect.
    let before = umask(Mode::from_bits_truncate(0o117));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.with_context(|| format!("listen on {}", path.display()))?;
    if let Some(gid) = group {
        std::os::unix::fs::chown(path, None, Some(gid.as_raw())).with_context(|| format!("give {} to group {gid}", path.display()))?;
    }
    Ok(listener)
}

/// Removes a socket that nobody answers on; the store's lock already says that no other manager has this root.
fn remove_stale(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(err).with_context(|| format!("look at {}", path.display())),
        Ok(found) if !found.file_type().is_socket() => {
            bail!("{} is there and no socket: remove it, or choose another state directory", path.display())
        }
        Ok(_) => {}
    }
    if UnixStream::connect(path).is_ok() {
        bail!("another manager answers on {}: stop it, or choose another --state directory", path.display());
    }
    fs::remove_file(path).with_context(|| format!("remove the stale socket {}", path.display()))
}

/// The sockets' group: the configured one, which must exist, or the first usual one that does.
pub fn group(configured: Option<&str>) -> Result<Option<Gid>> {
    let find = |name: &str| Group::from_name(name).with_context(|| format!("look up group {name}"));
    if let Some(name) = configured {
        let group = find(name)?.with_context(|| format!("group {name} does not exist: make it (groupadd {name}), or configure another"))?;
        return Ok(Some(group.gid));
    }
    for name in ["rcontainerd", "docker"] {
        if let Some(group) = find(name)? {
            return Ok(Some(group.gid));
        }
    }
    Ok(None)
}

/// The sockets that systemd passed to this very process, by their addresses.
pub fn passed_by_systemd() -> Result<HashMap<String, OwnedFd>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    if number("LISTEN_PID") != Some(std::process::id().cast_signed()) {
        return Ok(HashMap::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    (LISTEN_FDS_START..LISTEN_FDS_START + count).map(take_passed).collect()
}

fn take_passed(number: i32) -> Result<(String, OwnedFd)> {
    // Duplicated rather than taken by number: no unsafe claim of ownership, and close-on-exec is set.
    let fd = dup(number).with_context(|| format!("take over descriptor {number} from systemd"))?;
    let listener = UnixListener::from(fd);
    let address = listener.local_addr().with_context(|| format!("descriptor {number} from systemd is no unix socket"))?;
    let name = address.as_pathname().with_context(|| format!("descriptor {number} from systemd has no path"))?.display().to_string();
    Ok((name, OwnedFd::from(listener)))
}

/// A close-on-exec duplicate of a descriptor known by number.
fn dup(number: i32) -> Result<OwnedFd> {
    let pidfd = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    Ok(rustix::process::pidfd_getfd(&pidfd, number, rustix::process::PidfdGetfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_0660_and_a_second_listener_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s");
        let first = bind(&path, None).expect("bind");
        assert_eq!(fs::metadata(&path).expect("socket").permissions().mode() & 0o7777, 0o660);
        assert!(bind(&path, None).expect_err("answered").to_string().contains("another manager answers"));
        drop(first);
        bind(&path, None).expect("a stale socket is replaced");
    }

    #[test]
    fn a_plain_file_in_the_socket_s_place_is_kept() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s");
        fs::write(&path, "precious").expect("write");
        assert!(bind(&path, None).is_err());
        assert_eq!(fs::read_to_string(&path).expect("read"), "precious");
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        assert!(safe_dir(dir.path()).is_err());
    }
}
