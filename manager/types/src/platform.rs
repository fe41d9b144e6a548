//! Platforms (image-spec, "image index"): `os/arch[/variant]`, normalised as containerd does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform that this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = normalise(std::env::consts::ARCH, None);
        Self { os: "linux".into(), architecture, variant }
    }

    /// Whether an image for `offered` runs on `self`; variants must agree after normalisation.
    pub fn matches(&self, offered: &Platform) -> bool {
        let a = normalise(&self.architecture, self.variant.as_deref());
        let b = normalise(&offered.architecture, offered.variant.as_deref());
        self.os == offered.os && a == b
    }
}

/// Go's names for architectures, with the default variants left out (`arm64/v8` = `arm64`, `amd64/v1` = `amd64`, `arm` = `arm/v7`).
fn normalise(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant.filter(|v| !v.is_empty());
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
        ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
        ("i386" | "i686" | "x86", _) => ("386", None),
        ("powerpc64le", v) => ("ppc64le", v),
        other => other,
    };
    (architecture.to_owned(), variant.map(str::to_owned))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/arch`, `os/arch/variant` or a bare `arch` (then of Linux).
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let bad = || Error::invalid(format!("invalid platform {text:?}: expected OS/ARCH or OS/ARCH/VARIANT, such as linux/amd64"));
        if parts.iter().any(|part| part.is_empty() || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))) {
            return Err(bad());
        }
        let lower = |part: &str| part.to_ascii_lowercase();
        let (os, architecture, variant) = match parts.as_slice() {
            ["linux"] => return Ok(Self::host()),
            [architecture] => ("linux".into(), lower(architecture), None),
            [os, architecture] => (lower(os), lower(architecture), None),
            [os, architecture, variant] => (lower(os), lower(architecture), Some(lower(variant))),
            _ => return Err(bad()),
        };
        let (architecture, variant) = normalise(&architecture, variant.as_deref());
        Ok(Self { os, architecture, variant })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_platform_match() {
        let parse = |text: &str| text.parse::<Platform>().expect(text);
        assert!(parse("linux/amd64").matches(&parse("linux/x86_64")));
        assert!(parse("linux/arm64").matches(&parse("linux/aarch64/v8")));
        assert!(parse("arm").matches(&parse("linux/arm/v7")));
        assert!(!parse("linux/arm/v6").matches(&parse("linux/arm/v7")));
        assert!(!parse("linux/amd64").matches(&parse("windows/amd64")));
    }

    #[test]
    fn malformed_platforms_are_refused() {
        for bad in ["", "/", "linux/", "linux//v7", "a/b/c/d", "linux/amd 64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?} should be refused");
        }
    }
}
