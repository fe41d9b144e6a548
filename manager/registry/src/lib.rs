//! The registry client: resolve a reference to a manifest, fetch blobs, push both. It knows nothing of the store.
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
mod hosts;
mod http;
mod line;
pub mod manifest;
mod proxy;
mod push;
mod repository;
mod search;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod token;

pub use auth::Credentials;
pub use blob::{BlobStream, Chunk};
pub use config::{Limits, Proxies, RegistryConfig};
pub use manifest::{Artifact, Document, Index, Manifest};
pub use push::{Pusher, Upload};
pub use repository::{Fetched, Registry, Repository};
pub use search::Match;
