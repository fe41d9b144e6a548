//! `mounts` of config.json → what to mount, with every option decided.

use std::path::{Path, PathBuf};

use crate::spec::{Linux, Mount, Spec};
use crate::{Error, Result};

pub const ATTR_RDONLY: u64 = 0x1;
pub const ATTR_NOSUID: u64 = 0x2;
pub const ATTR_NODEV: u64 = 0x4;
pub const ATTR_NOEXEC: u64 = 0x8;
const ATTR_ATIME_MASK: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
pub const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

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
    /// A bind that the parent prepares: its number among these.
    pub tree: Option<usize>,
    /// It is the procfs that an earlier step has made and written to.
    pub made: bool,
    /// Its place in config.json's `mounts`.
    pub entry: Option<usize>,
}

/// Flags of mount_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    pub set: u64,
    pub clear: u64,
    /// Cleared too, unless the kernel has locked them for a user namespace.
    pub implied: u64,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An existing file or directory of the host.
    Bind { source: PathBuf, recursive: bool },
    /// A new file system.
    New { fstype: String, source: String, data: Vec<(String, Option<String>)>, copy_up: bool },
    /// A mount of the host's, taken from its place (in the container's mount namespace).
    Move { source: PathBuf },
    /// Attributes of what is mounted there already.
    Reattribute,
    /// The same, and options of its file system, wherever else that is mounted.
    Remount { data: Vec<(String, Option<String>)> },
}

/// An id-mapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    pub by: MapSource,
    pub recursive: bool,
}

/// Where the mapping of an id-mapped mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapSource {
    Ranges(super::Maps),
    /// An existing user namespace.
    Namespace(PathBuf),
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
            tree: None,
            made: false,
            entry: None,
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

/// Options that change nothing of what the kernel's defaults are. `silent` only says what the kernel writes to its log, where fsopen(2)
/// tells its errors to the caller instead; `iversion` is the file system's own matter (ext4 ignores it since Linux 6.0, others always did).
const NEUTRAL: [&str; 11] =
    ["defaults", "async", "loud", "nolazytime", "noiversion", "nomand", "acl", "noacl", "norbind", "silent", "iversion"];
/// Options of the superblock that fsconfig(2) takes as they are, with their bits for mount(2).
pub const SUPERBLOCK: [(&str, libc::c_ulong); 4] =
    [("sync", libc::MS_SYNCHRONOUS), ("dirsync", libc::MS_DIRSYNC), ("lazytime", libc::MS_LAZYTIME), ("mand", libc::MS_MANDLOCK)];

#[derive(Default)]
struct Parsed {
    bind: Option<bool>,
    attrs: Attrs,
    recursive: Attrs,
    propagation: Vec<u64>,
    copy_up: bool,
    idmap: Option<bool>,
    remount: bool,
    moved: bool,
    data: Vec<(String, Option<String>)>,
}

