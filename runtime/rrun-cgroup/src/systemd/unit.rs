//! `linux.cgroupsPath` under systemd: which unit, in which slice, and where its cgroup lies.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A container's scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `PREFIX-NAME.scope`.
    pub name: String,
    /// `a-b.slice`.
    pub slice: String,
    /// Of the user's systemd, not of the system's.
    pub user: bool,
}

/// systemd's limit for the name of a unit.
const NAME_LIMIT: usize = 255;

impl Unit {
    /// `slice:prefix:name`; an empty slice is `system.slice` or, of a user, `user.slice`. Without a path the scope is named after
    /// the container.
    pub fn parse(cgroups_path: Option<&str>, id: &str, user: bool) -> Result<Unit> {
        let default_slice = if user { "user.slice" } else { "system.slice" };
        let Some(path) = cgroups_path.filter(|p| !p.is_empty()) else {
            return Ok(Unit { name: scope(&format!("rrun-{}", escaped(id)))?, slice: default_slice.into(), user });
        };
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(Error::Invalid(format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            )));
        };
        if name.ends_with(".slice") {
            return Err(Error::Invalid(format!("cgroupsPath {path:?} names a slice, which holds no processes: name a scope in it")));
        }
        let slice = if slice.is_empty() { default_slice } else { slice };
        expand_slice(slice)?;
        Ok(Unit { name: scope(&format!("{prefix}-{name}"))?, slice: slice.into(), user })
    }

    /// Below the cgroup of the systemd that has it.
    pub fn path_below(&self, manager: &str) -> Result<PathBuf> {
        Ok(Path::new("/").join(manager.trim_start_matches('/')).join(expand_slice(&self.slice)?).join(&self.name))
    }
}

fn scope(stem: &str) -> Result<String> {
    let name = format!("{stem}.scope");
    match stem.chars().find(|c| !is_unit_character(*c)) {
        Some(c) => {
            Err(Error::Invalid(format!("cgroupsPath: {name:?}: {c:?} cannot be in a unit's name: use letters, digits and : - _ . @ \\")))
        }
        None if name.len() > NAME_LIMIT => {
            Err(Error::Invalid(format!("cgroupsPath: {name:?}: a unit's name has {NAME_LIMIT} bytes at most")))
        }
        None => Ok(name),
    }
}

fn is_unit_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)
}

/// A container's id as systemd-escape(1) writes it (`+` is the only sign of an id that a unit cannot have).
fn escaped(id: &str) -> String {
    id.replace('+', "\\x2b")
}

/// `a-b.slice` lies in `a.slice/a-b.slice` (systemd.slice(5)); `-.slice` is the top. The result is relative.
fn expand_slice(slice: &str) -> Result<PathBuf> {
    let invalid = || Error::Invalid(format!("cgroupsPath: invalid slice name: {slice:?}: write it as a.slice or a-b.slice"));
    let stem = slice.strip_suffix(".slice").filter(|s| !s.is_empty() && s.chars().all(is_unit_character)).ok_or_else(invalid)?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    if stem.split('-').any(str::is_empty) || slice.len() > NAME_LIMIT {
        return Err(invalid());
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: Option<&str>, user: bool) -> std::result::Result<(String, String, String), String> {
        let unit = Unit::parse(path, "c1", user).map_err(|e| e.to_string())?;
        let below = unit.path_below("").map_err(|e| e.to_string())?.display().to_string();
        Ok((unit.name, unit.slice, below))
    }

    fn named(name: &str, slice: &str, path: &str) -> std::result::Result<(String, String, String), String> {
        Ok((name.into(), slice.into(), path.into()))
    }

    #[test]
    fn a_path_names_slice_prefix_and_name() {
        let deep = "/a.slice/a-b.slice/a-b-c.slice/p-n.scope";
        assert_eq!(unit(Some("a-b-c.slice:p:n"), false), named("p-n.scope", "a-b-c.slice", deep));
        assert_eq!(unit(Some("-.slice:docker:1234"), false), named("docker-1234.scope", "-.slice", "/docker-1234.scope"));
        assert_eq!(unit(Some("machine.slice::n"), false), named("-n.scope", "machine.slice", "/machine.slice/-n.scope"));
    }

    #[test]
    fn defaults_are_the_fields() {
        assert_eq!(unit(None, false), named("rrun-c1.scope", "system.slice", "/system.slice/rrun-c1.scope"));
        assert_eq!(unit(Some(""), true), named("rrun-c1.scope", "user.slice", "/user.slice/rrun-c1.scope"));
        assert_eq!(unit(Some(":p:n"), true), named("p-n.scope", "user.slice", "/user.slice/p-n.scope"));
        assert_eq!(Unit::parse(None, "a+b", false).unwrap().name, "rrun-a\\x2bb.scope");
    }

    #[test]
    fn a_users_unit_lies_below_the_users_manager() {
        let unit = Unit::parse(Some("user.slice:libpod:x"), "x", true).unwrap();
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(unit.path_below(manager).unwrap(), Path::new(manager).join("user.slice/libpod-x.scope"));
    }

    #[test]
    fn wrong_names_are_refused_with_the_rule() {
        for bad in [
            "/a/b",
            "a:b",
            "a.slice:b:c:d",
            "a:b:c",
            ".slice:b:c",
            "a--b.slice:b:c",
            "-a.slice:b:c",
            "a-.slice:b:c",
            "a/b.slice:b:c",
            "..slice/x:b:c",
        ] {
            let e = unit(Some(bad), false).unwrap_err();
            assert!(e.contains("slice"), "{bad}: {e}");
        }
        assert!(unit(Some("a.slice:b:../../c"), false).unwrap_err().contains("'/' cannot be in a unit's name"));
        assert!(unit(Some("a.slice:b:c.slice"), false).unwrap_err().contains("holds no processes"));
        assert!(unit(Some(&format!("a.slice:b:{}", "x".repeat(250))), false).unwrap_err().contains("255"));
    }
}
