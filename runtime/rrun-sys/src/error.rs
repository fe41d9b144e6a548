use std::fmt;
use std::io;

/// The result of every function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A system call that failed: which one, with what, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    call: &'static str,
    args: String,
    errno: i32,
}

impl Error {
    /// `args` is what a reader needs to know which object was meant, not necessarily every argument.
    pub fn new(call: &'static str, args: impl Into<String>, errno: i32) -> Self {
        Error { call, args: args.into(), errno }
    }

    /// The error number (`libc::E…`).
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// Whether the error number is this one.
    pub fn is(&self, errno: i32) -> bool {
        self.errno == errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.call, self.args, errno_text(self.errno))
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(e: Error) -> io::Error {
        io::Error::new(io::Error::from_raw_os_error(e.errno).kind(), e.to_string())
    }
}

/// The kernel's error as the field words it: `no such file or directory`.
pub fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // An acronym keeps its capitals.
        (Some(_), Some(second)) if second.is_uppercase() => text.to_string(),
        (Some(first), _) => first.to_lowercase().chain(chars).collect(),
        _ => format!("error {errno}"),
    }
}

/// A raw return value as a result; `args` is only called on failure.
pub fn check(ret: libc::c_long, call: &'static str, args: impl FnOnce() -> String) -> Result<libc::c_long> {
    if ret < 0 { Err(Error::new(call, args(), io::Error::last_os_error().raw_os_error().unwrap_or(0))) } else { Ok(ret) }
}

/// The same for rustix's functions.
pub(crate) trait Described<T> {
    fn describe(self, call: &'static str, args: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Described<T> for rustix::io::Result<T> {
    fn describe(self, call: &'static str, args: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(call, args(), e.raw_os_error()))
    }
}

impl<T> Described<T> for nix::Result<T> {
    fn describe(self, call: &'static str, args: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(call, args(), e as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_errors_as_the_field_does() {
        assert_eq!(errno_text(libc::ENOENT), "no such file or directory");
        assert_eq!(errno_text(libc::ENOEXEC), "exec format error");
        assert_eq!(errno_text(libc::EACCES), "permission denied");
        assert_eq!(Error::new("open", "/x", libc::ENOENT).to_string(), "open /x: no such file or directory");
    }
}
