//! The listening sockets: handed over by systemd (sd_listen_fds(3)) or made here, mode 0660 from the first moment.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Group, Pid, geteuid};

/// First descriptor that systemd passes (sd_listen_fds(3)).
const LISTEN_FDS_START: i32 = 3;

/// Makes `dir` (and its parents) with mode 0711 where it is not, and checks it as [`check_dir`] does.
pub fn safe_dir(dir: &Path) -> Result<()> {
    check_dir(dir)?;
    fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).with_context(|| format!("create {}", dir.display()))?;
    check_dir(dir)
}

/// Checks that nobody else may write into `dir` or put another in its place; of one that is not there yet, its nearest parent that is.
/// Makes nothing.
pub fn check_dir(dir: &Path) -> Result<()> {
    let there = |above: &&Path| fs::symlink_metadata(above).is_ok();
    let nearest = dir.ancestors().find(there).with_context(|| format!("{}: nothing of the path is there", dir.display()))?;
    if nearest == dir {
        check_own(dir)?;
    } else if !fs::metadata(nearest).with_context(|| format!("look at {}", nearest.display()))?.is_dir() {
        bail!("{} cannot be made: {} is no directory: choose another directory", dir.display(), nearest.display());
    }
    let real = nearest.canonicalize().with_context(|| format!("resolve {}", nearest.display()))?;
    for above in real.ancestors().skip(usize::from(nearest == dir)) {
        let mode = fs::metadata(above).with_context(|| format!("look at {}", above.display()))?.mode() & 0o7777;
        if mode & 0o1002 == 0o002 {
            bail!(
                "{} lies in {}, where everybody may replace it (mode {mode:04o}): choose another directory",
                dir.display(),
                above.display()
            );
        }
    }
    Ok(())
}

fn check_own(dir: &Path) -> Result<()> {
    let found = fs::metadata(dir).with_context(|| format!("look at {}", dir.display()))?;
    if !found.is_dir() {
        bail!("{} is no directory: choose another one", dir.display());
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o022 != 0 {
        bail!("{} is writable by others (mode {mode:04o}): chmod 0711 it, or choose another directory", dir.display());
    }
    if found.uid() != geteuid().as_raw() {
        bail!("{} belongs to user {}, not to {}: chown it, or choose another directory", dir.display(), found.uid(), geteuid());
    }
    Ok(())
}

/// Refuses the address of a socket that cannot be ours: another manager answers there, or something else is in its place. Makes and removes
/// nothing. Sockets that systemd passed are ours, whoever answers.
pub fn check_free(path: &Path, passed: &HashMap<String, OwnedFd>) -> Result<()> {
    if passed.contains_key(&path.display().to_string()) { Ok(()) } else { is_stale(path).map(drop) }
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
    if !is_stale(path)? {
        return Ok(());
    }
    fs::remove_file(path).with_context(|| format!("remove the stale socket {}", path.display()))
}

/// Whether a socket is there that nobody answers on.
fn is_stale(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(false),
        Err(err) => return Err(err).with_context(|| format!("look at {}", path.display())),
        Ok(found) if !found.file_type().is_socket() => {
            bail!("{} is there and no socket: remove it, or choose another state directory", path.display())
        }
        Ok(_) => {}
    }
    if UnixStream::connect(path).is_ok_and(|connection| listener_lives(&connection)) {
        bail!("another manager answers on {}: stop it, or choose another --state directory", path.display());
    }
    Ok(true)
}

/// What a manager that was killed was just forking has its sockets, too, until it executes something. The kernel remembers who listened.
fn listener_lives(connection: &UnixStream) -> bool {
    let Ok(listener) = getsockopt(connection, PeerCredentials) else { return true };
    kill(Pid::from_raw(listener.pid()), None) != Err(Errno::ESRCH)
}

/// The sockets' group: the configured one, which must exist, or the first usual one that does.
pub fn group(configured: Option<&str>) -> Result<Option<Gid>> {
    // All of these mean that there is no such group, or no list of groups at all (getgrnam(3)).
    let none = [Errno::ENOENT, Errno::ESRCH, Errno::EBADF, Errno::EPERM];
    let find = |name: &str| match Group::from_name(name) {
        Err(errno) if none.contains(&errno) => Ok(None),
        found => found.with_context(|| format!("look up group {name}")),
    };
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_socket_is_0660_and_a_second_listener_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s");
        let first = bind(&path, None).expect("bind");
        assert_eq!(fs::metadata(&path).expect("socket").permissions().mode() & 0o7777, 0o660);
        assert!(bind(&path, None).expect_err("answered").to_string().contains("another manager answers"));
        // Not just dropped: what another test is forking at this moment has it, too.
        rustix::net::shutdown(&first, rustix::net::Shutdown::Both).expect("shut down");
        drop(first);
        bind(&path, None).expect("a stale socket is replaced");
    }

    #[test]
    fn a_socket_whose_listener_died_is_stale_even_while_a_fork_of_it_has_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s");
        // The child answers when it is forked, and lives until its standard input ends.
        let script = "import os, socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\nif os.fork(): os._exit(0)\nsys.stdin.read()";
        let mut listener = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("run python3");
        let held = listener.stdin.take();
        assert!(listener.wait().expect("wait").success());
        assert!(UnixStream::connect(&path).is_ok(), "the fork has it");
        bind(&path, None).expect("nobody answers there");
        drop(held);
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
        assert!(safe_dir(dir.path()).expect_err("writable").to_string().contains("chmod 0711"));
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::os::unix::fs::chown(dir.path(), Some(12345), None).expect("the tests run as root");
        let err = safe_dir(dir.path()).expect_err("theirs");
        assert!(err.to_string().contains("belongs to user 12345"), "{err}");
    }

    #[test]
    fn a_directory_that_others_may_replace_is_refused() {
        let outer = tempfile::tempdir().expect("temp dir");
        let dir = outer.path().join("inner");
        safe_dir(&dir).expect("made");
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o757)).expect("chmod");
        let err = safe_dir(&dir).expect_err("replaceable");
        assert!(err.to_string().contains("everybody may replace it"), "{err}");
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o1777)).expect("chmod");
        safe_dir(&dir).expect("a sticky directory protects it");
    }

    #[test]
    fn looking_makes_and_removes_nothing() {
        let outer = tempfile::tempdir().expect("temp dir");
        let absent = outer.path().join("a/b");
        check_dir(&absent).expect("can be made");
        assert!(!outer.path().join("a").exists());
        fs::write(outer.path().join("file"), "").expect("write");
        assert!(check_dir(&outer.path().join("file/x")).expect_err("in a file").to_string().contains("is no directory"));
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o757)).expect("chmod");
        assert!(safe_dir(&absent).expect_err("replaceable").to_string().contains("everybody may replace it"));
        assert!(!outer.path().join("a").exists(), "what is refused is not made");

        let path = outer.path().join("s");
        check_free(&path, &HashMap::new()).expect("nothing there");
        let listener = bind(&path, None).expect("bind");
        assert!(check_free(&path, &HashMap::new()).expect_err("answered").to_string().contains("another manager answers"));
        let passed = HashMap::from([(path.display().to_string(), OwnedFd::from(listener.try_clone().expect("clone")))]);
        check_free(&path, &passed).expect("passed to us");
        drop((listener, passed));
        check_free(&path, &HashMap::new()).expect("stale");
        assert!(path.exists(), "whoever holds the root's lock removes it");
    }
}
