//! Extended attributes by directory descriptor and name, through /proc/self/fd (there is no setxattrat before Linux 6.13).

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, XattrFlags, openat};
use rustix::io::Errno;

/// A path that names the very object, never what a symlink in its place points to.
pub struct ProcPath {
    path: String,
    _object: OwnedFd,
}

impl ProcPath {
    pub fn open(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Self> {
        let object = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path: format!("/proc/self/fd/{}", object.as_raw_fd()), _object: object })
    }

    pub fn set(&self, name: &CStr, value: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::setxattr(self.path.as_str(), name, value, XattrFlags::empty())
    }

    /// Names of all attributes; empty where the file system has none.
    pub fn list(&self) -> rustix::io::Result<Vec<CString>> {
        let mut buffer = vec![0u8; 1024];
        loop {
            match rustix::fs::listxattr(self.path.as_str(), &mut buffer[..]) {
                Ok(length) => {
                    let names = buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
                    return Ok(names.filter_map(|name| CString::new(name).ok()).collect());
                }
                Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
                Err(Errno::NOTSUP) => return Ok(Vec::new()),
                Err(err) => return Err(err),
            }
        }
    }

    pub fn get(&self, name: &CStr) -> rustix::io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0u8; 256];
        loop {
            match rustix::fs::getxattr(self.path.as_str(), name, &mut buffer[..]) {
                Ok(length) => {
                    buffer.truncate(length);
                    return Ok(Some(buffer));
                }
                Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
                Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
                Err(err) => return Err(err),
            }
        }
    }
}

/// Copies every attribute of an object to another.
pub fn copy(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, target: &CStr) -> rustix::io::Result<()> {
    let source = ProcPath::open(from, name)?;
    let names = source.list()?;
    if names.is_empty() {
        return Ok(());
    }
    let target = ProcPath::open(to, target)?;
    for attribute in names {
        if let Some(value) = source.get(&attribute)? {
            target.set(&attribute, &value)?;
        }
    }
    Ok(())
}

/// As `copy`, without overlayfs's own marks.
pub fn copy_visible(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, target: &CStr) -> rustix::io::Result<()> {
    let source = ProcPath::open(from, name)?;
    let names: Vec<CString> = source.list()?.into_iter().filter(|name| !is_overlay_mark(name.as_bytes())).collect();
    if names.is_empty() {
        return Ok(());
    }
    let target = ProcPath::open(to, target)?;
    for attribute in names {
        if let Some(value) = source.get(&attribute)? {
            target.set(&attribute, &value)?;
        }
    }
    Ok(())
}

/// Attributes by which overlayfs steers itself: an image must not set them, a copy must not carry them.
pub fn is_overlay_mark(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Whether a layer may set it. Labels of the host's own security modules are the host's business.
pub fn is_allowed(name: &[u8]) -> bool {
    !is_overlay_mark(name) && (!name.starts_with(b"security.") || name == b"security.capability")
}
