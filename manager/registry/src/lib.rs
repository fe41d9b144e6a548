//! The registry client: resolve a reference to a manifest, fetch blobs. It knows nothing of the store.
//!
//! ```text
//! Reference ─endpoints→ [mirror…, registry] ─ping, auth→ Repository ─manifest→ Document ─choose→ Manifest ─blob→ chunks
//! ```
//!
//! Where credentials go: to the registry that the reference names, and to the token service that this registry names; never to a
//! mirror, never to the target of a redirect. Where bytes come from is never trusted: manifests are hashed here, blobs by who stores them.

pub mod auth;
mod blob;
mod challenge;
mod config;
mod endpoint;
mod error;
mod http;
pub mod manifest;
mod repository;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod token;

pub use auth::Credentials;
pub use blob::{BlobStream, Chunk};
pub use config::{Limits, RegistryConfig};
pub use manifest::{Document, Index, Manifest};
pub use repository::{Fetched, Registry, Repository};
