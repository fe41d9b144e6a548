//! The runtime's own executable, out of reach for containers (CVE-2019-5736).
//!
//! A container can make this program run itself again (entrypoint `/proc/self/exe`) and then open the file of that process for
//! writing. So the runtime starts itself once more from a detached, read-only copy of the *mount* of its executable: the same
//! file, nothing copied, but every path to it through `/proc/<pid>/exe` ends on a mount that refuses to write. Before Linux 5.12 a
//! detached mount cannot be made read-only: there the copy is one of the file, sealed, in memory.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rrun_sys::fs::{self, OFlags};
use rrun_sys::mount::{self, MountAttr};
use rrun_sys::process;

use crate::plan::{ATTR_NODEV, ATTR_NOSUID, ATTR_RDONLY};
use crate::{Context, Error, Result};

const MARK: &str = "_RRUN_SEALED";

/// Returns once this process runs from a read-only mount or a sealed copy; where it does not yet, it is replaced by one that does.
pub fn seal_own_executable() -> Result<()> {
    let own =
        fs::openat(fs::CWD, Path::new("/proc/self/exe"), OFlags::PATH, 0).doing(|| "open the runtime's own executable".to_string())?;
    if fs::is_on_read_only_mount(&own)? {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        // The mark alone proves nothing: a container can set it, too.
        if fs::is_sealed(readable()?) {
            return Ok(());
        }
        return Err(Error::state("the runtime's executable could not be sealed: neither read-only mount nor sealed copy has an effect"));
    }
    let sealed = match read_only_view(own.as_fd()) {
        Ok(fd) => fd,
        // Without CAP_SYS_ADMIN (rootless) there are no mounts. A file of somebody else's is out of the container's reach; the user's own
        // is not, whom the container's root is outside.
        Err(e) if e.is(libc::EPERM) && fs::fstat(&own)?.st_uid != rustix::process::geteuid().as_raw() => return Ok(()),
        Err(e) if e.is(libc::EPERM) => fs::sealed_copy("rrun", readable()?)?,
        Err(e) if e.is(libc::ENOSYS) => fs::sealed_copy("rrun", readable()?)?,
        Err(e) => return Err(e).doing(|| "seal the runtime's own executable".to_string()),
    };
    let argv: Vec<CString> = std::env::args_os().filter_map(|a| CString::new(a.into_vec()).ok()).collect();
    let mut env: Vec<CString> =
        std::env::vars_os().filter_map(|(k, v)| CString::new([k.into_vec(), b"=".to_vec(), v.into_vec()].concat()).ok()).collect();
    env.push(CString::new(format!("{MARK}=1")).map_err(|_| Error::state("unreachable: the mark has no NUL byte"))?);
    Err(process::execveat(Some(sealed.as_fd()), c"", &argv, &env)).doing(|| "run the sealed executable".to_string())
}

fn readable() -> Result<std::os::fd::OwnedFd> {
    fs::openat(fs::CWD, Path::new("/proc/self/exe"), OFlags::RDONLY, 0).doing(|| "open the runtime's own executable".to_string())
}

fn read_only_view(own: std::os::fd::BorrowedFd<'_>) -> rrun_sys::Result<std::os::fd::OwnedFd> {
    let tree = mount::clone_tree(own, Path::new(""), false)?;
    mount::set_attr(&tree, false, &MountAttr { attr_set: ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, ..MountAttr::default() })?;
    Ok(tree)
}
