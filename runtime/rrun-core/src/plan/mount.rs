//! `mounts` of config.json → what to mount, with every option decided.

use std::path::{Path, PathBuf};

use crate::spec::{IdMapping, Mount};
use crate::{Error, Result};

pub const ATTR_RDONLY: u64 = 0x1;
pub const ATTR_NOSUID: u64 = 0x2;
pub const ATTR_NODEV: u64 = 0x4;
pub const ATTR_NOEXEC: u64 = 0x8;
const ATTR_ATIME_MASK: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// One mount to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountStep {
    /// In the container, absolute.
    pub destination: PathBuf,
    pub what: What,
    /// For this mount alone.
    pub attrs: Attrs,
    /// For it and all mounts below it.
    pub recursive_attrs: Attrs,
    /// `MS_*` propagation types, each with MS_REC or not, in order.
    pub propagation: Vec<u64>,
    pub idmap: Option<IdMap>,
}

/// Flags of mount_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    pub set: u64,
    pub clear: u64,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An existing file or directory of the host.
    Bind { source: PathBuf, recursive: bool },
    /// A new file system.
    New { fstype: String, source: String, data: Vec<(String, Option<String>)>, copy_up: bool },
    /// Attributes of what is mounted there already.
    Reattribute,
}

/// An id-mapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    pub uid: Vec<IdMapping>,
    pub gid: Vec<IdMapping>,
    pub recursive: bool,
}

impl MountStep {
    pub fn new(destination: impl Into<PathBuf>, what: What) -> MountStep {
        MountStep {
            destination: destination.into(),
            what,
            attrs: Attrs::default(),
            recursive_attrs: Attrs::default(),
            propagation: Vec::new(),
            idmap: None,
        }
    }
}

/// A flag option of a mount: its bits, and whether it sets or clears them.
fn flag(option: &str) -> Option<(u64, bool)> {
    Some(match option {
        "ro" => (ATTR_RDONLY, true),
        "rw" => (ATTR_RDONLY, false),
        "nosuid" => (ATTR_NOSUID, true),
        "suid" => (ATTR_NOSUID, false),
        "nodev" => (ATTR_NODEV, true),
        "dev" => (ATTR_NODEV, false),
        "noexec" => (ATTR_NOEXEC, true),
        "exec" => (ATTR_NOEXEC, false),
        "nodiratime" => (ATTR_NODIRATIME, true),
        "diratime" => (ATTR_NODIRATIME, false),
        "nosymfollow" => (ATTR_NOSYMFOLLOW, true),
        "symfollow" => (ATTR_NOSYMFOLLOW, false),
        "noatime" => (ATTR_NOATIME, true),
        "strictatime" => (ATTR_STRICTATIME, true),
        "relatime" => (0, true),
        "atime" => (ATTR_NOATIME, false),
        "norelatime" | "nostrictatime" => (ATTR_STRICTATIME, false),
        _ => return None,
    })
}

fn is_atime(option: &str) -> bool {
    option.ends_with("atime") && !option.ends_with("diratime")
}

fn apply_flag(attrs: &mut Attrs, option: &str, (bits, set): (u64, bool)) {
    if is_atime(option) {
        // The access time modes are one field, not bits: it is cleared as a whole.
        attrs.clear |= ATTR_ATIME_MASK;
        attrs.set &= !ATTR_ATIME_MASK;
        if set {
            attrs.set |= bits;
        }
    } else if set {
        attrs.set |= bits;
        attrs.clear &= !bits;
    } else {
        attrs.clear |= bits;
        attrs.set &= !bits;
    }
}

