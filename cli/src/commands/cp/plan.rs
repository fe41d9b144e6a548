//! Where the entries of an archive go: into a directory, or under another name.

use std::path::Path;

use crate::failure::Failure;

/// One side of a copy as typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Side<'a> {
    Container(&'a str, &'a str),
    Local(&'a str),
}

impl<'a> Side<'a> {
    /// `name:path`; what starts with `/` or `.` is local even with a colon.
    pub fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((name, path)) if !text.starts_with('/') && !text.starts_with('.') && !name.is_empty() => Self::Container(name, path),
            _ => Self::Local(text),
        }
    }
}

/// A path on one side and what is there.
#[derive(Debug, Clone)]
pub struct Place {
    pub path: String,
    pub exists: bool,
    pub is_directory: bool,
}

/// Extract in `directory`, with the first part of each name replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub directory: String,
    /// First part of names in the archive; `.` if it has the contents of a directory.
    pub source_name: String,
    pub target_name: String,
}

/// Docker's rules for copying onto what is there.
///
/// # Errors
/// A directory onto a file, or into a directory that is not there.
pub fn plan(source: &Place, target: &Place) -> Result<Plan, Failure> {
    let (_, source_name) = split(&source.path);
    let (parent, target_name) = split(&target.path);
    let into = |directory: &str, target_name: &str| Plan {
        directory: directory.to_owned(),
        source_name: source_name.to_owned(),
        target_name: target_name.to_owned(),
    };
    match (target.exists, target.is_directory, source.is_directory) {
        (true, true, _) => Ok(into(&target.path, source_name)),
        (true, false, true) => Err(Failure::message("cannot copy directory")),
        (false, _, false) if target.path.ends_with('/') || target.path.ends_with("/.") => Err(Failure::message("no such directory")),
        _ => Ok(into(parent, target_name)),
    }
}

/// Parent and last part; a path that ends in `/.` has the last part `.`.
fn split(path: &str) -> (&str, &str) {
    if path == "." || path.ends_with("/.") {
        return (path.trim_end_matches('.'), ".");
    }
    let bare = path.trim_end_matches('/');
    match bare.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None if bare.is_empty() => ("/", "."),
        None => (".", bare),
    }
}

/// A destination on this host; its directory must be there.
///
/// # Errors
/// When it is not.
pub fn local_target(path: &str) -> Result<Place, Failure> {
    let found = std::fs::metadata(path);
    if let Ok(meta) = &found {
        return Ok(Place { path: path.to_owned(), exists: true, is_directory: meta.is_dir() });
    }
    let (parent, _) = split(path);
    if !Path::new(parent).is_dir() {
        return Err(Failure::message(format!("invalid output path: directory {parent:?} does not exist")));
    }
    Ok(Place { path: path.to_owned(), exists: false, is_directory: false })
}

/// A source on this host.
///
/// # Errors
/// When it is not there.
pub fn local_source(path: &str, follow: bool) -> Result<Place, Failure> {
    let absolute = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", std::env::current_dir()?.display()) };
    let told = |err: std::io::Error| {
        let why = if err.kind() == std::io::ErrorKind::NotFound { "no such file or directory".to_owned() } else { err.to_string() };
        Failure::message(format!("lstat {}: {why}", absolute.trim_end_matches('/')))
    };
    let contents = absolute.ends_with("/.") || absolute.ends_with('/');
    let meta = if follow || contents { std::fs::metadata(&absolute) } else { std::fs::symlink_metadata(&absolute) }.map_err(told)?;
    let path = if follow && !contents { std::fs::canonicalize(&absolute).map_err(told)?.display().to_string() } else { absolute };
    Ok(Place { path, exists: true, is_directory: meta.is_dir() })
}

impl Plan {
    /// The name of an entry below the directory, `None` for the directory itself.
    pub fn rename(&self, entry: &str) -> Option<String> {
        let entry = entry.trim_start_matches("./").trim_matches('/');
        let renamed = if self.source_name == "." {
            let rest = entry.trim_start_matches('.').trim_start_matches('/');
            let rest = if entry.starts_with('.') && !entry.starts_with("./") && entry != "." { entry } else { rest };
            if self.target_name == "." { rest.to_owned() } else { format!("{}/{rest}", self.target_name) }
        } else {
            let (first, rest) = entry.split_once('/').unwrap_or((entry, ""));
            let first = if first == self.source_name { self.target_name.as_str() } else { first };
            if rest.is_empty() { first.to_owned() } else { format!("{first}/{rest}") }
        };
        let renamed = renamed.trim_matches('/').trim_start_matches("./");
        (!renamed.is_empty() && renamed != ".").then(|| renamed.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, exists: bool, is_directory: bool) -> Place {
        Place { path: path.into(), exists, is_directory }
    }

    #[test]
    fn sides() {
        assert_eq!(Side::parse("c:/a:b"), Side::Container("c", "/a:b"));
        for local in ["/a:b", "./a:b", "a", "-"] {
            assert_eq!(Side::parse(local), Side::Local(local));
        }
    }

    #[test]
    fn names_follow_dockers_rules() {
        let case = |source: Place, target: Place, entry: &str| {
            let plan = plan(&source, &target).expect("can be copied");
            (plan.directory.clone(), plan.rename(entry))
        };
        let of = |directory: &str, name: &str| (directory.to_owned(), Some(name.to_owned()));
        assert_eq!(case(place("/x/f", true, false), place("/tmp", true, true), "f"), of("/tmp", "f"));
        assert_eq!(case(place("/x/f", true, false), place("/tmp/g", false, false), "f"), of("/tmp", "g"));
        assert_eq!(case(place("/x/d", true, true), place("/tmp", true, true), "d/a"), of("/tmp", "d/a"));
        assert_eq!(case(place("/x/d", true, true), place("/tmp/e", false, false), "d/a"), of("/tmp", "e/a"));
        assert_eq!(case(place("/x/d/.", true, true), place("/tmp", true, true), "./a"), of("/tmp", "a"));
        assert_eq!(case(place("/x/d/.", true, true), place("/tmp/e", false, false), "./a"), of("/tmp", "e/a"));
        assert_eq!(case(place("/x/d/.", true, true), place("/tmp", true, true), ".hidden"), of("/tmp", ".hidden"));
        assert_eq!(case(place("/x/d/.", true, true), place("/tmp", true, true), "./").1, None);
        assert!(plan(&place("/x/d", true, true), &place("/tmp/f", true, false)).is_err());
        assert!(plan(&place("/x/f", true, false), &place("/tmp/no/", false, false)).is_err());
    }
}
