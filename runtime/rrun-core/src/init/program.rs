//! Which file the container's command is, judged before anything is started and worded as the field does.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use rrun_sys::fs::{self, FileType, OFlags};

use crate::{Error, Result};

/// A program that can be run, with its arguments and environment.
#[derive(Debug)]
pub struct Found {
    pub path: CString,
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
}

/// Looks `args[0]` up: as a path if it holds a slash, else in PATH of the container's environment.
pub fn find(args: &[String], env: &[String], uid: u32) -> Result<Found> {
    let name = args.first().ok_or_else(|| Error::Exec("no command was given".into()))?;
    let path = if name.contains('/') { direct(name)? } else { in_path(name, env)? };
    // An empty HOME is none.
    let mut env: Vec<CString> = env.iter().filter(|e| *e != "HOME=").map(|e| c_string(e)).collect::<Result<_>>()?;
    if !env.iter().any(|e| e.as_bytes().starts_with(b"HOME=")) {
        env.push(c_string(&format!("HOME={}", home_of(uid)))?);
    }
    let path = c_string(path.to_str().ok_or_else(|| Error::Exec(format!("exec: {name:?}: PATH is not UTF-8")))?)?;
    Ok(Found { path, argv: args.iter().map(|a| c_string(a)).collect::<Result<_>>()?, env })
}

fn c_string(s: &str) -> Result<CString> {
    CString::new(s).map_err(|_| Error::Exec(format!("{s:?} holds a NUL byte")))
}

fn direct(name: &str) -> Result<PathBuf> {
    match executable(Path::new(name)) {
        Ok(()) => Ok(name.into()),
        Err(errno) => {
            let verb = if errno == libc::EACCES { "" } else { "stat " };
            let shown = if verb.is_empty() { String::new() } else { format!("{verb}{name}: ") };
            Err(Error::Exec(format!("exec: {name:?}: {shown}{}", rrun_sys::errno_text(errno))))
        }
    }
}

fn in_path(name: &str, env: &[String]) -> Result<PathBuf> {
    let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
    for dir in path.split(':') {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        if executable(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    Err(Error::Exec(format!("exec: {name:?}: executable file not found in $PATH")))
}

/// Whether it is a file that somebody may execute; the kernel judges the user's own right at exec.
fn executable(path: &Path) -> Result<(), i32> {
    let fd = fs::openat(fs::CWD, path, OFlags::PATH, 0).map_err(|e| e.errno())?;
    let stat = fs::fstat(&fd).map_err(|e| e.errno())?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Err(libc::EISDIR),
        FileType::RegularFile if stat.st_mode & 0o111 != 0 => fs::may_execute(fs::CWD, path).map_err(|e| e.errno()),
        _ => Err(libc::EACCES),
    }
}

/// The user's home from the container's /etc/passwd, `/` if it names none. A giant file is not read to its end.
fn home_of(uid: u32) -> String {
    const LIMIT: usize = 1 << 20;
    let Ok(file) = fs::openat(fs::CWD, Path::new("/etc/passwd"), OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK, 0) else {
        return "/".into();
    };
    let regular = fs::fstat(&file).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
    let text = if regular { fs::read_to_end(&file, LIMIT).unwrap_or_default() } else { Vec::new() };
    let text = String::from_utf8_lossy(&text);
    let home = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.nth(2)?.parse::<u32>().ok()? == uid).then(|| fields.nth(2).map(str::to_string))?
    });
    home.filter(|h| !h.is_empty() && !h.contains('\0')).unwrap_or_else(|| "/".into())
}
