//! Image references with Docker's grammar and defaults: `busybox` is `docker.io/library/busybox:latest`.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, Error, Result};

pub const DEFAULT_DOMAIN: &str = "docker.io";
pub const DEFAULT_TAG: &str = "latest";
const LEGACY_DOMAIN: &str = "index.docker.io";
/// What ids begin with.
const ID_ALGORITHM: &str = "sha256";
const OFFICIAL_REPOSITORY: &str = "library";
/// Docker's limit for a repository name without tag and digest (`reference.NameTotalLengthMax`).
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A normalised image name: registry domain, repository path, and a tag or digest or both or neither.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry, such as `docker.io` or `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository below the registry, such as `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// With `:latest` added where neither tag nor digest was given.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository under another tag, without digest.
    ///
    /// # Errors
    /// When the tag breaks Docker's rule.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        check_tag(tag).map_err(|why| invalid(tag, why))?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository pinned to a digest, without tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Refuses a name that an image must not be given, though it can be written: `sha256:beef` would be taken for an id.
    ///
    /// # Errors
    /// `InvalidArgument` in Docker's words.
    pub fn check_unambiguous(&self) -> Result<()> {
        if self.familiar_name() == ID_ALGORITHM {
            return Err(Error::invalid("refusing to create an ambiguous tag using digest algorithm as name"));
        }
        Ok(())
    }

    /// `domain/path` without tag or digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it: without `docker.io/` and `library/`.
    pub fn familiar_name(&self) -> String {
        match self.short_path() {
            Some(short) => short.to_owned(),
            None => self.name(),
        }
    }

    /// What is left of a name of the default registry.
    fn short_path(&self) -> Option<&str> {
        let own = Some(self.path.as_str()).filter(|_| self.domain == DEFAULT_DOMAIN)?;
        Some(own.strip_prefix("library/").filter(|short| !short.contains('/')).unwrap_or(own))
    }

    /// The whole reference as people write it, such as `busybox:latest`. A list of ten thousand images makes as many.
    pub fn familiar(&self) -> String {
        let name: [&str; 3] = match self.short_path() {
            Some(short) => [short, "", ""],
            None => [&self.domain, "/", &self.path],
        };
        let tag = self.tag.as_deref().map_or(["", ""], |tag| [":", tag]);
        let digest = self.digest.as_ref().map_or([""; 4], |digest| ["@", digest.algorithm().as_str(), ":", digest.hex()]);
        [&name[..], &tag, &digest].concat().concat()
    }
}

impl fmt::Display for Reference {
    /// The full form, such as `docker.io/library/busybox:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        self.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse::<Digest>().map_err(|_| invalid(text, "the part after '@' is not a digest"))?))
            }
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag {
            check_tag(tag).map_err(|why| invalid(text, why))?;
        }
        let (domain, path) = split_domain(name);
        check_domain(domain).map_err(|why| invalid(text, why))?;
        if is_hex_id(name) {
            return Err(invalid(text, "64 hex digits are an image id, not a repository name"));
        }
        let path = match domain {
            DEFAULT_DOMAIN if !path.contains('/') => format!("{OFFICIAL_REPOSITORY}/{path}"),
            _ => path.to_owned(),
        };
        check_path(&path).map_err(|why| invalid(text, why))?;
        if domain.len() + 1 + path.len() > NAME_MAX {
            return Err(invalid(text, "the repository name is longer than 255 bytes"));
        }
        Ok(Self { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
    }
}

fn invalid(text: &str, why: &str) -> Error {
    Error::invalid(format!("invalid reference format: {text:?}: {why}"))
}

fn is_hex_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Splits `name:tag`; a colon before the last slash belongs to a port.
fn split_tag(rest: &str) -> (&str, Option<&str>) {
    match rest.rfind(':') {
        Some(colon) if !rest[colon..].contains('/') => (&rest[..colon], Some(&rest[colon + 1..])),
        _ => (rest, None),
    }
}

/// The first component is a domain if it has a dot or a port, is `localhost`, or has upper-case letters; else the domain is Docker's.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) => {
            (if first == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { first }, path)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn check_tag(tag: &str) -> std::result::Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match tag.as_bytes() {
        [] => Err("the tag is empty"),
        bytes if bytes.len() > TAG_MAX => Err("the tag is longer than 128 bytes"),
        [first, rest @ ..] if word(*first) && rest.iter().all(|b| word(*b) || b".-".contains(b)) => Ok(()),
        _ => Err("a tag has letters, digits, '_', '.', '-' and does not start with '.' or '-'"),
    }
}

fn check_domain(domain: &str) -> std::result::Result<(), &'static str> {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let hex = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
                if !hex {
                    return Err("the registry's IPv6 address is malformed");
                }
                ("ipv6", port.strip_prefix(':').or(if port.is_empty() { None } else { Some("x") }))
            }
            None => return Err("the registry's IPv6 address lacks its ']'"),
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    if !host.split('.').all(label) {
        return Err("the registry's name is malformed");
    }
    match port {
        Some(port) if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) => Err("the registry's port is not a number"),
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> std::result::Result<(), &'static str> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("repository name must be lowercase");
    }
    if path.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err("a repository's parts have lower-case letters and digits, separated by '.', '_', '__' or dashes")
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    alnum(*first)
        && alnum(*last)
        && part
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|err| panic!("{text}: {err}"), |r| r.or_latest().to_string())
    }

    #[test]
    fn names_are_normalised_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (short, long) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("user/app:1.0", "docker.io/user/app:1.0"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("registry:5000/a/b/c:t", "registry:5000/a/b/c:t"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("Foo/bar", "Foo/bar:latest"),
            ("a__b/c---d", "docker.io/a__b/c---d:latest"),
        ] {
            assert_eq!(full(short), long);
        }
        assert_eq!(full(&format!("busybox@{digest}")), format!("docker.io/library/busybox@{digest}"));
        assert_eq!(full(&format!("busybox:1@{digest}")), format!("docker.io/library/busybox:1@{digest}"));
    }

    #[test]
    fn malformed_names_are_refused() {
        let id = "a".repeat(64);
        for bad in [
            "",
            ":tag",
            "Busybox",
            "busybox:",
            "busybox:-x",
            "a//b",
            "a/",
            "/a",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "host:port/x",
            "busybox@sha256:12",
            "a b",
            "localhost:5000/",
            &id,
            "http://x/y",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} should be refused");
        }
    }

    #[test]
    fn a_name_that_reads_as_an_id_is_not_given() {
        for bad in ["sha256", "sha256:beef", "docker.io/library/sha256:x", "library/sha256"] {
            let err = bad.parse::<Reference>().expect(bad).check_unambiguous().expect_err(bad);
            assert_eq!(err.message(), "refusing to create an ambiguous tag using digest algorithm as name", "{bad}");
        }
        for good in ["sha512:beef", "me/sha256:beef", "localhost/sha256:beef", "example.org/library/sha256", "sha256x"] {
            good.parse::<Reference>().expect(good).check_unambiguous().expect(good);
        }
    }

    #[test]
    fn familiar_forms() {
        for (long, short) in [
            ("docker.io/library/busybox:1", "busybox:1"),
            ("docker.io/user/app:1", "user/app:1"),
            ("localhost:5000/library/x:1", "localhost:5000/library/x:1"),
        ] {
            assert_eq!(long.parse::<Reference>().expect(long).familiar(), short);
        }
    }
}