/// The propagation type that an option or `rootfsPropagation` names: `MS_*` bits.
pub fn propagation(option: &str) -> Option<u64> {
    let (recursive, kind) = match option.strip_prefix('r') {
        Some(kind) => (libc::MS_REC, kind),
        None => (0, option),
    };
    let kind = match kind {
        "private" => libc::MS_PRIVATE,
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

/// Options that change nothing of what the kernel's defaults are.
const NEUTRAL: [&str; 9] = ["defaults", "async", "loud", "nolazytime", "noiversion", "nomand", "acl", "noacl", "norbind"];
/// Options of the superblock that fsconfig(2) takes as they are.
const SUPERBLOCK: [&str; 6] = ["sync", "dirsync", "lazytime", "mand", "silent", "iversion"];

#[derive(Default)]
struct Parsed {
    bind: Option<bool>,
    attrs: Attrs,
    recursive: Attrs,
    propagation: Vec<u64>,
    copy_up: bool,
    idmap: Option<bool>,
    data: Vec<(String, Option<String>)>,
}

fn parse_options(options: &[String]) -> Parsed {
    let mut p = Parsed::default();
    for option in options.iter().map(String::as_str) {
        if let Some(bits) = flag(option) {
            apply_flag(&mut p.attrs, option, bits);
        } else if let Some((plain, bits)) = option.strip_prefix('r').and_then(|plain| Some((plain, flag(plain)?))) {
            apply_flag(&mut p.recursive, plain, bits);
        } else if let Some(kind) = propagation(option) {
            p.propagation.push(kind);
        } else {
            match option {
                "bind" => p.bind = Some(p.bind.unwrap_or(false)),
                "rbind" => p.bind = Some(true),
                "tmpcopyup" => p.copy_up = true,
                "idmap" => p.idmap = Some(false),
                "ridmap" => p.idmap = Some(true),
                "" => {}
                neutral if NEUTRAL.contains(&neutral) => {}
                data => p.data.push(match data.split_once('=') {
                    Some((key, value)) => (key.to_string(), Some(value.to_string())),
                    None => (data.to_string(), None),
                }),
            }
        }
    }
    p
}

/// Decides one entry of `mounts`; cgroup mounts are decided elsewhere. `bundle`: relative sources of binds are below it.
pub fn plan_mount(mount: &Mount, bundle: &Path) -> Result<MountStep> {
    let parsed = parse_options(&mount.options);
    let destination = absolute(&mount.destination);
    if parsed.idmap.is_none() && mount.options.iter().any(|o| o == "remount") {
        return Err(Error::invalid(format!("mounts: {}: option \"remount\": give the options to the mount itself", destination.display())));
    }
    let bind = parsed.bind.or((mount.kind == "bind").then_some(false));
    let what = match bind {
        Some(recursive) => {
            if let Some((key, _)) = parsed.data.iter().find(|(key, _)| !SUPERBLOCK.contains(&key.as_str())) {
                return Err(Error::invalid(format!("mounts: {}: {key:?}: a bind mount takes no such option", destination.display())));
            }
            What::Bind { source: bundle.join(&mount.source), recursive }
        }
        None => new_filesystem(mount, &parsed)?,
    };
    let idmap = (!mount.uid_mappings.is_empty()).then(|| IdMap {
        uid: mount.uid_mappings.clone(),
        gid: mount.gid_mappings.clone(),
        recursive: parsed.idmap == Some(true),
    });
    Ok(MountStep { destination, what, attrs: parsed.attrs, recursive_attrs: parsed.recursive, propagation: parsed.propagation, idmap })
}

fn new_filesystem(mount: &Mount, parsed: &Parsed) -> Result<What> {
    if mount.kind.is_empty() {
        return Err(Error::invalid(format!(
            "mounts: {}: type: must be given where no option is bind or rbind",
            mount.destination.display()
        )));
    }
    if parsed.copy_up && mount.kind != "tmpfs" {
        return Err(Error::invalid(format!("mounts: {}: tmpcopyup: only tmpfs takes it", mount.destination.display())));
    }
    let mut data = parsed.data.clone();
    // One superblock of the kernel's own file systems serves many: there, read-only is the mount's matter alone.
    let shared = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts", "tmpfs"].contains(&mount.kind.as_str());
    if parsed.attrs.set & ATTR_RDONLY != 0 && !shared {
        data.push(("ro".to_string(), None));
    }
    let source = if mount.source.is_empty() { mount.kind.clone() } else { mount.source.clone() };
    Ok(What::New { fstype: mount.kind.clone(), source, data, copy_up: parsed.copy_up })
}

/// Relative destinations are taken from the root, as the field does (with the specification's blessing until 1.0).
fn absolute(path: &Path) -> PathBuf {
    if path.is_absolute() { path.to_path_buf() } else { Path::new("/").join(path) }
}

/// The entry of type `cgroup`: the container's own cgroups, whatever the host's arrangement.
pub fn plan_cgroup_mount(mount: &Mount, cgroups: &super::CgroupView, own_namespace: bool) -> Vec<MountStep> {
    let parsed = parse_options(&mount.options);
    let top = absolute(&mount.destination);
    let finish = |mut step: MountStep| {
        step.attrs = parsed.attrs;
        step.propagation.clone_from(&parsed.propagation);
        step
    };
    let one = |dir: &rrun_cgroup::Dir, destination: PathBuf| {
        if own_namespace {
            let v2 = dir.version == rrun_cgroup::Version::V2;
            let named = dir.controllers.iter().any(|c| c.starts_with("name="));
            let mut data: Vec<_> = dir
                .controllers
                .iter()
                .map(|c| match c.split_once('=') {
                    Some((key, value)) => (key.to_string(), Some(value.to_string())),
                    None => (c.clone(), None),
                })
                .collect();
            if named {
                data.insert(0, ("none".to_string(), None));
            }
            let fstype = if v2 { "cgroup2" } else { "cgroup" };
            finish(MountStep::new(destination, What::New { fstype: fstype.into(), source: "cgroup".into(), data, copy_up: false }))
        } else {
            finish(MountStep::new(destination, What::Bind { source: dir.path.clone(), recursive: true }))
        }
    };
    if let [only] = cgroups.location.dirs.as_slice()
        && only.version == rrun_cgroup::Version::V2
    {
        return vec![one(only, top)];
    }
    let data = vec![("mode".to_string(), Some("755".to_string()))];
    let mut tmpfs = MountStep::new(&top, What::New { fstype: "tmpfs".into(), source: "tmpfs".into(), data, copy_up: false });
    tmpfs.attrs = Attrs { set: parsed.attrs.set & !ATTR_RDONLY, ..Attrs::default() };
    let mut steps = vec![tmpfs];
    steps.extend(cgroups.location.dirs.iter().filter_map(|dir| Some(one(dir, top.join(dir.mount_point.file_name()?)))));
    if parsed.attrs.set & ATTR_RDONLY != 0 {
        let mut seal = MountStep::new(&top, What::Reattribute);
        seal.attrs.set = ATTR_RDONLY;
        steps.push(seal);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kind: &str, options: &[&str]) -> MountStep {
        let options = options.iter().map(ToString::to_string).collect();
        plan_mount(
            &Mount { destination: "/x".into(), kind: kind.into(), source: "src".into(), options, ..Mount::default() },
            Path::new("/b"),
        )
        .unwrap()
    }

    #[test]
    fn options_become_attributes() {
        let step = plan("tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k", "nodev", "dev"]);
        assert_eq!(step.attrs, Attrs { set: ATTR_NOSUID | ATTR_STRICTATIME, clear: ATTR_ATIME_MASK | ATTR_NODEV });
        let What::New { data, .. } = step.what else { panic!("a new file system") };
        assert_eq!(data, [("mode".into(), Some("755".into())), ("size".into(), Some("65536k".into()))]);
    }

    #[test]
    fn a_bind_source_is_relative_to_the_bundle_and_recursive_flags_stay_apart() {
        let step = plan("bind", &["rbind", "rro", "rprivate"]);
        assert_eq!(step.what, What::Bind { source: "/b/src".into(), recursive: true });
        assert_eq!((step.attrs, step.recursive_attrs), (Attrs::default(), Attrs { set: ATTR_RDONLY, clear: 0 }));
        assert_eq!(step.propagation, [libc::MS_PRIVATE | libc::MS_REC]);
    }

    #[test]
    fn an_unknown_option_of_a_bind_is_refused() {
        let mount =
            Mount { destination: "/x".into(), kind: "bind".into(), source: "s".into(), options: vec!["size=1".into()], ..Mount::default() };
        assert!(plan_mount(&mount, Path::new("/b")).unwrap_err().to_string().contains("\"size\""));
    }
}
