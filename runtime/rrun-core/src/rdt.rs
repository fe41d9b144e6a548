//! Intel RDT (runtime-spec 1.3, linux.intelRdt): a group of the resctrl file system (Linux 4.10, resctrl.rst of the kernel).
//!
//! ```text
//! /sys/fs/resctrl/            the group that everything is in at first (closID "/")
//!   <closID or container id>/ schemata, tasks
//!     mon_groups/<id>/        tasks: what is counted for this container alone
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rrun_cgroup::{InfoValue, IntelRdt as Usage};
use rrun_sys::fs::{self, AtFlags, OFlags};
use serde::{Deserialize, Serialize};

use crate::spec::IntelRdt;
use crate::{Context, Error, Result};

/// What a container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// None: a group of its own, named after it.
    class: Option<String>,
    lines: Vec<String>,
    monitoring: bool,
}

impl Wanted {
    pub fn new(rdt: &IntelRdt) -> Wanted {
        // The specification's order.
        let lines = [&rdt.l3_cache_schema, &rdt.mem_bw_schema].into_iter().chain(&rdt.schemata);
        Wanted {
            class: (!rdt.clos_id.is_empty()).then(|| rdt.clos_id.clone()),
            lines: lines.filter(|line| !line.is_empty()).cloned().collect(),
            monitoring: rdt.enable_monitoring,
        }
    }
}

/// Whether a name can be that of a group: one directory, and none of the kernel's own.
pub fn is_valid_class(name: &str) -> bool {
    name == "/" || !(name.contains(['/', '\n', '\0']) || [".", "..", "info", "mon_groups", "mon_data"].contains(&name))
}

/// A container's group, as the state file knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    root: PathBuf,
    path: PathBuf,
    /// Made for this container alone, so it goes with it.
    own: bool,
    /// The directory is not there yet.
    #[serde(skip)]
    missing: bool,
    monitor: Option<PathBuf>,
}

impl Group {
    /// Judges what is asked for by what the host has; nothing is made.
    pub fn find(wanted: &Wanted, id: &str) -> Result<Group> {
        let root = root()?;
        let path = match wanted.class.as_deref() {
            Some("/") => root.clone(),
            name => root.join(name.unwrap_or(id)),
        };
        allocatable(&root, &wanted.lines)?;
        let missing = !path.is_dir();
        if let Some(class) = wanted.class.as_ref().filter(|_| missing && wanted.lines.is_empty()) {
            return Err(refused(&format!("closID {class:?}: must be there before, since no schemata are given to make it with")));
        }
        if wanted.class.is_some() && !missing && !wanted.lines.is_empty() {
            compare(&path, &wanted.lines)?;
        }
        let monitor = wanted.monitoring.then(|| path.join("mon_groups").join(id));
        Ok(Group { root, own: wanted.class.is_none() && missing, path, missing, monitor })
    }

    /// Makes what is missing of it.
    pub fn make(&self, wanted: &Wanted) -> Result<()> {
        if self.missing {
            self.told(fs::mkdirat(fs::CWD, &self.path, 0o755))?;
        }
        let shared = wanted.class.is_some() && !self.missing;
        if !wanted.lines.is_empty() && !shared {
            let text: String = wanted.lines.iter().map(|line| format!("{line}\n")).collect();
            self.told(write(&self.path.join("schemata"), OFlags::TRUNC, &text))?;
        }
        match &self.monitor {
            Some(monitor) => self.told(fs::mkdirat(fs::CWD, monitor, 0o755)),
            None => Ok(()),
        }
    }

    /// Takes a process in; those that it starts follow by themselves.
    pub fn enter(&self, pid: i32) -> Result<()> {
        let mut tasks = std::iter::once(&self.path).chain(&self.monitor).map(|dir| dir.join("tasks"));
        tasks.try_for_each(|file| self.told(write(&file, OFlags::APPEND, &format!("{pid}\n"))))
    }

    /// Gives a group of the container's own other schemata; empty ones stay.
    pub fn update(&self, l3_cache: &str, memory_bandwidth: &str) -> Result<()> {
        let lines: Vec<String> = [l3_cache, memory_bandwidth].iter().filter(|l| !l.is_empty()).map(|l| format!("{l}\n")).collect();
        if !self.own {
            return Err(Error::invalid(format!("{}: others may use this class: change its schemata there", self.path.display())));
        }
        allocatable(&self.root, &lines)?;
        self.told(write(&self.path.join("schemata"), OFlags::TRUNC, &lines.concat()))
    }

