//! Compiled programs kept in files, as compiling Docker's profile takes longer than starting its container.
//!
//! ```text
//! DIR (0700, ours)/<sha256 of all that a program depends on>   0600:  magic · sha256 of the rest · flags · warnings · code
//! ```
//! A filter decides what a container may do, so nothing is taken that someone else could have written: the directory and the
//! file must be ours, closed to others, and no symbolic links; the content must have its hash. Whatever is wrong costs a
//! compilation, never the filter.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::{Profile, Program, Result};

/// Changes whenever the same profile may compile to something else, or the format of the files changes.
const MAGIC: &[u8; 8] = b"rrunsec2";
const HASH: usize = 32;
/// A host has a handful of profiles; more files than this are somebody's loop.
const MAX_FILES: usize = 64;
const MAX_SIZE: u64 = 1 << 20;

/// A directory of compiled programs.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// `dir` is made on first use, with mode 0700; its parent must exist.
    pub fn new(dir: &Path) -> Cache {
        Cache { dir: dir.to_path_buf() }
    }

    /// The program of a profile (its JSON) from the cache, else compiled and put there. A cache that cannot be used adds a warning to
    /// the program.
    pub fn get_or_compile(&self, profile: &str) -> Result<Program> {
        let dir = match self.open() {
            Ok(dir) => dir,
            Err(why) => {
                let mut program = Program::compile(&Profile::parse(profile)?)?;
                program.warnings.push(format!("seccomp: the cache {} is not used: {why}", self.dir.display()));
                return Ok(program);
            }
        };
        let name = key(profile);
        if let Some(program) = load(dir.as_fd(), &name) {
            return Ok(program);
        }
        let mut program = Program::compile(&Profile::parse(profile)?)?;
        if let Err(e) = store(dir.as_fd(), &name, &program) {
            program.warnings.push(format!("seccomp: cannot write to the cache {}: {e}", self.dir.display()));
        }
        Ok(program)
    }

    fn open(&self) -> std::result::Result<OwnedFd, String> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || fs::open(&self.dir, flags, Mode::empty());
        let dir = match open() {
            Err(Errno::NOENT) => match fs::mkdir(&self.dir, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(e) => Err(e),
            },
            other => other,
        };
        let dir = dir.map_err(|e| e.to_string())?;
        match ours(dir.as_fd(), FileType::Directory) {
            true => Ok(dir),
            false => Err("it is not owned by this user alone (remove it, it will be made anew)".into()),
        }
    }
}

/// Owned by us, of the kind expected, closed to everyone else.
fn ours(fd: BorrowedFd<'_>, kind: FileType) -> bool {
    fs::fstat(fd).is_ok_and(|stat| {
        stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0 && FileType::from_raw_mode(stat.st_mode) == kind
    })
}

/// Everything that a program depends on: the profile, the machine, the kernel (its set of actions), the library, and us.
fn key(profile: &str) -> String {
    let uname = rustix::system::uname();
    let library = libseccomp::ScmpVersion::current().map(|version| version.to_string()).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(profile);
    for part in [uname.machine().to_bytes(), uname.release().to_bytes(), library.as_bytes(), MAGIC, env!("CARGO_PKG_VERSION").as_bytes()] {
        hash.update([0]);
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn load(dir: BorrowedFd<'_>, name: &str) -> Option<Program> {
    let fd = fs::openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()?;
    if !ours(fd.as_fd(), FileType::RegularFile) {
        return None;
    }
    let mut bytes = Vec::with_capacity(32 << 10);
    File::from(fd).take(MAX_SIZE).read_to_end(&mut bytes).ok()?;
    decode(&bytes)
}

fn encode(program: &Program) -> Vec<u8> {
    let warnings = program.warnings.join("\n");
    let mut rest = program.flags.to_le_bytes().to_vec();
    rest.extend(u64::try_from(warnings.len()).expect("a length").to_le_bytes());
    rest.extend(warnings.as_bytes());
    rest.extend(&program.code);
    [MAGIC.as_slice(), &Sha256::digest(&rest), &rest].concat()
}

fn decode(bytes: &[u8]) -> Option<Program> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (hash, rest) = rest.split_at_checked(HASH)?;
    if Sha256::digest(rest).as_slice() != hash {
        return None;
    }
    let (flags, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (warnings, code) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    if code.is_empty() || code.len() % 8 != 0 {
        return None;
    }
    let warnings = std::str::from_utf8(warnings).ok()?.lines().map(str::to_owned).collect();
    Some(Program { code: code.to_vec(), flags: u64::from_le_bytes(*flags), warnings })
}

/// Written beside and renamed, so that a reader sees all of it or nothing. Two writers write the same.
fn store(dir: BorrowedFd<'_>, name: &str, program: &Program) -> std::io::Result<()> {
    make_room(dir)?;
    let temporary = format!(".{name}.{}", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match fs::openat(dir, &temporary, flags, Mode::RUSR | Mode::WUSR) {
        // A leftover of a process that had our pid and was killed.
        Err(Errno::EXIST) => {
            fs::unlinkat(dir, &temporary, AtFlags::empty())?;
            fs::openat(dir, &temporary, flags, Mode::RUSR | Mode::WUSR)?
        }
        other => other?,
    };
    let written = File::from(fd).write_all(&encode(program));
    let done = written.and_then(|()| Ok(fs::renameat(dir, &temporary, dir, name)?));
    if done.is_err() {
        // The first error is the one to tell.
        fs::unlinkat(dir, &temporary, AtFlags::empty()).unwrap_or_default();
    }
    done
}

/// Empties a full cache: what is still in use comes back at the price of one compilation each.
fn make_room(dir: BorrowedFd<'_>) -> std::io::Result<()> {
    let names: Vec<_> = fs::Dir::read_from(dir)?
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.file_name().to_owned())
        .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
        .collect();
    if names.len() < MAX_FILES {
        return Ok(());
    }
    for name in names {
        match fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) fn encode_for_tests(program: &Program) -> Vec<u8> {
    encode(program)
}
