//! The tests' own vocabulary: [`TestHost`] is a manager with root, state, network namespace and cgroup parent of its own;
//! [`image`] makes images from Debian's busybox; [`Registry`] is Debian's docker-registry beside it.
//!
//! Everything that a host makes is looked for when it is dropped: what is left behind fails the test.

pub mod host;
pub mod image;
pub mod leftovers;
pub mod outcome;
pub mod registry;

pub use host::TestHost;
pub use outcome::Outcome;
pub use registry::Registry;
