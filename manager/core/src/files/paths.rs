//! Docker's path rules, lexical: what the client wrote → an absolute path, its parent and its last component.

/// From `/`, cleaned of `.`, `..` and doubled slashes; a trailing `/` or `/.` stays, since it says "what is in it".
pub fn absolute(written: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in written.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    let mut path = format!("/{}", parts.join("/"));
    let is_current = written.is_empty() || written == "." || written.ends_with("/.");
    if is_current {
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push('.');
    } else if written.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// The directory in which the last component is looked for (relative to the root), and that component; empty or `.` for the directory
/// itself.
pub fn split(absolute: &str) -> (&str, &str) {
    let (parent, name) = absolute.rsplit_once('/').unwrap_or(("", absolute));
    (parent.trim_start_matches('/'), name)
}

/// The name under which it goes into an archive: the last component, `/` for the root, `.` where that was asked for.
pub fn base(absolute: &str) -> &str {
    let trimmed = absolute.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed.rsplit('/').next().unwrap_or(trimmed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_docker_reads_them() {
        for (written, path, parent, name, called) in [
            ("/", "/", "", "", "/"),
            ("", "/.", "", ".", "."),
            ("data", "/data", "", "data", "data"),
            ("/data/", "/data/", "data", "", "data"),
            ("/data/.", "/data/.", "data", ".", "."),
            ("../../etc//passwd", "/etc/passwd", "etc", "passwd", "passwd"),
            ("/a/../b/c", "/b/c", "b", "c", "c"),
        ] {
            let found = absolute(written);
            assert_eq!(found, path, "{written}");
            assert_eq!((split(&found), base(&found)), ((parent, name), called), "{written}");
        }
    }
}
