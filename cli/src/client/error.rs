//! What can go wrong between this program and the engine.

#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// The engine answered with an error.
    #[error("Error response from daemon: {message}")]
    Daemon { status: u16, message: String },
    /// The engine could not be reached; the text is complete.
    #[error("{0}")]
    Connect(String),
    /// The answer could not be understood, or the connection broke.
    #[error("{0}")]
    Broken(String),
}

impl ApiError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Daemon { status: 404, .. })
    }

    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect(_))
    }

    /// The engine's own words, without "Error response from daemon".
    pub fn daemon_message(&self) -> Option<&str> {
        match self {
            Self::Daemon { message, .. } => Some(message),
            _ => None,
        }
    }
}
