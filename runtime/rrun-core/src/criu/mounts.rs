//! The mounts that config.json asks for, and whether those of a container are these: an image that criu restores from may name others.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rrun_cgroup::{Location, decode_mountinfo_path};
use rrun_sys::fs::{self, FileType, OFlags};

use crate::init::is_null_device;
use crate::plan::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, InitStep, Plan, What};
use crate::{Context, Error, Result};

/// One mount as config.json has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// In the container.
    pub place: PathBuf,
    pub what: Kind,
    /// `ATTR_*` that it must have.
    pub attrs: u64,
    pub shared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Bind {
        source: PathBuf,
        recursive: bool,
    },
    New {
        fstype: String,
    },
    /// What is there already, read-only.
    Itself,
    /// Over a file the null device, over a directory nothing.
    Mask,
    Terminal,
    /// A device node of the host's, where none can be made.
    Device,
}

/// All mounts of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts {
    pub wanted: Vec<Wanted>,
    pub read_only_root: bool,
    pub shared_root: bool,
}

impl Mounts {
    /// Refuses what criu could not bring back.
    pub fn of_plan(plan: &Plan) -> Result<Mounts> {
        let mut mounts = Mounts::default();
        for step in &plan.steps {
            mounts.add(step)?;
        }
        Ok(mounts)
    }

    fn add(&mut self, step: &InitStep) -> Result<()> {
        let mut push = |place: &Path, what: Kind, attrs: u64, shared: bool| {
            self.wanted.push(Wanted { place: place.to_path_buf(), what, attrs, shared });
        };
        match step {
            InitStep::Mount(step) => {
                let place = step.destination.as_path();
                let attrs = step.attrs.set | step.recursive_attrs.set;
                let shared = step.propagation.iter().any(|kind| kind & libc::MS_SHARED != 0);
                let refuse =
                    |what: &str| Err(Error::invalid(format!("config.json: the mount on {}: criu cannot restore {what}", place.display())));
                match &step.what {
                    _ if step.idmap.is_some() => return refuse("an id-mapped mount"),
                    What::Move { .. } => return refuse("a mount that was taken from the host (option \"move\")"),
                    What::Bind { source, recursive } => {
                        push(place, Kind::Bind { source: source.clone(), recursive: *recursive }, attrs, shared);
                    }
                    What::New { fstype, .. } => push(place, Kind::New { fstype: fstype.clone() }, attrs, shared),
                    What::Reattribute | What::Remount { .. } => {
                        if let Some(before) = self.wanted.iter_mut().rev().find(|wanted| wanted.place == place) {
                            before.attrs |= attrs;
                        }
                    }
                }
            }
            InitStep::Devices { devices, .. } => {
                devices.iter().filter(|device| device.kind != 'p').for_each(|device| push(&device.path, Kind::Device, 0, false));
            }
            InitStep::Console { bind_console: true, .. } => push(Path::new("/dev/console"), Kind::Terminal, 0, false),
            InitStep::ReadonlyPaths(paths) => paths.iter().for_each(|path| push(path, Kind::Itself, ATTR_RDONLY, false)),
            InitStep::MaskPaths { paths, .. } => paths.iter().for_each(|path| push(path, Kind::Mask, 0, false)),
            InitStep::ReadonlyRoot => self.read_only_root = true,
            InitStep::TreePropagation(None) => self.shared_root = true,
            InitStep::RootPropagation(kind) if kind & libc::MS_SHARED != 0 => self.shared_root = true,
            _ => {}
        }
        Ok(())
    }

    /// What criu is told of as coming from outside: (place in the container, place on the host). A place that leads through a link of
    /// `root` is told as both.
    pub fn external(&self, root: &OwnedFd) -> Vec<(PathBuf, PathBuf)> {
        let mut all = Vec::new();
        for wanted in &self.wanted {
            let source = match &wanted.what {
                Kind::Bind { source, .. } => source,
                Kind::Device => &wanted.place,
                _ => continue,
            };
            let resolved = resolve(root, &wanted.place);
            let also = (resolved != wanted.place).then(|| wanted.place.clone());
            all.extend(std::iter::once(resolved).chain(also).map(|place| (place, source.clone())));
        }
        all
    }
}

/// Where a path of the container leads, as the container sees it; what does not exist yet is taken as it is.
fn resolve(root: &OwnedFd, path: &Path) -> PathBuf {
    let place = |fd: &OwnedFd| std::fs::read_link(fs::proc_fd_path(fd.as_fd())).ok();
    let found = || {
        let top = place(root)?;
        let inside = place(&fs::open_in_root(root, path, OFlags::PATH).ok()?)?;
        Some(Path::new("/").join(inside.strip_prefix(&top).ok()?))
    };
    found().unwrap_or_else(|| path.to_path_buf())
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: u64,
    pub parent: u64,
    pub device: String,
    /// Within its file system.
    pub root: PathBuf,
    pub place: PathBuf,
    pub options: String,
    pub shared: bool,
    pub fstype: String,
}