    /// What it may have, and has used. Files that the host does not have say nothing.
    pub fn stats(&self) -> Usage {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default().trim().to_string();
        let info = |resource: &str, names: &[&str]| {
            let values = names.iter().map(|name| ((*name).to_string(), read(self.root.join("info").join(resource).join(name))));
            let value = |text: String, mask: bool| text.parse().ok().filter(|_| !mask).map_or(InfoValue::Text(text), InfoValue::Number);
            values.filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.clone(), value(text, name.ends_with("mask")))).collect()
        };
        let line = |dir: &Path, resource: &str| {
            let text = read(dir.join("schemata"));
            text.lines().map(str::trim).find(|l| l.starts_with(resource)).unwrap_or_default().to_string()
        };
        let mut caches: Vec<PathBuf> = std::fs::read_dir(self.monitor.as_ref().unwrap_or(&self.path).join("mon_data"))
            .map(|dirs| dirs.filter_map(|dir| Some(dir.ok()?.path())).collect())
            .unwrap_or_default();
        caches.sort();
        let counted = |names: &[&str]| -> Vec<BTreeMap<String, u64>> {
            let of = |dir: &PathBuf| names.iter().filter_map(|n| Some(((*n).to_string(), read(dir.join(n)).parse().ok()?))).collect();
            caches.iter().map(of).filter(|counts: &BTreeMap<_, _>| !counts.is_empty()).collect()
        };
        Usage {
            l3_cache_info: info("L3", &["cbm_mask", "min_cbm_bits", "num_closids"]),
            l3_cache_schema_root: line(&self.root, "L3"),
            l3_cache_schema: line(&self.path, "L3"),
            mem_bw_info: info("MB", &["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"]),
            mem_bw_schema_root: line(&self.root, "MB"),
            mem_bw_schema: line(&self.path, "MB"),
            mbm_stats: counted(&["mbm_total_bytes", "mbm_local_bytes"]),
            cmt_stats: counted(&["llc_occupancy"]),
        }
    }

    /// Removes what was made for the container alone. A class that config.json names may serve others: it stays.
    pub fn remove(&self) -> Result<()> {
        let dir = if self.own { Some(&self.path) } else { self.monitor.as_ref() };
        match dir.map(|dir| remove_dir(dir)) {
            Some(Err(e)) if !e.is(libc::ENOENT) => self.told(Err(e)),
            _ => Ok(()),
        }
    }

    /// resctrl says in a file what it did not like.
    fn told(&self, done: rrun_sys::Result<()>) -> Result<()> {
        done.doing(|| {
            let status = std::fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
            let status = status.trim();
            if status.is_empty() { "linux.intelRdt".to_string() } else { format!("linux.intelRdt: {status}") }
        })
    }
}

fn allocatable(root: &Path, lines: &[String]) -> Result<()> {
    for (prefix, feature) in [("L3", "L3"), ("MB:", "MB")] {
        let asked = lines.iter().any(|line| line.trim_start().starts_with(prefix));
        let has = |name: &str| root.join("info").join(name).exists();
        if asked && !has(feature) && !has(&format!("{feature}CODE")) {
            return Err(refused(&format!("the host cannot allocate {feature}: {} is missing", root.join("info").join(feature).display())));
        }
    }
    Ok(())
}

fn refused(why: &str) -> Error {
    Error::invalid(format!("config.json: linux.intelRdt: {why}"))
}

fn write(path: &Path, how: OFlags, text: &str) -> rrun_sys::Result<()> {
    let file = fs::openat(fs::CWD, path, OFlags::WRONLY | OFlags::CREATE | how, 0o644)?;
    fs::write_all_at_once(&file, text.as_bytes())
}

/// Others may live by an existing class: it must be what is asked for already.
fn compare(path: &Path, lines: &[String]) -> Result<()> {
    let file = path.join("schemata");
    let text = std::fs::read_to_string(&file).map_err(|e| Error::io("read", &file, &e))?;
    let has: Vec<_> = text.lines().filter_map(schema).collect();
    let differs = |line: &&String| {
        let Some((resource, wanted)) = schema(line) else { return true };
        let found = has.iter().find(|(name, _)| *name == resource);
        found.is_none_or(|(_, values)| wanted.iter().any(|value| !values.contains(value)))
    };
    match lines.iter().find(differs) {
        Some(line) => Err(refused(&format!("{line:?} is not what {} holds, which others may use: change it there", file.display()))),
        None => Ok(()),
    }
}

/// `L3:0=0ff;1=f` → ("L3", [("0", "ff"), ("1", "f")]): zeros in front, case and order say nothing.
fn schema(line: &str) -> Option<(String, Vec<(String, String)>)> {
    let (resource, values) = line.trim().split_once(':')?;
    let plain = |number: &str| {
        let digits = number.trim().trim_start_matches('0').to_ascii_lowercase();
        if digits.is_empty() { "0".to_string() } else { digits }
    };
    let values: Option<Vec<_>> = values.split(';').map(|v| v.split_once('=').map(|(id, value)| (plain(id), plain(value)))).collect();
    Some((resource.trim().to_string(), values?))
}

/// Where resctrl is mounted.
fn root() -> Result<PathBuf> {
    if let Some(root) = test_root() {
        return Ok(root);
    }
    let path = Path::new("/proc/self/mountinfo");
    let table = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
    let place = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == "resctrl").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    };
    table.lines().find_map(place).ok_or_else(|| {
        refused("Intel RDT is not enabled: mount it (mount -t resctrl resctrl /sys/fs/resctrl) if the processor has it, or remove it")
    })
}

/// A directory that stands for resctrl, in builds for tests alone: nobody's environment steers a release.
#[cfg(debug_assertions)]
fn test_root() -> Option<PathBuf> {
    std::env::var_os("RRUN_TEST_RESCTRL").map(PathBuf::from)
}

#[cfg(not(debug_assertions))]
fn test_root() -> Option<PathBuf> {
    None
}

/// The files of a group go with it, as long as resctrl made them.
fn remove_dir(dir: &Path) -> rrun_sys::Result<()> {
    if test_root().is_some_and(|root| dir.starts_with(root)) {
        return std::fs::remove_dir_all(dir)
            .map_err(|e| rrun_sys::Error::new("rmdir", dir.display().to_string(), e.raw_os_error().unwrap_or(libc::EIO)));
    }
    fs::unlinkat(fs::CWD, dir, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemata_are_compared_by_what_they_mean() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("schemata"), "    MB:0=100;1= 70\n    L3:0=0ff;1=F0\n").unwrap();
        let same = |line: &str| compare(dir.path(), &[line.to_string()]).is_ok();
        for good in ["L3:1=f0;0=ff", "L3:0=00FF", "MB:1=70"] {
            assert!(same(good), "{good}");
        }
        for bad in ["L3:0=f", "L3:2=ff", "L2:0=ff", "junk", "MB:0"] {
            assert!(!same(bad), "{bad}");
        }
    }
}
