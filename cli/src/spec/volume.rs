//! `-v` in its forms: `/path`, `name:/path`, `/host:/path:ro`, `./relative:/path`.

use proto_docker::{Empty, StringSet};

/// What `-v` asks for: binds, and anonymous volumes.
#[derive(Debug, Default, PartialEq)]
pub struct Volumes {
    pub binds: Vec<String>,
    pub anonymous: StringSet,
}

pub fn parse(flags: &[String]) -> Result<Volumes, String> {
    let mut volumes = Volumes::default();
    for text in flags {
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [""] => return Err(format!("invalid spec: {text}: empty section between colons")),
            [path] => {
                volumes.anonymous.insert((*path).to_owned(), Empty {});
            }
            [source, rest @ ..] if rest.len() <= 2 => {
                if source.is_empty() || rest.iter().any(|part| part.is_empty()) {
                    return Err(format!("invalid spec: {text}: empty section between colons"));
                }
                let source = if source.starts_with('.') { absolute(source) } else { (*source).to_owned() };
                let bind = format!("{source}:{}", rest.join(":"));
                if !volumes.binds.contains(&bind) {
                    volumes.binds.push(bind);
                }
            }
            _ => return Err(format!("invalid spec: {text}: too many colons")),
        }
    }
    Ok(volumes)
}

/// A relative path from the current directory on, without `.` and `..` parts.
pub fn absolute(path: &str) -> String {
    use std::path::{Component, PathBuf};
    let start = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let mut out = PathBuf::new();
    for part in start.join(path).components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Volumes, String> {
        parse(&[text.to_owned()])
    }

    #[test]
    fn forms() {
        let here = std::env::current_dir().expect("has one").display().to_string();
        let binds = |text: &str| of(text).expect("parses").binds;
        assert_eq!(binds("./dir:/x:ro"), [format!("{here}/dir:/x:ro")]);
        assert_eq!(binds(".:/x"), [format!("{here}:/x")]);
        assert_eq!(binds("data:/var/lib"), ["data:/var/lib"]);
        assert_eq!(binds("/a:/b:rw,z"), ["/a:/b:rw,z"]);
        assert!(of("/anon").expect("parses").anonymous.contains_key("/anon"));
        assert!(of("a::b").is_err() && of("a:b:c:d").is_err() && of("").is_err());
    }
}