/// The mounts of a process as it sees them.
pub fn table(pid: &str) -> Result<Vec<Entry>> {
    let path = PathBuf::from(format!("/proc/{pid}/mountinfo"));
    let text = std::fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
    Ok(text.split(|b| *b == b'\n').filter_map(entry).collect())
}

fn entry(line: &[u8]) -> Option<Entry> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |n: usize| fields.get(n).map(|field| String::from_utf8_lossy(field).into_owned());
    Some(Entry {
        id: text(0)?.parse().ok()?,
        parent: text(1)?.parse().ok()?,
        device: text(2)?,
        root: decode_mountinfo_path(fields.get(3)?),
        place: decode_mountinfo_path(fields.get(4)?),
        options: text(5)?,
        shared: fields.get(6..dash)?.iter().any(|field| field.starts_with(b"shared:")),
        fstype: text(dash + 1)?,
    })
}

impl Entry {
    fn has(&self, attrs: u64) -> bool {
        const NAMES: [(u64, &str); 4] = [(ATTR_RDONLY, "ro"), (ATTR_NOSUID, "nosuid"), (ATTR_NODEV, "nodev"), (ATTR_NOEXEC, "noexec")];
        NAMES.iter().filter(|(bit, _)| attrs & bit != 0).all(|(_, name)| self.options.split(',').any(|option| option == *name))
    }
}

/// Where a path of the host lies: (device, path within the file system), as mountinfo would tell a mount of it.
fn origin(host: &[Entry], path: &Path) -> Result<(String, PathBuf)> {
    let told = || format!("mount source {}", path.display());
    let fd = fs::openat(fs::CWD, path, OFlags::PATH, 0).doing(told)?;
    let id = fs::mount_ids(&fd)?.mount_id;
    let real = std::fs::read_link(fs::proc_fd_path(fd.as_fd())).map_err(|e| Error::io("read link", path, &e))?;
    let mount =
        host.iter().find(|entry| entry.id == id).ok_or_else(|| Error::state(format!("{}: its mount is not in mountinfo", told())))?;
    let inside = real.strip_prefix(&mount.place).map_err(|_| Error::state(format!("{}: is not below its mount", told())))?;
    Ok((mount.device.clone(), joined(&mount.root, inside)))
}

/// Without a slash at the end where nothing is added.
fn joined(top: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { top.to_path_buf() } else { top.join(below) }
}

/// One side of the comparison: who looks, and at what.
#[derive(Debug)]
pub struct View<'a> {
    pub mounts: &'a Mounts,
    /// The container's root directory, through its first process.
    pub root: &'a OwnedFd,
    pub table: &'a [Entry],
    /// This process's own.
    pub host: &'a [Entry],
    pub cgroup: &'a Location,
}

/// The wanted mounts by their real places, with where each must come from.
struct Resolved<'a> {
    wanted: &'a Wanted,
    place: PathBuf,
    origin: Option<(String, PathBuf)>,
}

