//! Images: pull, load, save, tag, remove, inspect; and the root filesystem of a new container.
//!
//! Adapters translate their protocol to the structs here and render what comes back. Names that methods take
//! (`name: &str`) are what people type: `busybox`, `busybox:1`, `repo@sha256:…`, a full id (`sha256:…` or 64 hex
//! digits) or an unambiguous prefix of one.

mod catalog;
pub mod config;
mod document;
mod fetch;
mod list;
pub mod model;
pub mod progress;
mod pull;
mod remove;
mod service;
mod shipped;
mod state;
#[cfg(test)]
mod tests;
mod transfer;

pub use config::{Healthcheck, ImageConfig, ImageFile};
pub use model::{
    HistoryLine, Image, ImageEvent, ImageFilters, ImageUser, LoadedImage, PreparedRootfs, PullImage, PulledImage, RemoveImage, Removed,
};
pub use progress::{LayerStep, Pull, PullEvent};
pub use rcontainerd_registry::Credentials;
pub use service::{ImageService, ImagesConfig};
