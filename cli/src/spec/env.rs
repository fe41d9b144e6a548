//! `-e`, `--env-file`, `-l`, `--label-file`.

use crate::failure::Failure;

/// Variables of the files, then those of the flags; a bare `NAME` takes its value from this environment.
///
/// # Errors
/// A file that cannot be read or has a malformed line.
pub fn collect(files: &[String], flags: &[String]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for file in files {
        for line in read_lines(file)? {
            all.extend(resolve(&line));
        }
    }
    for flag in flags {
        all.push(resolve(flag).unwrap_or_else(|| flag.clone()));
    }
    Ok(all)
}

/// Proxies of the configuration, for those that the flags do not speak of.
pub fn add_proxies(env: &mut Option<Vec<String>>, flags: &[String], proxies: &[(&str, &str)]) {
    let given = |name: &str| flags.iter().any(|flag| flag.split('=').next() == Some(name));
    for (name, value) in proxies {
        for name in [(*name).to_owned(), name.to_lowercase()] {
            if !given(&name) {
                env.get_or_insert_default().push(format!("{name}={value}"));
            }
        }
    }
}

/// `NAME=value` as it is, `NAME` with the value from the environment, or nothing if it has none.
fn resolve(entry: &str) -> Option<String> {
    if entry.contains('=') {
        return Some(entry.to_owned());
    }
    std::env::var(entry).ok().map(|value| format!("{entry}={value}"))
}

/// Labels of the files, then those of the flags.
///
/// # Errors
/// As [`collect`].
pub fn labels(files: &[String], flags: &[String]) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    let mut all = Vec::new();
    for file in files {
        all.extend(read_lines(file)?);
    }
    all.extend_from_slice(flags);
    Ok(key_values(&all))
}

/// `key=value` pairs; a bare key has an empty value.
pub fn key_values(pairs: &[String]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn read_lines(path: &str) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|err| {
        let why = if err.kind() == std::io::ErrorKind::NotFound { "no such file or directory".to_owned() } else { err.to_string() };
        Failure::message(format!("open {path}: {why}"))
    })?;
    let mut lines = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(Failure::message(format!("invalid environment file ({path}): no variable name on line '{line}'")));
        }
        if name.contains(char::is_whitespace) {
            return Err(Failure::message(format!("invalid environment file ({path}): variable '{name}' contains whitespaces")));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_flags() {
        let dir = std::env::temp_dir().join(format!("rdocker-env-{}", std::process::id()));
        std::fs::write(&dir, "# a comment\n\nA=1\n  B = 2\nRDOCKER_SURELY_UNSET\nPATH\n").expect("writes");
        let bad = collect(&[dir.display().to_string()], &[]).expect_err("B has a space");
        assert!(bad.text().is_some_and(|text| text.ends_with("variable 'B ' contains whitespaces")));
        std::fs::write(&dir, "# a comment\n\nA=1\nRDOCKER_SURELY_UNSET\nPATH\n").expect("writes");
        let all = collect(&[dir.display().to_string()], &["C=".into(), "RDOCKER_SURELY_UNSET".into()]).expect("reads");
        std::fs::remove_file(&dir).expect("removes");
        let path = format!("PATH={}", std::env::var("PATH").expect("has a PATH"));
        assert_eq!(all, ["A=1", &path, "C=", "RDOCKER_SURELY_UNSET"]);
    }

    #[test]
    fn proxies_come_in_both_spellings_unless_given() {
        let mut env = None;
        add_proxies(&mut env, &["http_proxy=mine".into(), "NO_PROXY".into()], &[("HTTP_PROXY", "http://p"), ("NO_PROXY", "*.x")]);
        assert_eq!(env.expect("some"), ["HTTP_PROXY=http://p", "no_proxy=*.x"]);
    }

    #[test]
    fn a_missing_file_is_told_as_docker_does() {
        let failure = collect(&["/nosuch".into()], &[]).expect_err("is missing");
        assert_eq!(failure.text(), Some("open /nosuch: no such file or directory"));
    }
}
