//! Image names as people write them, checked before they travel.

use crate::failure::Failure;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The registry, `docker.io` if none is named.
    pub domain: String,
    path: String,
    tag: String,
    digest: String,
}

impl Reference {
    /// # Errors
    /// In docker's words.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        parse(text).map_err(Failure::message)
    }

    /// Whether it has a tag or a digest.
    pub fn is_pinned(&self) -> bool {
        !self.tag.is_empty() || !self.digest.is_empty()
    }

    pub fn has_digest(&self) -> bool {
        !self.digest.is_empty()
    }

    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if !self.is_pinned() {
            "latest".clone_into(&mut self.tag);
        }
        self
    }

    /// Without the default registry and `library/`.
    pub fn familiar_name(&self) -> String {
        match (self.domain.as_str(), self.path.strip_prefix("library/")) {
            ("docker.io", Some(short)) if !short.contains('/') => short.to_owned(),
            ("docker.io", _) => self.path.clone(),
            _ => format!("{}/{}", self.domain, self.path),
        }
    }

    pub fn tag_or_digest(&self) -> &str {
        if self.digest.is_empty() { &self.tag } else { &self.digest }
    }

    fn suffix(&self) -> String {
        let tag = if self.tag.is_empty() { String::new() } else { format!(":{}", self.tag) };
        let digest = if self.digest.is_empty() { String::new() } else { format!("@{}", self.digest) };
        tag + &digest
    }

    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    pub fn full(&self) -> String {
        format!("{}/{}{}", self.domain, self.path, self.suffix())
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    let bad = || "invalid reference format".to_owned();
    if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"));
    }
    let (rest, digest) = text.split_once('@').unwrap_or((text, ""));
    if text.contains('@') && !is_digest(digest) {
        return Err(bad());
    }
    let (name, tag) = match rest.rfind(':') {
        Some(colon) if !rest[colon..].contains('/') => (&rest[..colon], &rest[colon + 1..]),
        _ => (rest, ""),
    };
    if (name.len() < rest.len() && tag.is_empty()) || !is_tag(tag) {
        return Err(bad());
    }
    let (domain, path) = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) => {
            (if first == "index.docker.io" { "docker.io" } else { first }, path.to_owned())
        }
        _ => ("docker.io", name.to_owned()),
    };
    let path = if domain == "docker.io" && !path.contains('/') && !path.is_empty() { format!("library/{path}") } else { path };
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(format!("invalid reference format: repository name ({path}) must be lowercase"));
    }
    if !path.split('/').all(is_part) || !is_domain(domain) {
        return Err(bad());
    }
    Ok(Reference { domain: domain.to_owned(), path, tag: tag.to_owned(), digest: digest.to_owned() })
}

fn is_digest(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(algorithm, hex)| !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_tag(text: &str) -> bool {
    text.len() <= 128 && !text.starts_with(['.', '-']) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_domain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)) && !text.starts_with(['-', '.'])
}

fn is_part(part: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |s: &str| matches!(s, "" | "." | "_" | "__") || s.chars().all(|c| c == '-');
    part.starts_with(alnum) && part.ends_with(alnum) && part.split(alnum).all(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let of = |text: &str| Reference::parse(text).expect(text).or_latest();
        assert_eq!(of("busybox").full(), "docker.io/library/busybox:latest");
        assert_eq!(of("docker.io/library/busybox:1").familiar(), "busybox:1");
        assert_eq!(
            (of("localhost:5000/a").familiar(), of("user/x:1.0").full()),
            ("localhost:5000/a:latest".into(), "docker.io/user/x:1.0".into())
        );
        let pinned = format!("busybox@sha256:{}", "a".repeat(64));
        assert_eq!(of(&pinned).tag_or_digest(), &pinned[8..]);
    }

    #[test]
    fn errors_are_dockers() {
        let why = |text: &str| Reference::parse(text).expect_err(text).text().unwrap_or_default().to_owned();
        assert_eq!(why("FOO"), "invalid reference format: repository name (library/FOO) must be lowercase");
        for bad in ["", "-", "a:", "a//b", "a@sha256:1", ":x", "a b"] {
            assert_eq!(why(bad), "invalid reference format", "{bad}");
        }
    }
}
