//! The container's terminal: made from its own devpts, handed to whoever holds the console socket.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rrun_sys::fs::{self, FileType, OFlags, ResolveFlags};
use rrun_sys::{mount, process, socket, tty};

use super::Init;
use super::rootpath::{Kind, ensure};
use crate::{Context, Error, Result};

/// Opens a new terminal, sends its master away, and makes the other end stdin, stdout, stderr and the controlling terminal.
pub fn set_up(init: &mut Init, size: Option<(u16, u16)>, bind_console: bool, owner: u32) -> Result<()> {
    let socket = init.child.console_socket.take().ok_or_else(|| Error::state("a terminal needs a console socket"))?;
    let master = open_master(init.root.as_ref())?;
    let slave = tty::open_peer(&master)?;
    if let Some((rows, columns)) = size {
        tty::set_size(&slave, rows, columns)?;
    }
    if init.child.console_keeps_line_ends {
        tty::keep_line_ends(&master)?;
    }
    if owner != 0 {
        fs::fchown(&slave, owner, u32::MAX)?;
    }
    if let (true, Some(root)) = (bind_console, init.root.as_ref()) {
        bind_on_console(root, &slave)?;
    }
    // runc's name for it; receivers show it, none relies on it.
    socket::send_fd(&socket, b"/dev/pts/ptmx", master.as_fd()).doing(|| "send the terminal to the console socket".to_string())?;
    tty::make_controlling(&slave)?;
    (0..3).try_for_each(|fd| Ok(process::duplicate_to(&slave, fd)?))
}

/// The multiplexer of the container's devpts, proven to be one: character 5:2.
fn open_master(root: Option<&OwnedFd>) -> Result<OwnedFd> {
    let host_root;
    let root = match root {
        Some(root) => root,
        None => {
            host_root = fs::openat(fs::CWD, Path::new("/"), OFlags::PATH | OFlags::DIRECTORY, 0)?;
            &host_root
        }
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = Path::new("/dev/pts/ptmx");
    let handle = fs::openat2(root, path, OFlags::PATH | OFlags::NOFOLLOW, 0, resolve)
        .doing(|| "a terminal needs a devpts mount on /dev/pts".to_string())?;
    let stat = fs::fstat(&handle)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != rustix::fs::makedev(5, 2) {
        return Err(Error::state("/dev/pts/ptmx of the container is not a terminal multiplexer (character 5:2)"));
    }
    let master = fs::openat2(root, path, OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW, 0, resolve)?;
    if fs::fstat(&master)?.st_rdev != stat.st_rdev {
        return Err(Error::state("/dev/pts/ptmx of the container changed while it was opened"));
    }
    Ok(master)
}

/// Mounts the terminal on /dev/console, which is a file of its own there: a symlink of the image is refused.
fn bind_on_console(root: &OwnedFd, slave: &OwnedFd) -> Result<()> {
    let dev = ensure(root, Path::new("/dev"), Kind::Directory)?;
    let name = Path::new("console");
    match fs::openat(&dev, name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW, 0o666) {
        Err(e) if e.is(libc::EEXIST) => {}
        done => done.map(drop)?,
    }
    let place = fs::openat(&dev, name, OFlags::PATH | OFlags::NOFOLLOW, 0)?;
    if FileType::from_raw_mode(fs::fstat(&place)?.st_mode) == FileType::Symlink {
        return Err(Error::state("/dev/console of the image is a symlink: remove it"));
    }
    Ok(mount::attach(mount::clone_tree(slave, Path::new(""), false)?, &place)?)
}