fn parse_options(options: &[String]) -> Parsed {
    let mut p = Parsed::default();
    for option in options.iter().map(String::as_str) {
        if let Some(bits) = flag(option) {
            // Of one mount a mode can only be replaced by another.
            if bits.1 || !is_atime(option) {
                apply_flag(&mut p.attrs, option, bits);
            }
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
                "remount" => p.remount = true,
                "move" => p.moved = true,
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

/// Decides the entry of `mounts` that has this number; cgroup mounts are decided elsewhere. `bundle`: relative sources of binds are below it.
pub fn plan_mount(number: usize, bundle: &Path, spec: &Spec) -> Result<MountStep> {
    let step = decide(&spec.mounts[number], bundle, spec).map_err(|e| Error::invalid(format!("config.json: mounts[{number}]: {e}")))?;
    Ok(MountStep { entry: Some(number), ..step })
}

fn decide(mount: &Mount, bundle: &Path, spec: &Spec) -> Result<MountStep> {
    let mut parsed = parse_options(&mount.options);
    let destination = absolute(&mount.destination);
    // A destination may be given as the host sees it.
    let destination = match destination.strip_prefix(super::rootfs_path(spec, bundle)) {
        Ok(inside) if spec.root.is_some() => Path::new("/").join(inside),
        _ => destination,
    };
    let bind = parsed.bind.or((mount.kind == "bind").then_some(false));
    let what = match bind {
        Some(_) if parsed.remount => What::Reattribute,
        None if parsed.remount => What::Remount { data: parsed.data.clone() },
        _ if parsed.moved => {
            refuse_data(&parsed, &destination)?;
            What::Move { source: bundle.join(&mount.source) }
        }
        Some(recursive) => {
            refuse_data(&parsed, &destination)?;
            replace_attributes(&mut parsed.attrs);
            What::Bind { source: bundle.join(&mount.source), recursive }
        }
        None => new_filesystem(mount, &parsed)?,
    };
    let idmap = idmap(mount, &parsed, bind.is_some(), &spec.linux)?;
    let Parsed { attrs, recursive, propagation, .. } = parsed;
    Ok(MountStep { destination, what, attrs, recursive_attrs: recursive, propagation, idmap, tree: None, made: false, entry: None })
}

fn refuse_data(parsed: &Parsed, destination: &Path) -> Result<()> {
    match parsed.data.iter().find(|(key, _)| SUPERBLOCK.iter().all(|(name, _)| name != key)) {
        Some((key, _)) => Err(Error::invalid(format!(
            "{}: {key:?}: bind mounts cannot have any filesystem-specific options applied",
            destination.display()
        ))),
        None => Ok(()),
    }
}

/// A bind mount without flags keeps those of its source; with one, it has just those that are given (as in runc, where a remount
/// sets them all). The access time mode stays unless a mode is set.
fn replace_attributes(attrs: &mut Attrs) {
    if attrs.set | attrs.clear == 0 {
        return;
    }
    let chosen = attrs.set & (ATTR_NOATIME | ATTR_STRICTATIME | ATTR_NODIRATIME) != 0 || attrs.clear & ATTR_ATIME_MASK != 0;
    if chosen {
        attrs.clear |= (ATTR_ATIME_MASK | ATTR_NODIRATIME) & !(attrs.set & ATTR_NODIRATIME);
    }
    let flags = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOSYMFOLLOW;
    attrs.implied = flags & !attrs.set & !attrs.clear;
}

/// Ranges of the mount's own, or those of the container's user namespace where only the option is given.
fn idmap(mount: &Mount, parsed: &Parsed, bind: bool, linux: &Linux) -> Result<Option<IdMap>> {
    if parsed.idmap.is_none() && mount.uid_mappings.is_empty() {
        return Ok(None);
    }
    let refuse = |why: &str| Err(Error::invalid(format!("{}: {why}", mount.destination.display())));
    if !bind {
        return refuse("id-mapped mounts are only supported for bind-mounts");
    }
    let by = if !mount.uid_mappings.is_empty() {
        MapSource::Ranges(super::Maps { uid: mount.uid_mappings.clone(), gid: mount.gid_mappings.clone() })
    } else {
        match linux.namespace("user") {
            Some(user) if !user.path.as_os_str().is_empty() => MapSource::Namespace(user.path.clone()),
            Some(_) => MapSource::Ranges(super::Maps { uid: linux.uid_mappings.clone(), gid: linux.gid_mappings.clone() }),
            None => return refuse("id-mapped mounts must have both uid and gid mappings specified, or a user namespace"),
        }
    };
    Ok(Some(IdMap { by, recursive: parsed.idmap == Some(true) }))
}

fn new_filesystem(mount: &Mount, parsed: &Parsed) -> Result<What> {
    if mount.kind.is_empty() {
        return Err(Error::invalid(format!("{}: type: must be given where no option is bind or rbind", mount.destination.display())));
    }
    if parsed.copy_up && mount.kind != "tmpfs" {
        return Err(Error::invalid(format!("{}: tmpcopyup: only tmpfs takes it", mount.destination.display())));
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
        decide(
            &Mount { destination: "/x".into(), kind: kind.into(), source: "src".into(), options, ..Mount::default() },
            Path::new("/b"),
            &Spec::default(),
        )
        .unwrap()
    }

    #[test]
    fn options_become_attributes() {
        let step = plan("tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k", "nodev", "dev"]);
        assert_eq!(step.attrs, Attrs { set: ATTR_NOSUID | ATTR_STRICTATIME, clear: ATTR_ATIME_MASK | ATTR_NODEV, implied: 0 });
        let What::New { data, .. } = step.what else { panic!("a new file system") };
        assert_eq!(data, [("mode".into(), Some("755".into())), ("size".into(), Some("65536k".into()))]);
    }

    #[test]
    fn a_bind_source_is_relative_to_the_bundle_and_recursive_flags_stay_apart() {
        let step = plan("bind", &["rbind", "rro", "rprivate"]);
        assert_eq!(step.what, What::Bind { source: "/b/src".into(), recursive: true });
        assert_eq!((step.attrs, step.recursive_attrs), (Attrs::default(), Attrs { set: ATTR_RDONLY, ..Attrs::default() }));
        assert_eq!(step.propagation, [libc::MS_PRIVATE | libc::MS_REC]);
    }

    #[test]
    fn a_bind_mount_with_a_flag_has_no_other() {
        let step = plan("bind", &["bind", "nosuid"]);
        assert_eq!(step.attrs.set, ATTR_NOSUID);
        assert_eq!(step.attrs.clear, 0, "the access time mode stays");
        assert_eq!(step.attrs.implied, ATTR_RDONLY | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOSYMFOLLOW);
        assert_eq!(plan("bind", &["bind"]).attrs, Attrs::default());
        assert_eq!(plan("bind", &["bind", "atime"]).attrs, Attrs::default());
        let step = plan("bind", &["bind", "ro", "relatime"]);
        assert_eq!(
            (step.attrs.set, step.attrs.clear & (ATTR_ATIME_MASK | ATTR_NODIRATIME)),
            (ATTR_RDONLY, ATTR_ATIME_MASK | ATTR_NODIRATIME)
        );
    }

    #[test]
    fn a_destination_may_be_named_as_the_host_sees_it() {
        let spec = Spec { root: Some(crate::spec::Root { path: "rootfs".into(), readonly: false }), ..Spec::default() };
        let mount = Mount { destination: "/b/rootfs/mnt".into(), kind: "tmpfs".into(), ..Mount::default() };
        assert_eq!(decide(&mount, Path::new("/b"), &spec).unwrap().destination, Path::new("/mnt"));
    }

    #[test]
    fn an_unknown_option_of_a_bind_is_refused() {
        let mount =
            Mount { destination: "/x".into(), kind: "bind".into(), source: "s".into(), options: vec!["size=1".into()], ..Mount::default() };
        let refused = decide(&mount, Path::new("/b"), &Spec::default()).unwrap_err().to_string();
        assert!(refused.contains("\"size\""), "{refused}");
    }
}
