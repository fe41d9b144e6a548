//! The vocabulary's descriptor, under the path that users of the store know.

pub use rcontainerd_types::descriptor::{Descriptor, media_type};
