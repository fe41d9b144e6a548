//! `-v`, `--mount`, `--tmpfs`, the image's VOLUME: one list, by destination.

use std::collections::BTreeMap;

use rcontainerd_types::{Error, Result};

use super::super::config::{Config, HostConfig, MountRequest};

/// Where a mount comes from, before volumes have a place on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A path on the host; `create`: made as a directory if missing (`-v`), else an error (`--mount`).
    Bind {
        path: String,
        create: bool,
    },
    /// A volume; `None`: anonymous.
    Volume {
        name: Option<String>,
        labels: BTreeMap<String, String>,
        no_copy: bool,
        subpath: String,
    },
    Tmpfs {
        options: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMount {
    pub source: MountSource,
    pub destination: String,
    pub read_only: bool,
    /// Options as written.
    pub mode: String,
    pub propagation: String,
    pub non_recursive: bool,
}

impl PlannedMount {
    /// Whether only the image (or `Volumes`) asks for it, not a `-v` or `--mount`.
    pub fn is_implied(&self, request: &super::super::commands::CreateContainer) -> bool {
        let same = |path: &str| normalise(path).is_ok_and(|path| path == self.destination);
        matches!(self.source, MountSource::Volume { name: None, .. })
            && !request.host_config.binds.iter().any(|bind| same(bind))
            && !request.host_config.mounts.iter().any(|mount| same(&mount.target))
    }
}

/// In the order of the destinations' depth, so that none hides a deeper one.
pub(super) fn plan(config: &Config, host: &HostConfig) -> Result<Vec<PlannedMount>> {
    let mut all: BTreeMap<String, PlannedMount> = BTreeMap::new();
    let mut add = |mount: PlannedMount| {
        let destination = mount.destination.clone();
        match all.insert(destination.clone(), mount) {
            Some(_) => Err(Error::invalid(format!("Duplicate mount point: {destination}"))),
            None => Ok(()),
        }
    };
    for bind in &host.binds {
        add(parse_bind(bind)?)?;
    }
    for request in &host.mounts {
        add(parse_mount(request)?)?;
    }
    for (destination, options) in &host.tmpfs {
        add(tmpfs(destination, options)?)?;
    }
    for destination in &config.volumes {
        let destination = clean(destination)?;
        all.entry(destination.clone()).or_insert_with(|| anonymous(destination));
    }
    let mut list: Vec<PlannedMount> = all.into_values().collect();
    list.sort_by_key(|mount| mount.destination.matches('/').count());
    Ok(list)
}

/// `--volume-driver` speaks for the volumes of `-v` and of the image; a `--mount` names its own.
pub(super) fn check_driver(host: &HostConfig, planned: &[PlannedMount]) -> Result<()> {
    let driver = host.volume_driver.as_str();
    let own = |mount: &PlannedMount| host.mounts.iter().any(|request| clean(&request.target).is_ok_and(|path| path == mount.destination));
    let asked = planned.iter().any(|mount| matches!(mount.source, MountSource::Volume { .. }) && !own(mount));
    if matches!(driver, "" | "local") || !asked {
        return Ok(());
    }
    Err(Error::not_found(format!("error looking up volume plugin {driver}: plugin \"{driver}\" not found")))
}

fn anonymous(destination: String) -> PlannedMount {
    let source = MountSource::Volume { name: None, labels: BTreeMap::new(), no_copy: false, subpath: String::new() };
    PlannedMount { source, destination, read_only: false, mode: String::new(), propagation: String::new(), non_recursive: false }
}

/// `source:destination[:options]` or `destination`.
fn parse_bind(spec: &str) -> Result<PlannedMount> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{spec}'"));
    let (source, destination, options) = match spec.split(':').collect::<Vec<_>>().as_slice() {
        [destination] => return Ok(anonymous(clean(destination)?)),
        [source, destination] => (*source, *destination, ""),
        [source, destination, options] => (*source, *destination, *options),
        _ => return Err(invalid()),
    };
    if source.is_empty() || destination.is_empty() {
        return Err(invalid());
    }
    let mut mount = anonymous(clean(destination)?);
    options.clone_into(&mut mount.mode);
    let mut no_copy = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => mount.read_only = true,
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "nocopy" if !source.starts_with('/') => no_copy = true,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => option.clone_into(&mut mount.propagation),
            _ => return Err(Error::invalid(format!("invalid mode: {options}: unknown option {option:?} in '{spec}'"))),
        }
    }
    mount.source = if source.starts_with('/') {
        MountSource::Bind { path: normalise(source)?, create: true }
    } else {
        crate::names::validate_volume(source)?;
        MountSource::Volume { name: Some(source.to_owned()), labels: BTreeMap::new(), no_copy, subpath: String::new() }
    };
    Ok(mount)
}

