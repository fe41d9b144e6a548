//! A mount as containerd's API carries it: file system type, source and `mount -o` options.

use std::os::fd::{AsFd, OwnedFd};

use rcontainerd_types::{Error, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
use serde::{Deserialize, Serialize};

/// One mount that makes up a root file system; the first goes on the target, later ones on top of it.
///
/// An overlay with many layers has a `lowerdir=` longer than the page that mount(2) reads: who mounts passes each layer by
/// fsconfig(2) `lowerdir+` (Linux 6.7), or changes into a common parent and makes the paths relative (as containerd does).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub fstype: String,
    pub source: String,
    #[serde(default)]
    pub options: Vec<String>,
}

/// Mounts an overlay without attaching it anywhere, each layer passed by itself, so that their number is not bounded by a page.
///
/// # Errors
/// The kernel's refusal, with the option that it refused.
pub fn attach_detached(mount: &Mount) -> Result<OwnedFd> {
    let failed = |what: String| move |err: rustix::io::Errno| Error::io(what, err.into());
    let context = fsopen(mount.fstype.as_str(), FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed(format!("fsopen {}", mount.fstype)))?;
    for option in &mount.options {
        match option.split_once('=') {
            Some(("lowerdir", lowers)) => {
                for lower in lowers.split(':') {
                    let told = fsconfig_set_string(context.as_fd(), "lowerdir+", lower);
                    told.map_err(failed(format!("add lower layer {lower}")))?;
                }
            }
            Some((name, value)) => fsconfig_set_string(context.as_fd(), name, value).map_err(failed(format!("mount option {option}")))?,
            None => fsconfig_set_flag(context.as_fd(), option.as_str()).map_err(failed(format!("mount option {option}")))?,
        }
    }
    fsconfig_create(context.as_fd()).map_err(failed(format!("mount {}", mount.fstype)))?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(failed("fsmount".into()))
}
