//! tmpcopyup: what a directory holds goes into the tmpfs before it covers it, with owners, modes, extended attributes and times.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rrun_sys::fs::{self, FileType, OFlags, Stat};

use crate::{Context, Error, Result};

/// `to`: an empty directory that nobody else can reach yet. Its own owner, mode and times are the mount's business.
pub fn copy_tree(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let from = fs::openat(from, Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
    let entries = rustix::fs::Dir::read_from(&from).map_err(|e| rrun_sys::Error::new("readdir", "", e.raw_os_error()))?;
    for entry in entries {
        let entry = entry.map_err(|e| rrun_sys::Error::new("readdir", "", e.raw_os_error()))?;
        let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        if name == Path::new(".") || name == Path::new("..") {
            continue;
        }
        copy_entry(&from, to, name).doing(|| format!("tmpcopyup {}", name.display()))?;
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &Path) -> Result<()> {
    let stat = fs::lstatat(from, name)?;
    let mode = stat.st_mode & 0o7777;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            fs::mkdirat(to, name, mode)?;
            let sub = |dir| fs::openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, 0);
            let (source, target) = (sub(from)?, sub(to)?);
            copy_tree(&source, &target)?;
            own(to, name, &stat)?;
            fs::copy_attributes(&source, &target)?;
        }
        FileType::RegularFile => {
            let source = fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW, 0)?;
            let target = fs::openat(to, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode)?;
            let (mut source, mut target) = (std::fs::File::from(source), std::fs::File::from(target));
            std::io::copy(&mut source, &mut target).map_err(|e| Error::io("copy", name, &e))?;
            own(to, name, &stat)?;
            fs::copy_attributes(&source, &target)?;
        }
        FileType::Symlink => {
            let target = fs::readlinkat(from, name)?;
            fs::symlinkat(Path::new(OsStr::from_bytes(target.to_bytes())), to, name)?;
            fs::chownat(to, name, stat.st_uid, stat.st_gid)?;
        }
        kind => {
            fs::mknodat(to, name, kind, mode, rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))?;
            own(to, name, &stat)?;
        }
    }
    // Last: whatever is written, removed or given away before counts as a change.
    Ok(fs::set_times(to, name, &stat)?)
}

fn own(dir: &OwnedFd, name: &Path, stat: &Stat) -> Result<()> {
    fs::chownat(dir, name, stat.st_uid, stat.st_gid)?;
    let mode = stat.st_mode & 0o7777;
    // A change of owner takes set-user-id and set-group-id away. What is there was made here, and nobody else can reach it.
    if mode & 0o7000 != 0 {
        fs::chmodat(dir, name, mode)?;
    }
    Ok(())
}