impl View<'_> {
    /// Every mount is one that config.json asks for, and every one that it asks for is there.
    pub fn judge(&self) -> Result<()> {
        let resolved = self.mounts.wanted.iter().map(|wanted| self.resolve(wanted)).collect::<Result<Vec<_>>>()?;
        let tops: Vec<&Entry> = self.table.iter().filter(|entry| entry.place == Path::new("/")).collect();
        let [top] = tops.as_slice() else { return Err(Error::state("its root directory is not one mount")) };
        if top.shared && !self.mounts.shared_root || self.mounts.read_only_root && !top.has(ATTR_RDONLY) {
            return Err(Error::state(format!("its root is mounted with other options than config.json's: {}", top.options)));
        }
        for entry in self.table.iter().filter(|entry| entry.id != top.id) {
            if !resolved.iter().any(|wanted| self.is(entry, wanted)) {
                return Err(Error::state(format!(
                    "the mount on {} ({}, {}, {}) is none that config.json asks for",
                    entry.place.display(),
                    entry.fstype,
                    entry.root.display(),
                    entry.options
                )));
            }
        }
        resolved.iter().try_for_each(|wanted| self.is_there(wanted))
    }

    fn resolve<'w>(&self, wanted: &'w Wanted) -> Result<Resolved<'w>> {
        let origin = match &wanted.what {
            Kind::Bind { source, .. } => Some(origin(self.host, source)?),
            _ => None,
        };
        Ok(Resolved { wanted, place: resolve(self.root, &wanted.place), origin })
    }

    fn is(&self, entry: &Entry, resolved: &Resolved<'_>) -> bool {
        let wanted = resolved.wanted;
        if entry.shared && !wanted.shared && !self.mounts.shared_root || !entry.has(wanted.attrs) {
            return false;
        }
        let here = entry.place == resolved.place;
        match (&wanted.what, &resolved.origin) {
            (Kind::Bind { source, recursive }, Some((device, root))) => {
                here && entry.device == *device && entry.root == *root || *recursive && self.is_below(entry, &resolved.place, source)
            }
            (Kind::New { fstype }, _) if fstype.starts_with("cgroup") => here && entry.fstype == *fstype && self.is_own_cgroup(&entry.root),
            (Kind::New { fstype }, _) => here && entry.fstype == *fstype && entry.root == Path::new("/"),
            (Kind::Itself, _) => here && self.is_on_itself(entry),
            (Kind::Mask, _) => here && self.is_mask(&resolved.place, entry),
            (Kind::Terminal, _) => here && entry.fstype == "devpts",
            (Kind::Device, _) => here && self.same_device(&resolved.place),
            (Kind::Bind { .. }, None) => false,
        }
    }

    /// A mount of the host's below what is bound with all that lies on it.
    fn is_below(&self, entry: &Entry, place: &Path, source: &Path) -> bool {
        let Ok(below) = entry.place.strip_prefix(place) else { return false };
        let there = source.join(below);
        !below.as_os_str().is_empty()
            && self.host.iter().any(|host| host.place == there && host.device == entry.device && host.root == entry.root)
    }

    fn is_own_cgroup(&self, root: &Path) -> bool {
        self.cgroup.dirs.iter().any(|dir| {
            let mounted = self.host.iter().find(|entry| entry.place == dir.mount_point && entry.fstype.starts_with("cgroup"));
            let inside = dir.path.strip_prefix(&dir.mount_point);
            mounted.zip(inside.ok()).is_some_and(|(mounted, inside)| joined(&mounted.root, inside) == root)
        })
    }

    /// A part of what it lies on.
    fn is_on_itself(&self, entry: &Entry) -> bool {
        let Some(below) = self.table.iter().find(|below| below.id == entry.parent) else { return false };
        let Ok(inside) = entry.place.strip_prefix(&below.place) else { return false };
        below.device == entry.device && joined(&below.root, inside) == entry.root
    }

    fn open(&self, place: &Path) -> Option<OwnedFd> {
        fs::open_in_root(self.root, place, OFlags::PATH).ok()
    }

    fn is_mask(&self, place: &Path, entry: &Entry) -> bool {
        if entry.fstype == "tmpfs" && entry.root == Path::new("/") {
            return entry.has(ATTR_RDONLY);
        }
        self.open(place).and_then(|fd| fs::fstat(&fd).ok()).is_some_and(|stat| is_null_device(&stat))
    }

    fn same_device(&self, place: &Path) -> bool {
        let host = fs::openat(fs::CWD, place, OFlags::PATH, 0).and_then(|fd| fs::fstat(&fd));
        let theirs = self.open(place).and_then(|fd| fs::fstat(&fd).ok());
        host.ok().zip(theirs).is_some_and(|(host, theirs)| {
            FileType::from_raw_mode(host.st_mode) == FileType::from_raw_mode(theirs.st_mode) && host.st_rdev == theirs.st_rdev
        })
    }

    /// A mask that is missing is as bad as a mount too many.
    fn is_there(&self, resolved: &Resolved<'_>) -> Result<()> {
        let lacks = || Error::state(format!("{} is not mounted as config.json asks for", resolved.place.display()));
        let entries = || self.table.iter().filter(|entry| entry.place == resolved.place);
        match &resolved.wanted.what {
            Kind::Device => Ok(()),
            Kind::Itself => match self.open(&resolved.place) {
                Some(fd) if !fs::is_on_read_only_mount(&fd)? => Err(lacks()),
                _ => Ok(()),
            },
            Kind::Mask => match self.open(&resolved.place) {
                Some(_) if !entries().any(|entry| self.is_mask(&resolved.place, entry)) => Err(lacks()),
                _ => Ok(()),
            },
            _ if entries().any(|entry| self.is(entry, resolved)) => Ok(()),
            _ => Err(lacks()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(place: &str, what: Kind, attrs: u64) -> Wanted {
        Wanted { place: place.into(), what, attrs, shared: false }
    }

    fn proc() -> Kind {
        Kind::New { fstype: "proc".into() }
    }

    const TOP: &str = "10 1 8:1 /b/rootfs / rw master:1 - ext4 /dev/x rw";
    const PROC: &str = "11 10 0:40 / /proc rw,nosuid,nodev,noexec - proc proc rw";

    /// With the directories of this machine, but mounts of the test's.
    fn judged(wants: Vec<Wanted>, lines: &[&str]) -> String {
        let table: Vec<Entry> = [TOP].iter().chain(lines).map(|line| entry(line.as_bytes()).unwrap()).collect();
        let root = fs::openat(fs::CWD, Path::new("/"), OFlags::PATH, 0).unwrap();
        let host = super::table("self").unwrap();
        let dir = rrun_cgroup::Dir {
            version: rrun_cgroup::Version::V2,
            controllers: Vec::new(),
            mount_point: "/cg".into(),
            path: "/cg/box/one".into(),
        };
        let cgroup = Location { dirs: vec![dir], unit: None };
        let host: Vec<Entry> = host.into_iter().chain(entry(b"900 1 0:99 / /cg rw - cgroup2 x rw")).collect();
        let mounts = Mounts { wanted: wants, ..Mounts::default() };
        let view = View { mounts: &mounts, root: &root, table: &table, host: &host, cgroup: &cgroup };
        view.judge().map_or_else(|e| e.to_string(), |()| "ok".into())
    }

    #[test]
    fn what_config_json_asks_for_is_right() {
        assert_eq!(judged(vec![wanted("/proc", proc(), ATTR_NOSUID | ATTR_NODEV)], &[PROC]), "ok");
        let cgroup = Kind::New { fstype: "cgroup2".into() };
        let line = |root: &str| format!("12 10 0:99 {root} /nowhere/cgroup ro - cgroup2 x rw");
        assert_eq!(judged(vec![wanted("/nowhere/cgroup", cgroup.clone(), ATTR_RDONLY)], &[&line("/box/one")]), "ok");
        for other in ["/", "/box", "/box/two", "/.."] {
            let said = judged(vec![wanted("/nowhere/cgroup", cgroup.clone(), ATTR_RDONLY)], &[&line(other)]);
            assert!(said.starts_with("the mount on /nowhere/cgroup (cgroup2"), "{other}: {said}");
        }
    }

    #[test]
    fn what_nobody_asked_for_is_refused() {
        for extra in [
            "12 10 8:1 / /host rw - ext4 /dev/x rw",
            "12 11 8:1 /etc /proc/sys rw - ext4 /dev/x rw",
            "12 10 0:50 / /proc rw - tmpfs x rw",
            "12 10 0:40 / / rw - proc proc rw",
        ] {
            let said = judged(vec![wanted("/proc", proc(), 0)], &[PROC, extra]);
            assert!(said != "ok" && !said.is_empty(), "{extra}: {said}");
        }
        let said = judged(vec![wanted("/proc", proc(), ATTR_RDONLY)], &[PROC]);
        assert!(said.contains("/proc"), "a mount without its options: {said}");
        assert_eq!(judged(vec![wanted("/proc", proc(), 0)], &[]), "/proc is not mounted as config.json asks for");
        let shared = PROC.replace("noexec -", "noexec shared:5 -");
        assert!(judged(vec![wanted("/proc", proc(), 0)], &[&shared]).contains("none that config.json asks for"));
    }

    #[test]
    fn a_bind_comes_from_its_source_and_from_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let host = table("self").unwrap();
        let (device, root) = origin(&host, dir.path()).unwrap();
        let bind = |recursive| wanted("/nowhere/data", Kind::Bind { source: dir.path().into(), recursive }, 0);
        let line = |device: &str, root: &Path| format!("12 10 {device} {} /nowhere/data rw - ext4 x rw", root.display());
        assert_eq!(judged(vec![bind(false)], &[&line(&device, &root)]), "ok");
        for (device, root) in [(device.as_str(), Path::new("/")), (device.as_str(), root.parent().unwrap()), ("77:7", root.as_path())] {
            let said = judged(vec![bind(true)], &[&line(device, root)]);
            assert!(said.contains("none that config.json asks for"), "{said}");
        }
    }

    #[test]
    fn a_path_is_made_read_only_by_itself_alone_and_a_missing_mask_is_told() {
        let itself = || wanted("/nowhere/x", Kind::Itself, ATTR_RDONLY);
        assert_eq!(judged(vec![itself()], &["12 10 8:1 /b/rootfs/nowhere/x /nowhere/x ro - ext4 x rw"]), "ok");
        for odd in ["12 10 8:1 /b/rootfs/nowhere/x /nowhere/x rw - ext4 x rw", "12 10 8:1 /etc /nowhere/x ro - ext4 x rw"] {
            assert!(judged(vec![itself()], &[odd]).contains("none that"), "{odd}");
        }
        let mask = || wanted("/etc", Kind::Mask, 0);
        assert_eq!(judged(vec![mask()], &["12 10 0:9 / /etc ro - tmpfs x ro"]), "ok");
        assert!(judged(vec![mask()], &["12 10 0:9 / /etc rw - tmpfs x rw"]).contains("none that"));
        assert_eq!(judged(vec![mask()], &[]), "/etc is not mounted as config.json asks for");
    }
}
