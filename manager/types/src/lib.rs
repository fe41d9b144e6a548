//! The manager's vocabulary: ids, digests, references, platforms, errors. No I/O happens here.

pub mod descriptor;
pub mod digest;
pub mod error;
pub mod finding;
pub mod id;
pub mod platform;
pub mod reference;
pub mod units;

pub use descriptor::{Descriptor, media_type};
pub use digest::Digest;
pub use error::{Error, ErrorKind, Result};
pub use finding::{Finding, Severity};
pub use platform::Platform;
pub use reference::Reference;
