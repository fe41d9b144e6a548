//! A container's archive onto this host. The container is not trusted: nothing is written through a link that the
//! archive made, and nothing outside the destination.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, chownat, mknodat, utimensat};
use tar::{Archive, Entry, EntryType};
use tokio::sync::mpsc;

use super::plan::Plan;
use crate::failure::Failure;

struct Chunks {
    receiver: mpsc::Receiver<Vec<u8>>,
    current: io::Cursor<Vec<u8>>,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.current.read(buffer)? {
                0 => match self.receiver.blocking_recv() {
                    Some(next) => self.current = io::Cursor::new(next),
                    None => return Ok(0),
                },
                count => return Ok(count),
            }
        }
    }
}

/// Extracts everything; owners are kept only if asked for.
///
/// # Errors
/// The first entry that cannot be made, with its name.
pub fn unpack(receiver: mpsc::Receiver<Vec<u8>>, plan: &Plan, owners: bool) -> Result<(), Failure> {
    let mut archive = Archive::new(Chunks { receiver, current: io::Cursor::default() });
    let mut directories = Vec::new();
    let broken = |err: io::Error| Failure::message(format!("the archive from the daemon is broken: {err}"));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(renamed) = plan.rename(&name) else { continue };
        let told = |err: io::Error| Failure::message(format!("cannot extract {name}: {err}"));
        let path = place(Path::new(&plan.directory), &renamed).map_err(told)?;
        make(&mut entry, &path, plan).map_err(told)?;
        if owners {
            own(&entry, &path).map_err(told)?;
        }
        if entry.header().entry_type() == EntryType::Directory {
            directories.push((path, entry.header().mode().unwrap_or(0o755), entry.header().mtime().unwrap_or(0)));
        } else if entry.header().entry_type() != EntryType::Link {
            touch(&path, entry.header().mtime().unwrap_or(0)).map_err(told)?;
        }
    }
    // Last, as a directory may forbid writing in it, and writing in it changes its time.
    for (path, mode, mtime) in directories.into_iter().rev() {
        let told = |err: io::Error| Failure::message(format!("cannot finish {}: {err}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777)).map_err(told)?;
        touch(&path, mtime).map_err(told)?;
    }
    Ok(())
}

/// The path of an entry; every directory above it is a real one.
fn place(root: &Path, name: &str) -> io::Result<PathBuf> {
    let mut path = root.to_owned();
    let mut parts = Path::new(name).components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else {
            return Err(io::Error::other("its name points out of the destination"));
        };
        path.push(part);
        if parts.peek().is_none() {
            break;
        }
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(io::Error::other(format!("{} is not a directory", path.display()))),
            Err(err) if err.kind() == io::ErrorKind::NotFound => fs::create_dir(&path)?,
            Err(err) => return Err(err),
        }
    }
    Ok(path)
}

fn make(entry: &mut Entry<'_, impl Read>, path: &Path, plan: &Plan) -> io::Result<()> {
    let kind = entry.header().entry_type();
    let mode = entry.header().mode().unwrap_or(0o644) & 0o7777;
    let present = fs::symlink_metadata(path).ok();
    if kind == EntryType::Directory {
        return match present {
            Some(meta) if meta.is_dir() => Ok(()),
            Some(_) => Err(io::Error::other("cannot overwrite non-directory with directory")),
            None => fs::DirBuilder::new().mode(0o700).create(path),
        };
    }
    match present {
        Some(meta) if meta.is_dir() => return Err(io::Error::other("cannot overwrite directory with non-directory")),
        Some(_) => fs::remove_file(path)?,
        None => {}
    }
    let target = entry.link_name_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    match kind {
        EntryType::Symlink => std::os::unix::fs::symlink(&target, path),
        EntryType::Link => {
            let renamed = plan.rename(&target).ok_or_else(|| io::Error::other("it links to nothing"))?;
            fs::hard_link(place(Path::new(&plan.directory), &renamed)?, path)
        }
        EntryType::Fifo => Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(mode), 0)?),
        EntryType::Char | EntryType::Block => Err(io::Error::other("it is a device")),
        _ => {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            io::copy(entry, &mut file)?;
            file.set_permissions(fs::Permissions::from_mode(mode))
        }
    }
}

fn own(entry: &Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
    let id = |number: io::Result<u64>| number.ok().and_then(|number| u32::try_from(number).ok()).filter(|number| *number != u32::MAX);
    let (uid, gid) = (id(entry.header().uid()).map(Uid::from_raw), id(entry.header().gid()).map(Gid::from_raw));
    Ok(chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn touch(path: &Path, mtime: u64) -> io::Result<()> {
    let time = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 };
    Ok(utimensat(CWD, path, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, EntryType, &str)]) -> mpsc::Receiver<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(0);
            if matches!(kind, EntryType::Symlink) {
                builder.append_link(&mut header, name, data).expect("appends");
            } else {
                header.set_size(data.len() as u64);
                // Names are written as they are: a hostile archive obeys no library.
                header.as_gnu_mut().expect("is gnu").name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                builder.append(&header, data.as_bytes()).expect("appends");
            }
        }
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(builder.into_inner().expect("finishes")).expect("has room");
        receiver
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rdocker-cp-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(path.join("dst")).expect("makes a directory");
        path
    }

    fn plan(root: &Path) -> Plan {
        Plan { directory: root.join("dst").display().to_string(), source_name: "d".into(), target_name: "d".into() }
    }

    #[test]
    fn an_archive_cannot_write_through_its_own_link() {
        let root = scratch("link");
        fs::create_dir(root.join("outside")).expect("makes a directory");
        let outside = root.join("outside").display().to_string();
        let entries = [("d", EntryType::Symlink, outside.as_str()), ("d/evil", EntryType::Regular, "x")];
        let refused = unpack(archive(&entries), &plan(&root), false).expect_err("goes through a link");
        assert!(refused.text().is_some_and(|text| text.ends_with("/dst/d is not a directory")), "{refused:?}");
        assert!(!root.join("outside/evil").exists());
        let over = [("d", EntryType::Symlink, "../victim"), ("d", EntryType::Regular, "x")];
        fs::write(root.join("victim"), "safe").expect("writes");
        fs::remove_file(root.join("dst/d")).expect("was made");
        unpack(archive(&over), &plan(&root), false).expect("replaces the link");
        assert_eq!(fs::read_to_string(root.join("victim")).expect("reads"), "safe");
        fs::remove_dir_all(root).expect("cleans up");
    }

    #[test]
    fn names_that_point_outside_are_refused() {
        let root = scratch("dots");
        for name in ["d/../../evil", "../evil"] {
            assert!(unpack(archive(&[(name, EntryType::Regular, "x")]), &plan(&root), false).is_err(), "{name}");
        }
        assert!(!root.join("evil").exists() && !root.join("dst/evil").exists());
        fs::remove_dir_all(root).expect("cleans up");
    }

    #[test]
    fn files_and_directories_arrive() {
        let root = scratch("plain");
        let entries = [("d/", EntryType::Directory, ""), ("d/f", EntryType::Regular, "hello")];
        unpack(archive(&entries), &plan(&root), false).expect("unpacks");
        assert_eq!(fs::read_to_string(root.join("dst/d/f")).expect("reads"), "hello");
        fs::remove_dir_all(root).expect("cleans up");
    }
}
