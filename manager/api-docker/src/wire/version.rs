//! API versions: which are spoken, and how a request names one.

use std::fmt;
use std::str::FromStr;

use super::error::ApiError;

/// `1.NN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// The oldest version answered.
    pub(crate) const MIN: Self = Self::v1(24);
    /// The newest version answered, and what a request without version gets.
    pub(crate) const MAX: Self = Self::v1(51);

    /// `1.minor`.
    #[must_use]
    pub(crate) const fn v1(minor: u16) -> Self {
        Self { major: 1, minor }
    }

    /// Refuses a version outside of what is spoken, in dockerd's words.
    ///
    /// # Errors
    /// 400 for both directions.
    pub(crate) fn check(self) -> Result<Self, ApiError> {
        if self < Self::MIN {
            return Err(ApiError::bad_request(format!(
                "client version {self} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
                Self::MIN
            )));
        }
        if self > Self::MAX {
            return Err(ApiError::bad_request(format!("client version {self} is too new. Maximum supported API version is {}", Self::MAX)));
        }
        Ok(self)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |digits: &str| -> Result<u16, ()> {
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(());
            }
            digits.parse().map_err(|_| ())
        };
        let (major, minor) = text.split_once('.').ok_or(())?;
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

/// Splits `/v1.41/info` into the version and `/info`; a path without version comes back whole.
pub(crate) fn split_path(path: &str) -> (Option<ApiVersion>, &str) {
    let versioned = path.strip_prefix("/v").and_then(|rest| {
        let (version, tail) = rest.split_at(rest.find('/')?);
        Some((version.parse().ok()?, tail))
    });
    match versioned {
        Some((version, tail)) => (Some(version), tail),
        None => (None, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_and_without_version() {
        assert_eq!(split_path("/v1.41/info"), (Some(ApiVersion::v1(41)), "/info"));
        assert_eq!(split_path("/info"), (None, "/info"));
        assert_eq!(split_path("/volumes/v1.41/x"), (None, "/volumes/v1.41/x"));
        assert_eq!(split_path("/v1.41"), (None, "/v1.41"));
        assert_eq!(split_path("/v1.x/info"), (None, "/v1.x/info"));
        assert_eq!(split_path("/v+1.4/info"), (None, "/v+1.4/info"));
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(ApiVersion::v1(9) < ApiVersion::v1(24));
        assert!("2.0".parse::<ApiVersion>().expect("a version") > ApiVersion::MAX);
    }

    #[test]
    fn versions_outside_are_refused_in_dockers_words() {
        let old = ApiVersion::v1(23).check().expect_err("too old");
        assert_eq!(
            old.message(),
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        let new = ApiVersion::v1(99).check().expect_err("too new");
        assert_eq!(new.message(), "client version 1.99 is too new. Maximum supported API version is 1.51");
        assert!(ApiVersion::MIN.check().is_ok() && ApiVersion::MAX.check().is_ok());
    }
}
