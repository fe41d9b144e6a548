//! How a command ends when it does not end well: a text for stderr and an exit status.

use crate::client::ApiError;

#[derive(Debug)]
pub struct Failure {
    /// Printed on stderr with a newline; `None` if all has been said.
    message: Option<String>,
    code: u8,
}

impl Failure {
    /// Exit status 1 with a text.
    pub fn message(text: impl Into<String>) -> Self {
        Self { message: Some(text.into()), code: 1 }
    }

    pub fn exit_with(code: u8, text: impl Into<String>) -> Self {
        Self { message: Some(text.into()), code }
    }

    /// An exit status without a word, such as a container's own.
    pub fn silent(code: u8) -> Self {
        Self { message: None, code }
    }

    /// A container's exit status as the program's.
    pub fn status(code: i64) -> Self {
        Self::silent(u8::try_from(code & 0xff).unwrap_or(255))
    }

    pub fn text(&self) -> Option<&str> {
        self.message.as_deref()
    }

    pub fn code(&self) -> u8 {
        self.code
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::message(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::message(error.to_string())
    }
}
