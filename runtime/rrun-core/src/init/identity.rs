//! Users, groups and capabilities of the process.

use rrun_sys::process;

use crate::plan::Identity;
use crate::{Context, Result};

/// uid and gid 0 of the user namespace. Supplementary groups go where the namespace allows it.
pub fn become_mapped_root() -> Result<()> {
    match process::set_groups(&[]) {
        // Denied in a user namespace that an unprivileged user made: the groups stay, unmapped.
        Err(e) if e.is(libc::EPERM) => {}
        done => done?,
    }
    process::set_gid(0)?;
    Ok(process::set_uid(0)?)
}

/// From root to the container's user: the bounding set while CAP_SETPCAP is there, ids while the capabilities are, then the sets.
pub fn become_user(identity: &Identity) -> Result<()> {
    if let Some(caps) = &identity.caps {
        for n in 0..64u8 {
            // The first number that the kernel does not know ends the list.
            if caps.bounding & (1 << n) == 0 && !process::drop_bounding(n)? {
                break;
            }
        }
        process::set_keep_caps(true)?;
    }
    set_groups(identity)?;
    process::set_gid(identity.gid).doing(|| format!("become gid {}", identity.gid))?;
    process::set_uid(identity.uid).doing(|| format!("become uid {}", identity.uid))?;
    process::set_umask(identity.umask.unwrap_or(0o022));
    if let Some(caps) = &identity.caps {
        process::set_keep_caps(false)?;
        process::capset(caps.effective, caps.permitted, caps.inheritable).doing(|| "apply capabilities".to_string())?;
        for n in (0..64u8).filter(|n| caps.ambient & (1 << n) != 0) {
            process::raise_ambient(n)?;
        }
    }
    Ok(())
}

fn set_groups(identity: &Identity) -> Result<()> {
    match process::set_groups(&identity.groups) {
        Err(e) if e.is(libc::EPERM) && identity.groups.is_empty() => Ok(()),
        done => done.doing(|| "set additional groups".to_string()),
    }
}

/// Hands stdin, stdout and stderr to the user, so that /dev/stdout can be opened by it. Null devices and what the user
/// namespace cannot own stay as they are.
pub fn own_stdio(uid: u32) -> Result<()> {
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rrun_sys::fs::fstat(fd) else { continue };
        if stat.st_uid == uid || crate::init::is_null_device(&stat) {
            continue;
        }
        match rrun_sys::fs::fchown(fd, uid, u32::MAX) {
            Err(e) if [libc::EINVAL, libc::EPERM, libc::EROFS].contains(&e.errno()) => {}
            done => done?,
        }
    }
    Ok(())
}
