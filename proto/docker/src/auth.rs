//! `POST /auth` and the `X-Registry-Auth` header (which carries the first body in base64url).

use crate::null::dto;

/// Credentials for a registry. Field names are lower case on the wire.
#[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub struct AuthConfig {
    /// User name.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "crate::null::or_default")]
    pub username: String,
    /// Password.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "crate::null::or_default")]
    pub password: String,
    /// base64 of `user:password`, what old configuration files hold instead of the two above.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "crate::null::or_default")]
    pub auth: String,
    /// Old clients still send it; unused.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "crate::null::or_default")]
    pub email: String,
    /// Registry the credentials are for.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "crate::null::or_default")]
    pub serveraddress: String,
    /// Refresh token in place of user and password.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "crate::null::or_default")]
    pub identitytoken: String,
    /// Bearer token to be sent as it is.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "crate::null::or_default")]
    pub registrytoken: String,
}

impl std::fmt::Debug for AuthConfig {
    /// Names whose credentials these are, never the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig").field("username", &self.username).field("serveraddress", &self.serveraddress).finish_non_exhaustive()
    }
}

dto! {
    /// Answer of `POST /auth`.
    pub struct AuthResponse {
        /// `Login Succeeded`.
        pub status: String,
        /// Refresh token to be kept instead of the password; empty if the registry gives none.
        #[serde(skip_serializing_if = "crate::null::is_default")]
        pub identity_token: String,
    }
}
