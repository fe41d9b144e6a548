//! The tests' own vocabulary: [`TestHost`] is a manager with root, state, network namespace and cgroup parent of its own;
//! [`image`] makes images from Debian's busybox; [`Registry`] is Debian's docker-registry beside it.
//!
//! Everything that a host makes is looked for when it is dropped: what is left behind fails the test, and so does what `fsck` finds.

pub mod checkout;
pub mod client;
pub mod debian;
pub mod executable;
pub mod host;
pub mod image;
pub mod leftovers;
pub mod liar;
pub mod outcome;
pub mod random;
pub mod registry;
pub mod terminal;

pub use checkout::Checkout;
pub use client::Client;
pub use executable::executable;
pub use host::TestHost;
pub use outcome::Outcome;
pub use random::Random;
pub use registry::Registry;
pub use terminal::Terminal;
