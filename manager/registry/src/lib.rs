//! The registry client: resolve a reference to a manifest, fetch blobs. It knows nothing of the store.

pub mod auth;

pub use auth::Credentials;
