//! Images: pull, load, save, tag, remove, inspect; and the root filesystem of a new container.
//!
//! Adapters translate their protocol to the structs here and render what comes back. Names that methods take
//! (`name: &str`) are what people type: `busybox`, `busybox:1`, `repo@sha256:…`, a full id (`sha256:…` or 64 hex
//! digits) or an unambiguous prefix of one.

mod caps;
mod catalog;
pub mod config;
mod document;
mod fetch;
mod instructions;
mod lease;
mod list;
mod make;
pub mod model;
mod platforms;
pub mod progress;
mod prune;
mod pull;
pub mod push;
mod remote;
mod remove;
mod service;
mod shipped;
mod state;
#[cfg(test)]
mod tests;
mod transfer;

pub use caps::{Amount, Caps, Collect};
pub use config::{Healthcheck, ImageConfig, ImageFile};
pub use instructions::apply as apply_instructions;
pub use list::Listing;
pub(crate) use make::Sink;
pub use model::{
    ExtendImage, HistoryLine, Image, ImageEvent, ImageFilters, ImageUser, ImportImage, ListedImage, LoadedImage, LocalManifest,
    PreparedRootfs, PruneImages, PrunedImages, PullImage, PulledImage, PushImage, RemoteImage, RemoteManifest, RemoveImage, Removed,
};
pub use progress::{LayerStep, Pull, PullEvent};
pub use push::{PushEvent, PushEvents, PushStep};
pub use rcontainerd_registry::{Credentials, Match, Proxies, RegistryConfig};
pub use service::{ImageService, ImagesConfig};