fn parse_mount(request: &MountRequest) -> Result<PlannedMount> {
    let kind = request.kind.as_str();
    let invalid = |why: &str| Error::invalid(format!("invalid mount config for type {kind:?}: {why}"));
    if request.target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    let mut mount = anonymous(clean(&request.target)?);
    mount.read_only = request.read_only;
    mount.source = match kind {
        "bind" => bind_source(request, &mut mount)?,
        "volume" => volume_source(request)?,
        "tmpfs" if !request.source.is_empty() => return Err(invalid("field Source must not be specified")),
        "tmpfs" => MountSource::Tmpfs { options: tmpfs_options(request) },
        other => return Err(Error::unsupported(format!("mount type {other:?} is not supported: use bind, volume or tmpfs"))),
    };
    Ok(mount)
}

fn bind_source(request: &MountRequest, mount: &mut PlannedMount) -> Result<MountSource> {
    let invalid = |why: &str| Error::invalid(format!("invalid mount config for type \"bind\": {why}"));
    if !request.source.starts_with('/') {
        return Err(invalid(&format!("invalid mount path: '{}' mount path must be absolute", request.source)));
    }
    let options = request.bind.clone().unwrap_or_default();
    if options.read_only_force_recursive {
        return Err(Error::unsupported("bind-recursive=readonly is not supported"));
    }
    mount.non_recursive = options.non_recursive;
    match options.propagation.as_str() {
        "" | "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => mount.propagation = options.propagation,
        other => return Err(invalid(&format!("invalid propagation mode: {other}"))),
    }
    Ok(MountSource::Bind { path: normalise(&request.source)?, create: options.create_mountpoint })
}

fn volume_source(request: &MountRequest) -> Result<MountSource> {
    let options = request.volume.clone().unwrap_or_default();
    if !matches!(options.driver.as_str(), "" | "local") || !options.driver_options.is_empty() {
        return Err(Error::unsupported("a volume driver other than local, and driver options, are not supported in --mount"));
    }
    if !options.subpath.is_empty() {
        return Err(Error::unsupported("volume-subpath is not supported"));
    }
    let name = (!request.source.is_empty()).then(|| request.source.clone());
    if let Some(name) = &name {
        crate::names::validate_volume(name)?;
    }
    Ok(MountSource::Volume { name, labels: options.labels, no_copy: options.no_copy, subpath: options.subpath })
}

fn tmpfs_options(request: &MountRequest) -> Vec<String> {
    let options = request.tmpfs.clone().unwrap_or_default();
    let mut list = Vec::new();
    if options.size > 0 {
        list.push(format!("size={}", options.size));
    }
    list.push(format!("mode={:o}", if options.mode == 0 { 0o1777 } else { options.mode }));
    list.extend(options.options.iter().map(|pair| pair.join("=")));
    list
}

fn tmpfs(destination: &str, options: &str) -> Result<PlannedMount> {
    const FLAGS: &[&str] = &[
        "rw",
        "ro",
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "sync",
        "async",
        "dirsync",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "strictatime",
    ];
    let mut mount = anonymous(clean(destination)?);
    let mut list = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let key = option.split('=').next().unwrap_or_default();
        if !FLAGS.contains(&option) && !["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"].contains(&key) {
            return Err(Error::invalid(format!("invalid tmpfs option {option:?} for {destination}")));
        }
        mount.read_only |= option == "ro";
        list.push(option.to_owned());
    }
    mount.source = MountSource::Tmpfs { options: list };
    Ok(mount)
}

/// A destination: absolute, not the root itself, without `.`, `..`, doubled slashes.
fn clean(path: &str) -> Result<String> {
    match normalise(path)? {
        root if root == "/" => Err(Error::invalid("invalid mount specification: the destination can't be '/'")),
        path => Ok(path),
    }
}

fn normalise(path: &str) -> Result<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Error::invalid(format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}
