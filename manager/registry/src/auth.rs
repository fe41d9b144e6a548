//! Credentials and how they are shown to a registry: basic, bearer tokens, OAuth2 refresh tokens.

use std::fmt;

/// What the caller gave us to identify with at one registry.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    #[default]
    Anonymous,
    /// A user name and password, as `docker login` stores them.
    Basic { username: String, password: String },
    /// An OAuth2 refresh token (`identitytoken` in Docker's auth config).
    IdentityToken(String),
    /// A bearer token used as it is (`registrytoken` in Docker's auth config).
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    /// Secrets never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic({username})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}
